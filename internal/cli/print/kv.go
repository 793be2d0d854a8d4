package print

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Put writes the answer to a put.
func (p *Printer) Put(r *clientv3.PutResponse) error {
	return p.write(answer{
		simple: func(l *lines) {
			l.printf("OK\n")
			if r.PrevKv != nil {
				l.pair(r.PrevKv)
			}
		},
		fields: func(l *lines) {
			l.header(r.Header)
			if r.PrevKv != nil {
				l.keyValue("Prev", r.PrevKv)
			}
		},
		json:     r,
		protobuf: (*pb.PutResponse)(r),
	})
}

// Get writes the answer to a range. valueOnly leaves the keys out of simple.
func (p *Printer) Get(r *clientv3.GetResponse, valueOnly bool) error {
	return p.write(answer{
		simple: func(l *lines) {
			for _, kv := range r.Kvs {
				if !valueOnly {
					l.text(kv.Key)
				}
				l.text(kv.Value)
			}
		},
		fields: func(l *lines) {
			l.header(r.Header)
			for _, kv := range r.Kvs {
				l.keyValue("", kv)
			}
			l.field("More", "%t", r.More)
			l.field("Count", "%d", r.Count)
		},
		json:     r,
		protobuf: (*pb.RangeResponse)(r),
	})
}

// Del writes the answer to a deletion.
func (p *Printer) Del(r *clientv3.DeleteResponse) error {
	return p.write(answer{
		simple: func(l *lines) {
			l.printf("%d\n", r.Deleted)
			for _, kv := range r.PrevKvs {
				l.pair(kv)
			}
		},
		fields: func(l *lines) {
			l.header(r.Header)
			l.field("Deleted", "%d", r.Deleted)
			for _, kv := range r.PrevKvs {
				l.keyValue("Prev", kv)
			}
		},
		json:     r,
		protobuf: (*pb.DeleteRangeResponse)(r),
	})
}
