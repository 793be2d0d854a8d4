package history

import (
	"bytes"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/state/command"
)

// identity is what the headers of one server say besides the revision.
type identity struct{ cluster, member, term uint64 }

// headed is every response with a header of its own.
type headed interface{ GetHeader() *pb.ResponseHeader }

// check holds a header against those before it: ids never change, terms never
// fall.
func (i *identity) check(h *pb.ResponseHeader) error {
	switch {
	case h == nil:
		return fmt.Errorf("no header")
	case h.ClusterId == 0 || h.MemberId == 0 || h.RaftTerm == 0:
		return fmt.Errorf("an incomplete header: %v", h)
	case i.cluster != 0 && (h.ClusterId != i.cluster || h.MemberId != i.member):
		return fmt.Errorf("a header of another member: %v, before %+v", h, *i)
	case h.RaftTerm < i.term:
		return fmt.Errorf("term %d after %d", h.RaftTerm, i.term)
	}
	*i = identity{h.ClusterId, h.MemberId, h.RaftTerm}
	return nil
}

// difference says how an answer is not the expected one. What the expected header
// cannot know is taken from the answer's.
func (i *identity) difference(want, got answer) error {
	if want.code != got.code || want.text != got.text {
		return errDiffers
	}
	if want.code != codes.OK {
		return nil
	}
	if err := i.check(got.message.(headed).GetHeader()); err != nil {
		return err
	}
	whole := proto.Clone(want.message)
	h := whole.(headed).GetHeader()
	h.ClusterId, h.MemberId, h.RaftTerm = i.cluster, i.member, i.term
	if !proto.Equal(whole, got.message) {
		return errDiffers
	}
	return nil
}

var errDiffers = fmt.Errorf("another answer")

// untie makes requests whose answers hold every pair that a sorted range may have
// chosen from, in the order of keys: where a sort is not stable (spec 2.1), which
// of two equals comes first, or is cut off by a limit, is anybody's guess.
func untie(request any) any {
	switch r := request.(type) {
	case *command.RangeRequest:
		if !sorts(r) {
			return r
		}
		q := *r
		if q.Order == command.SortNone && q.Limit > 0 && !filters(r) {
			q.Limit++ // what was cut off in key order, before the sort
		} else {
			q.Limit = 0
		}
		q.Order, q.Target, q.KeysOnly = command.SortNone, command.SortByKey, false
		return &q
	case *command.TxnRequest:
		t := &command.TxnRequest{Compares: r.Compares, Success: slices.Clone(r.Success), Failure: slices.Clone(r.Failure)}
		for _, ops := range [][]command.Op{t.Success, t.Failure} {
			for i := range ops {
				switch op := &ops[i]; {
				case op.Range != nil:
					op.Range = untie(op.Range).(*command.RangeRequest)
				case op.Txn != nil:
					op.Txn = untie(op.Txn).(*command.TxnRequest)
				}
			}
		}
		return t
	}
	return request
}

func sorts(r *command.RangeRequest) bool { return r.Target != command.SortByKey && !r.CountOnly }

func filters(r *command.RangeRequest) bool {
	return r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
}

// settleTies puts the pairs of an answer's sorted ranges where the expected
// answer has its equals, if they are as good: each is one that could be chosen,
// none is there twice, and what was sorted by is the same place by place.
func settleTies(request any, want, all, got proto.Message) {
	switch r := request.(type) {
	case *command.RangeRequest:
		want, all, got := want.(*pb.RangeResponse), all.(*pb.RangeResponse), got.(*pb.RangeResponse)
		if sorts(r) && asGood(r, want.GetKvs(), all.GetKvs(), got.GetKvs()) {
			got.Kvs = want.Kvs
		}
	case *command.TxnRequest:
		want, all, got := want.(*pb.TxnResponse), all.(*pb.TxnResponse), got.(*pb.TxnResponse)
		if want.GetSucceeded() != got.GetSucceeded() || len(want.GetResponses()) != len(got.GetResponses()) {
			return
		}
		ops := r.Failure
		if want.Succeeded {
			ops = r.Success
		}
		for i, op := range ops {
			w, a, g := want.Responses[i], all.Responses[i], got.Responses[i]
			switch {
			case op.Range != nil && g.GetResponseRange() != nil:
				settleTies(op.Range, w.GetResponseRange(), a.GetResponseRange(), g.GetResponseRange())
			case op.Txn != nil && g.GetResponseTxn() != nil:
				settleTies(op.Txn, w.GetResponseTxn(), a.GetResponseTxn(), g.GetResponseTxn())
			}
		}
	}
}

func asGood(r *command.RangeRequest, want, all, got []*mvccpb.KeyValue) bool {
	if len(want) != len(got) {
		return false
	}
	choice, taken := map[string]*mvccpb.KeyValue{}, map[string]bool{}
	for _, kv := range all {
		choice[string(kv.Key)] = kv
	}
	for i := range got {
		key := string(got[i].Key)
		here, there := choice[key], choice[string(want[i].Key)]
		if here == nil || there == nil || taken[key] || !equals(r.Target, here, there) {
			return false
		}
		taken[key] = true
		shown := proto.CloneOf(here)
		if r.KeysOnly {
			shown.Value = nil
		}
		if !proto.Equal(shown, got[i]) {
			return false
		}
	}
	return true
}

func equals(target command.SortTarget, a, b *mvccpb.KeyValue) bool {
	switch target {
	case command.SortByVersion:
		return a.Version == b.Version
	case command.SortByCreate:
		return a.CreateRevision == b.CreateRevision
	case command.SortByMod:
		return a.ModRevision == b.ModRevision
	case command.SortByValue:
		return bytes.Equal(a.Value, b.Value)
	}
	return bytes.Equal(a.Key, b.Key)
}
