package print

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Watch writes one response of a watch; several watches may write at once. A
// bookmark has a line of its own before it, in every format, as in etcd.
func (p *Printer) Watch(r *clientv3.WatchResponse) error {
	bookmark := ""
	if r.IsProgressNotify() {
		bookmark = fmt.Sprintf("progress notify: %d\n", r.Header.Revision)
	}
	return p.write(answer{
		before: bookmark,
		simple: func(l *lines) {
			for _, e := range r.Events {
				l.printf("%s\n", e.Type)
				if e.PrevKv != nil {
					l.pair(e.PrevKv)
				}
				l.pair(e.Kv)
			}
		},
		fields: func(l *lines) {
			l.header(r.Header)
			for _, e := range r.Events {
				l.field("Type", "%s", e.Type)
				if e.PrevKv != nil {
					l.keyValue("Prev", e.PrevKv)
				}
				l.keyValue("", e.Kv)
			}
		},
		json: r,
		protobuf: &pb.WatchResponse{
			Header: r.Header, Events: r.Events,
			CompactRevision: r.CompactRevision, Canceled: r.Canceled, Created: r.Created,
		},
	})
}
