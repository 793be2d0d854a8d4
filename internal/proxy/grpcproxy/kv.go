package grpcproxy

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// kv is the KV service.
type kv struct {
	pb.UnimplementedKVServer
	up    pb.KVClient
	space space
	cache *cache
	// order is nil unless reads must not go back.
	order *order
}

func newKV(p *Proxy, ordering bool) *kv {
	k := &kv{up: pb.NewKVClient(p.conn), space: p.space, cache: newCache()}
	if ordering {
		k.order = &order{}
	}
	return k
}

// Range answers one that need not be linearizable from memory, if the same caller was
// told the same a moment ago.
func (k *kv) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	k.space.rangeUp(r)
	by := shown(ctx)
	if !r.Serializable || by.leader {
		return k.ask(ctx, r)
	}
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		return k.ask(ctx, r)
	}
	kept, read := k.cache.begin(joined(by.who, string(text)), r)
	if kept != nil && !k.order.behind(kept.Header) {
		return kept, nil
	}
	resp, err := k.ask(ctx, r)
	k.cache.end(read, resp, err)
	return resp, err
}

// ask has the cluster answer.
func (k *kv) ask(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	resp, err := k.up.Range(outgoing(ctx), r)
	if err == nil && r.Serializable && k.order.behind(resp.Header) {
		// Every answer since was made at a revision of the cluster's: a linearizable
		// read is made at none that is lower.
		again := proto.Clone(r).(*pb.RangeRequest)
		again.Serializable = false
		resp, err = k.up.Range(outgoing(ctx), again)
	}
	if err != nil {
		return nil, err
	}
	k.order.saw(resp.Header)
	k.space.pairs(resp.Kvs)
	return resp, nil
}

// RangeStream is refused: what is sent in pieces cannot be kept, nor asked for again
// (spec/v3-api.md 2.2).
func (k *kv) RangeStream(*pb.RangeRequest, grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	return status.Error(codes.Unimplemented, "RangeStream is not supported by the gRPC proxy")
}

// Put passes; whatever comes of it, what was read of the key may be no longer true.
func (k *kv) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	r.Key = k.space.key(r.Key)
	defer k.cache.forget(r.Key, nil)
	resp, err := k.up.Put(outgoing(ctx), r)
	if err != nil {
		return nil, err
	}
	k.order.saw(resp.Header)
	k.space.pair(resp.PrevKv)
	return resp, nil
}

// DeleteRange passes.
func (k *kv) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	k.space.deleteUp(r)
	defer k.cache.forget(r.Key, r.RangeEnd)
	resp, err := k.up.DeleteRange(outgoing(ctx), r)
	if err != nil {
		return nil, err
	}
	k.order.saw(resp.Header)
	k.space.pairs(resp.PrevKvs)
	return resp, nil
}

// Txn passes; what either branch writes is forgotten.
func (k *kv) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	k.space.txnUp(r)
	defer k.forgetWrites(r)
	resp, err := k.up.Txn(outgoing(ctx), r)
	if err == nil && k.order.behind(resp.Header) && onlyReads(r) {
		linearizable := proto.Clone(r).(*pb.TxnRequest)
		for _, op := range append(linearizable.Success, linearizable.Failure...) {
			op.GetRequestRange().Serializable = false
		}
		resp, err = k.up.Txn(outgoing(ctx), linearizable)
	}
	if err != nil {
		return nil, err
	}
	k.order.saw(resp.Header)
	k.space.txnDown(resp)
	return resp, nil
}

// onlyReads says whether a transaction may have been answered by one member alone.
func onlyReads(r *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if op.GetRequestRange() == nil {
				return false
			}
		}
	}
	return len(r.Success)+len(r.Failure) > 0
}

func (k *kv) forgetWrites(r *pb.TxnRequest) {
	for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range ops {
			switch {
			case op.GetRequestPut() != nil:
				k.cache.forget(op.GetRequestPut().Key, nil)
			case op.GetRequestDeleteRange() != nil:
				k.cache.forget(op.GetRequestDeleteRange().Key, op.GetRequestDeleteRange().RangeEnd)
			case op.GetRequestTxn() != nil:
				k.forgetWrites(op.GetRequestTxn())
			}
		}
	}
}

// Compact passes; what was read at revisions that are gone now is forgotten.
func (k *kv) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	defer k.cache.compacted(r.Revision)
	resp, err := k.up.Compact(outgoing(ctx), r)
	if err == nil {
		k.order.saw(resp.Header)
	}
	return resp, err
}

// order is the highest revision that any client was told of. Revisions of another
// cluster, as after a restore, begin anew. A nil order orders nothing.
type order struct {
	mu       sync.Mutex
	cluster  uint64
	revision int64
}

func (o *order) saw(h *pb.ResponseHeader) {
	if o == nil || h == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cluster != h.ClusterId {
		o.cluster, o.revision = h.ClusterId, 0
	}
	o.revision = max(o.revision, h.Revision)
}

func (o *order) behind(h *pb.ResponseHeader) bool {
	if o == nil || h == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cluster == h.ClusterId && h.Revision < o.revision
}
