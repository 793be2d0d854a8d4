package print

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Put writes the answer to a put.
func (p *Printer) Put(r *clientv3.PutResponse) error {
	m := (*pb.PutResponse)(r)
	return p.write(answer{
		simple:   func(l *lines) { l.put(m) },
		fields:   func(l *lines) { l.putFields(m) },
		json:     r,
		protobuf: m,
	})
}

// Get writes the answer to a range. valueOnly leaves the keys out of simple.
func (p *Printer) Get(r *clientv3.GetResponse, valueOnly bool) error {
	m := (*pb.RangeResponse)(r)
	return p.write(answer{
		simple:   func(l *lines) { l.get(m, valueOnly) },
		fields:   func(l *lines) { l.getFields(m) },
		json:     r,
		protobuf: m,
	})
}

// Del writes the answer to a deletion.
func (p *Printer) Del(r *clientv3.DeleteResponse) error {
	m := (*pb.DeleteRangeResponse)(r)
	return p.write(answer{
		simple:   func(l *lines) { l.del(m) },
		fields:   func(l *lines) { l.delFields(m) },
		json:     r,
		protobuf: m,
	})
}

func (l *lines) put(r *pb.PutResponse) {
	l.printf("OK\n")
	if r.PrevKv != nil {
		l.pair(r.PrevKv)
	}
}

func (l *lines) putFields(r *pb.PutResponse) {
	l.header(r.Header)
	if r.PrevKv != nil {
		l.keyValue("Prev", r.PrevKv)
	}
}

func (l *lines) get(r *pb.RangeResponse, valueOnly bool) {
	for _, kv := range r.Kvs {
		if !valueOnly {
			l.text(kv.Key)
		}
		l.text(kv.Value)
	}
}

func (l *lines) getFields(r *pb.RangeResponse) {
	l.header(r.Header)
	for _, kv := range r.Kvs {
		l.keyValue("", kv)
	}
	l.field("More", "%t", r.More)
	l.field("Count", "%d", r.Count)
}

func (l *lines) del(r *pb.DeleteRangeResponse) {
	l.printf("%d\n", r.Deleted)
	for _, kv := range r.PrevKvs {
		l.pair(kv)
	}
}

func (l *lines) delFields(r *pb.DeleteRangeResponse) {
	l.header(r.Header)
	l.field("Deleted", "%d", r.Deleted)
	for _, kv := range r.PrevKvs {
		l.keyValue("Prev", kv)
	}
}
