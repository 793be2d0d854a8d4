package history

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// Tally counts what histories have met, by name: a test that wants to know that
// its histories are worth their time looks here.
type Tally map[string]int

// met counts one call whose answer was right.
func (t Tally) met(step Step, request any, oracle *model.Store, got answer) {
	if got.code != codes.OK {
		t[fmt.Sprintf("%T: %s", request, got.text)]++
		return
	}
	switch r := request.(type) {
	case *command.RangeRequest:
		t.metRange("range", r, oracle, got.message.(*pb.RangeResponse))
		if step.Stream {
			t["range in pieces"]++
			if len(got.message.(*pb.RangeResponse).Kvs) > 3*firstPiece {
				t["range in three pieces and more"]++
			}
		}
	case *command.PutRequest:
		t["put"]++
		t.add("put that keeps the value", r.IgnoreValue)
		t.add("put with a lease", r.Lease != 0)
		t.add("put that keeps the lease", r.IgnoreLease)
		t.add("put over another", got.message.(*pb.PutResponse).PrevKv != nil)
	case *command.DeleteRangeRequest:
		m := got.message.(*pb.DeleteRangeResponse)
		t.add("deletion", m.Deleted > 0)
		t.add("deletion of many", m.Deleted > 1)
		t.add("deletion of nothing", m.Deleted == 0)
		t.add("deletion with pairs", len(m.PrevKvs) > 0)
	case *command.LeaseGrant:
		t["grant"]++
	case *command.LeaseRevoke:
		t["revocation"]++
	case *command.CompactRequest:
		t["compaction"]++
		t.add("physical compaction", r.Physical)
	case *command.TxnRequest:
		t.add("read-only txn", r.ReadOnly())
		t.metTxn("txn", r, oracle, got.message.(*pb.TxnResponse))
	}
}

func (t Tally) add(what string, is bool) {
	if is {
		t[what]++
	}
}

func (t Tally) metRange(what string, r *command.RangeRequest, oracle *model.Store, m *pb.RangeResponse) {
	t[what]++
	t.add(what+" cut by a limit", m.More)
	t.add(what+" cut by a limit, sorted", m.More && r.Order != command.SortNone)
	t.add(what+" cut by a limit before it is sorted", m.More && r.Order == command.SortNone && r.Target != command.SortByKey)
	t.add(what+" of the past", r.Revision > 0 && r.Revision < oracle.Revision() && len(m.Kvs) > 0)
	t.add(what+" at the compact revision", r.Revision > 1 && r.Revision == oracle.Compacted() && len(m.Kvs) > 0)
	t.add(what+" filtered", filters(r) && len(m.Kvs) > 0 && m.Count > int64(len(m.Kvs)) && !m.More)
	t.add(what+" with keys only", r.KeysOnly && len(m.Kvs) > 0)
	t.add(what+" with the count only", r.CountOnly && m.Count > 1)
	t.add(what+" serializable", r.Serializable)
	if len(m.Kvs) > 2 {
		t[fmt.Sprintf("%s of several by %d in order %d", what, r.Target, r.Order)]++
	}
}

func (t Tally) metTxn(what string, r *command.TxnRequest, oracle *model.Store, m *pb.TxnResponse) {
	t[what]++
	t.add(what+" that succeeds by its compares", m.Succeeded && len(r.Compares) > 0)
	t.add(what+" that fails", !m.Succeeded)
	for _, c := range r.Compares {
		t.add(what+" that compares a range", len(c.End) > 0)
		t[fmt.Sprintf("%s that compares target %d by %d", what, c.Target, c.Result)]++
	}
	ops := r.Failure
	if m.Succeeded {
		ops = r.Success
	}
	t.add(what+" of more than 100 operations", len(ops) > 100)
	put := map[string]bool{}
	for i, op := range ops {
		switch {
		case op.Range != nil:
			t.metRange("range in a txn", op.Range, oracle, m.Responses[i].GetResponseRange())
			for _, kv := range m.Responses[i].GetResponseRange().GetKvs() {
				t.add("range that sees its txn's writes", kv.ModRevision == int64(oracle.Revision()))
			}
		case op.Put != nil:
			put[string(op.Put.Key)] = true
		case op.Delete != nil:
			for _, kv := range m.Responses[i].GetResponseDeleteRange().GetPrevKvs() {
				t.add("deletion of what the same txn has put", put[string(kv.Key)])
			}
		case op.Txn != nil:
			t.metTxn("nested txn", op.Txn, oracle, m.Responses[i].GetResponseTxn())
		}
	}
}
