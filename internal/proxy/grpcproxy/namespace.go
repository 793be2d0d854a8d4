package grpcproxy

import (
	"bytes"
	"encoding/binary"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kvorum/kvorum/internal/api/v3/concurrencypb"
)

// space is the prefix of all keys, which clients never see. To them
//
//	"a" .. "b"    is the cluster's   prefix+"a" .. prefix+"b"
//	"a" .. "\0"   (everything above) prefix+"a" .. the end of the prefix
//	""            stays empty: the cluster refuses it, in its own words
//
// Messages are changed in place: they belong to the call.
type space string

// all is the end of a range that has none, and the lowest key there can be.
const all = "\x00"

func (s space) key(key []byte) []byte {
	if s == "" || len(key) == 0 {
		return key
	}
	return append([]byte(s), key...)
}

func (s space) end(end []byte) []byte {
	switch {
	case s == "" || len(end) == 0:
		return end
	case string(end) == all:
		return s.after()
	}
	return append([]byte(s), end...)
}

// after is the lowest key that is above all with the prefix.
func (s space) after() []byte {
	end := []byte(s)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte(all)
}

func (s space) inner(key []byte) []byte { return bytes.TrimPrefix(key, []byte(s)) }

func (s space) pair(kv *mvccpb.KeyValue) {
	if kv != nil {
		kv.Key = s.inner(kv.Key)
	}
}

func (s space) pairs(list []*mvccpb.KeyValue) {
	if s == "" {
		return
	}
	for _, kv := range list {
		s.pair(kv)
	}
}

func (s space) rangeUp(r *pb.RangeRequest) { r.Key, r.RangeEnd = s.key(r.Key), s.end(r.RangeEnd) }

func (s space) deleteUp(r *pb.DeleteRangeRequest) {
	r.Key, r.RangeEnd = s.key(r.Key), s.end(r.RangeEnd)
}

func (s space) txnUp(r *pb.TxnRequest) {
	if s == "" || r == nil {
		return
	}
	for _, c := range r.Compare {
		if c != nil {
			c.Key, c.RangeEnd = s.key(c.Key), s.end(c.RangeEnd)
		}
	}
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			switch {
			case op.GetRequestRange() != nil:
				s.rangeUp(op.GetRequestRange())
			case op.GetRequestPut() != nil:
				put := op.GetRequestPut()
				put.Key = s.key(put.Key)
			case op.GetRequestDeleteRange() != nil:
				s.deleteUp(op.GetRequestDeleteRange())
			case op.GetRequestTxn() != nil:
				s.txnUp(op.GetRequestTxn())
			}
		}
	}
}

func (s space) txnDown(r *pb.TxnResponse) {
	if s == "" || r == nil {
		return
	}
	for _, op := range r.Responses {
		switch {
		case op.GetResponseRange() != nil:
			s.pairs(op.GetResponseRange().Kvs)
		case op.GetResponsePut() != nil:
			s.pair(op.GetResponsePut().PrevKv)
		case op.GetResponseDeleteRange() != nil:
			s.pairs(op.GetResponseDeleteRange().PrevKvs)
		case op.GetResponseTxn() != nil:
			s.txnDown(op.GetResponseTxn())
		}
	}
}

// watchUp is a watch's range; an empty key is the lowest there is (spec/v3-api.md 3.1).
func (s space) watchUp(r *pb.WatchCreateRequest) {
	if s == "" {
		return
	}
	if len(r.Key) == 0 {
		r.Key = []byte(all)
	}
	r.Key, r.RangeEnd = s.key(r.Key), s.end(r.RangeEnd)
}

func (s space) events(list []*mvccpb.Event) {
	if s == "" {
		return
	}
	for _, e := range list {
		s.pair(e.Kv)
		s.pair(e.PrevKv)
	}
}

// keys leaves out those of other spaces.
func (s space) keys(list [][]byte) [][]byte {
	if s == "" {
		return list
	}
	kept := list[:0]
	for _, key := range list {
		if strings.HasPrefix(string(key), string(s)) {
			kept = append(kept, s.inner(key))
		}
	}
	return kept
}

// Locks and elections: a name is the beginning of keys, and empty it is one too.

func (s space) name(name []byte) []byte { return append([]byte(s), name...) }

func (s space) lock(r *concurrencypb.LockRequest)     { r.Name = s.name(r.Name) }
func (s space) locked(r *concurrencypb.LockResponse)  { r.Key = s.inner(r.Key) }
func (s space) unlock(r *concurrencypb.UnlockRequest) { r.Key = s.key(r.Key) }

func (s space) campaign(r *concurrencypb.CampaignRequest) { r.Name = s.name(r.Name) }
func (s space) elected(r *concurrencypb.CampaignResponse) {
	if r.Leader != nil {
		r.Leader.Name, r.Leader.Key = s.inner(r.Leader.Name), s.inner(r.Leader.Key)
	}
}

func (s space) proof(l *concurrencypb.LeaderKey) {
	if l != nil {
		l.Name, l.Key = s.name(l.Name), s.key(l.Key)
	}
}

func (s space) proclaim(r *concurrencypb.ProclaimRequest) { s.proof(r.Leader) }
func (s space) resign(r *concurrencypb.ResignRequest)     { s.proof(r.Leader) }
func (s space) line(r *concurrencypb.LeaderRequest)       { r.Name = s.name(r.Name) }
func (s space) leads(r *concurrencypb.LeaderResponse)     { s.pair(r.Kv) }

// joined is values of any bytes, each behind its length: equal only if all are.
func joined(values ...string) string {
	var text []byte
	for _, v := range values {
		text = binary.AppendUvarint(text, uint64(len(v)))
		text = append(text, v...)
	}
	return string(text)
}
