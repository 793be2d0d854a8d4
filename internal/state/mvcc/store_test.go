package mvcc_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
)

const group = id.DefaultGroup

// store drives a Store as the applier does, each command in a batch of its own
// unless a batch is held open.
type store struct {
	t     testing.TB
	disk  *simenv.Disk
	db    engine.DB
	s     *mvcc.Store
	batch engine.Batch
	view  atomic.Pointer[mvcc.View]
	// compacted is what is published to readers.
	compacted atomic.Int64
	held      bool
	now       env.Instant
}

func newStore(t testing.TB) *store {
	k := &store{t: t, disk: simenv.NewDisk(1, simenv.DiskOptions{})}
	k.open()
	t.Cleanup(func() { k.disk.Crash(simenv.ProcessCrash) })
	return k
}

func (k *store) open() {
	k.t.Helper()
	db, err := memdb.Open(memdb.Options{FS: k.disk.Mount(), Dir: "db"})
	if err != nil {
		k.t.Fatal(err)
	}
	k.use(db)
}

func (k *store) use(db engine.DB) {
	k.t.Helper()
	s, err := mvcc.Open(group, db)
	if err != nil {
		k.t.Fatal(err)
	}
	k.db, k.s, k.batch = db, s, db.NewBatch()
	k.publish()
}

func (k *store) publish() {
	k.compacted.Store(int64(k.s.State().Compacted))
	v := k.s.View(0, func() mvcc.Horizon { return mvcc.Horizon{Compacted: id.Revision(k.compacted.Load())} })
	k.view.Store(&v)
}

// begin holds one batch open for all commands until commit.
func (k *store) begin() {
	k.s.Begin(k.batch)
	k.held = true
}

func (k *store) commit() {
	k.t.Helper()
	k.held = false
	if err := k.s.Finish(); err != nil {
		k.t.Fatal(err)
	}
	if err := k.db.Commit(k.batch); err != nil {
		k.t.Fatal(err)
	}
	if err := k.s.Committed(); err != nil {
		k.t.Fatal(err)
	}
	k.publish()
}

// do applies a command, or reads a range from the latest view.
func (k *store) do(request any) (any, error) {
	k.t.Helper()
	if q, ok := request.(*command.RangeRequest); ok {
		return untyped(k.view.Load().Range(q))
	}
	if !k.held {
		k.begin()
		defer k.commit()
	}
	return k.command(request)
}

func (k *store) command(request any) (any, error) {
	switch q := request.(type) {
	case *command.PutRequest:
		return untyped(k.s.Put(q))
	case *command.DeleteRangeRequest:
		return untyped(k.s.DeleteRange(q))
	case *command.TxnRequest:
		return untyped(k.s.Txn(q))
	case *command.CompactRequest:
		return untyped(k.s.Compact(q))
	}
	panic(fmt.Sprintf("no request: %T", request))
}

func untyped[R any](r *R, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (k *store) must(request any) any {
	k.t.Helper()
	resp, err := k.do(request)
	if err != nil {
		k.t.Fatalf("%+v: %v", request, err)
	}
	return resp
}

// remove does one slice of removal; it is false when nothing is left.
func (k *store) remove() bool {
	k.t.Helper()
	if !k.s.Freeing() {
		return false
	}
	if err := k.s.Remove(k.batch, false); err != nil {
		k.t.Fatal(err)
	}
	if err := k.db.Commit(k.batch); err != nil {
		k.t.Fatal(err)
	}
	k.publish()
	return true
}

// flush makes everything committed durable.
func (k *store) flush() {
	k.t.Helper()
	if err := k.db.StartFlush(); err != nil {
		k.t.Fatal(err)
	}
	for {
		worked, _ := k.db.Turn(k.now)
		k.now += 1_000_000
		for k.disk.PendingSyncs() > 0 {
			k.disk.CompleteSync(0)
			worked = true
		}
		if !worked {
			return
		}
	}
}

func (k *store) crash(c simenv.Crash) {
	k.t.Helper()
	k.disk.Crash(c)
	k.open()
}

// rows lists the keys of all rows of a kind, in order.
func (k *store) rows(kind keys.Kind) (list []string) {
	k.t.Helper()
	it, err := k.db.Iter(keys.AppendGroupStart(nil, group), keys.AppendGroupEnd(nil, group))
	if err != nil {
		k.t.Fatal(err)
	}
	defer it.Close()
	for it.Next() {
		if keys.KindOf(it.Key()) == kind {
			list = append(list, keys.Text(it.Key()).String())
		}
	}
	if err := it.Err(); err != nil {
		k.t.Fatal(err)
	}
	return list
}

// Short forms of requests.

func b(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

func put(key, value string, more ...func(*command.PutRequest)) *command.PutRequest {
	r := &command.PutRequest{Key: b(key), Value: b(value)}
	for _, f := range more {
		f(r)
	}
	return r
}

func prev(r *command.PutRequest)        { r.PrevKV = true }
func ignoreValue(r *command.PutRequest) { r.IgnoreValue = true }
func ignoreLease(r *command.PutRequest) { r.IgnoreLease = true }
func lease(n id.Lease) func(*command.PutRequest) {
	return func(r *command.PutRequest) { r.Lease = n }
}

func del(key, end string) *command.DeleteRangeRequest {
	return &command.DeleteRangeRequest{Key: b(key), End: b(end)}
}

func delPrev(key, end string) *command.DeleteRangeRequest {
	return &command.DeleteRangeRequest{Key: b(key), End: b(end), PrevKV: true}
}

func get(key, end string, more ...func(*command.RangeRequest)) *command.RangeRequest {
	r := &command.RangeRequest{Key: b(key), End: b(end)}
	for _, f := range more {
		f(r)
	}
	return r
}

func at(rev id.Revision) func(*command.RangeRequest) {
	return func(r *command.RangeRequest) { r.Revision = rev }
}

func limit(n int64) func(*command.RangeRequest) { return func(r *command.RangeRequest) { r.Limit = n } }
func keysOnly(r *command.RangeRequest)          { r.KeysOnly = true }
func countOnly(r *command.RangeRequest)         { r.CountOnly = true }
func sorted(o command.SortOrder, t command.SortTarget) func(*command.RangeRequest) {
	return func(r *command.RangeRequest) { r.Order, r.Target = o, t }
}

func compact(rev id.Revision) *command.CompactRequest { return &command.CompactRequest{Revision: rev} }

// op wraps a request as an operation of a txn.
func op(request any) command.Op {
	switch q := request.(type) {
	case *command.RangeRequest:
		return command.Op{Range: q}
	case *command.PutRequest:
		return command.Op{Put: q}
	case *command.DeleteRangeRequest:
		return command.Op{Delete: q}
	case *command.TxnRequest:
		return command.Op{Txn: q}
	}
	panic(fmt.Sprintf("no operation: %T", request))
}

func list(requests ...any) (ops []command.Op) {
	for _, q := range requests {
		ops = append(ops, op(q))
	}
	return ops
}

func txn(requests ...any) *command.TxnRequest { return &command.TxnRequest{Success: list(requests...)} }

func when(compares ...command.Compare) *command.TxnRequest {
	return &command.TxnRequest{Compares: compares, Success: list(get("yes", "")), Failure: list(get("no", ""), get("no", ""))}
}

func cmpNumber(target command.CompareTarget, key, end string, result command.CompareResult, n int64) command.Compare {
	return command.Compare{Target: target, Key: b(key), End: b(end), Result: result, Number: n}
}

func cmpValue(key, end string, result command.CompareResult, value string) command.Compare {
	return command.Compare{Target: command.CompareValue, Key: b(key), End: b(end), Result: result, Value: b(value)}
}
