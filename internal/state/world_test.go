package state_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/lease"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// replica is a Machine on a disk that crashes, with the log that feeds it.
type replica struct {
	t    testing.TB
	disk *simenv.Disk
	db   *memdb.DB
	m    *state.Machine
	now  env.Instant
	log  []raft.Entry
	// opened counts the lives of the replica, which differ in their tables of tips and fences.
	opened uint64
	// feed and told are what the changes of leases say in this life.
	feed *lease.Feed
	told map[id.Lease]lease.Facts
}

func newReplica(t testing.TB, seed uint64) *replica {
	r := &replica{t: t, opened: seed, disk: simenv.NewDisk(seed, simenv.DiskOptions{})}
	r.open()
	t.Cleanup(func() { r.disk.Crash(simenv.ProcessCrash) })
	return r
}

func (r *replica) open() {
	r.t.Helper()
	var err error
	if r.db, err = memdb.Open(memdb.Options{FS: r.disk.Mount(), Dir: "db"}); err != nil {
		r.t.Fatal(err)
	}
	if r.m, err = state.Open(id.DefaultGroup, r.db, "saves"); err != nil {
		r.t.Fatal(err)
	}
	r.feed, r.told = r.m.FollowLeases(), nil
	// None, one that forgets all the time, one that remembers everything.
	r.m.KeepTips([]int{0, 800, 1 << 20}[r.opened%3])
	// The keys of leases that have one: none, all.
	r.m.KeepKeys([]int{0, 1 << 20}[r.opened%2])
	// None, fences around every key or few, and one leaf of them all.
	r.m.KeepCounts([]int{1, 2, 0, 3, 128}[r.opened%5])
	r.opened++
}

// entry makes the next entry of the log from commands.
func (r *replica) entry(term id.Term, cmds ...[]byte) raft.Entry {
	e := raft.Entry{Term: term, Index: id.Index(len(r.log) + 1), Kind: raft.Batch}
	for _, cmd := range cmds {
		e.Data = command.AppendToBatch(e.Data, cmd)
	}
	r.log = append(r.log, e)
	return e
}

// apply applies what is new in the log, by one call.
func (r *replica) apply() []command.Outcome {
	r.t.Helper()
	outcomes, err := r.m.Apply(r.log[r.m.Mark().Index:])
	if err != nil {
		r.t.Fatal(err)
	}
	return outcomes
}

// do applies one request as a command of its own.
func (r *replica) do(body command.Body) (any, error) {
	r.t.Helper()
	r.entry(1, command.Encode(nil, command.Header{}, body))
	outcomes := r.apply()
	return outcomes[0].Response, outcomes[0].Err
}

func (r *replica) put(key, value string) id.Revision {
	r.t.Helper()
	resp, err := r.do(&command.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.(*command.PutResponse).Revision
}

func (r *replica) compact(rev id.Revision) {
	r.t.Helper()
	if _, err := r.do(&command.CompactRequest{Revision: rev}); err != nil {
		r.t.Fatal(err)
	}
}

// turn takes one turn, completes the syncs that it started, and lets the time
// pass until the next one is due. It is false when none is.
func (r *replica) turn() bool {
	worked, wake := r.m.Turn(r.now)
	r.now += 1_000_000
	if wake != env.Never {
		r.now, worked = max(r.now, wake), true
	}
	for r.disk.PendingSyncs() > 0 {
		r.disk.CompleteSync(0)
		worked = true
	}
	return worked
}

// settle takes turns until nothing is left to do.
func (r *replica) settle() {
	r.t.Helper()
	for i := 0; r.turn(); i++ {
		if i > 100_000 {
			r.t.Fatal("turns never end")
		}
	}
}

func (r *replica) crash(c simenv.Crash) {
	r.t.Helper()
	r.disk.Crash(c)
	r.open()
}

func (r *replica) hash() uint64 {
	r.t.Helper()
	h, err := r.m.Hash()
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// get reads a key from the latest view: "" if it is not there.
func (r *replica) get(key string, rev id.Revision) string {
	r.t.Helper()
	resp, err := r.m.View().Range(&command.RangeRequest{Key: []byte(key), Revision: rev})
	if err != nil {
		return err.Error()
	}
	if len(resp.KVs) == 0 {
		return ""
	}
	return string(resp.KVs[0].Value)
}

func validate(request any) error {
	switch q := request.(type) {
	case *command.RangeRequest:
		return q.Validate()
	case *command.PutRequest:
		return q.Validate()
	case *command.DeleteRangeRequest:
		return q.Validate()
	case *command.TxnRequest:
		return command.ValidateTxn(q, model.MaxTxnOps)
	}
	return nil
}

// same fails unless both sides gave the same answer or the same refusal.
func same(t testing.TB, what string, request, got, want any, gotErr, wantErr error) {
	t.Helper()
	if gotErr != nil || wantErr != nil {
		if !errors.Is(gotErr, wantErr) || wantErr == nil {
			t.Fatalf("%s\n%s\ngot  %v, %v\nwant %v, %v", what, model.Text(request), model.Text(got), gotErr, model.Text(want), wantErr)
		}
		return
	}
	if g, w := model.Text(got), model.Text(want); g != w {
		t.Fatalf("%s\n%s\ngot  %s\nwant %s", what, model.Text(request), g, w)
	}
}

// history is a random history: the oracle's answers to everything applied.
type history struct {
	*replica
	oracle  *model.Store
	gen     *model.Generator
	rnd     *rand.Rand
	answers []string // of each command, in order
	alarms  bool     // are raised and ended, too
}

// step applies up to a batch of random requests and reads as much again, and
// compares every answer.
func (h *history) step(most int) {
	t := h.t
	var cmds [][]byte
	var requests []any
	for range 1 + h.rnd.IntN(most) {
		request := h.gen.Request(h.oracle.Revision())
		if len(h.gen.Leases) > 0 && h.rnd.IntN(5) == 0 {
			request = h.gen.LeaseChange(h.oracle)
		}
		if h.alarms && h.rnd.IntN(4) == 0 {
			request = h.gen.AlarmChange()
		}
		if txn, ok := request.(*command.TxnRequest); ok && h.alarms && txn.ReadOnly() {
			continue // it is never a command, and alarms are about commands
		}
		err := model.Validate(request)
		if got := validate(request); !errors.Is(got, err) {
			t.Fatalf("validation of %s: %v, want %v", model.Text(request), got, err)
		}
		if err != nil {
			continue
		}
		if q, ok := request.(*command.RangeRequest); ok {
			// Ranges are not commands: wrap one in a txn that is replicated.
			request = &command.TxnRequest{Success: []command.Op{{Range: q}, {Txn: &command.TxnRequest{}}}}
		}
		requests = append(requests, request)
		cmds = append(cmds, command.Encode(nil, command.Header{Term: 1, Origin: command.Origin{Seq: id.Seq(len(h.log))}}, request.(command.Body)))
	}
	for len(cmds) > 0 {
		n := 1 + h.rnd.IntN(len(cmds))
		h.entry(1, cmds[:n]...)
		cmds = cmds[n:]
	}
	outcomes := h.apply()
	if len(outcomes) != len(requests) {
		t.Fatalf("%d outcomes of %d commands", len(outcomes), len(requests))
	}
	for i, request := range requests {
		want, err := h.oracle.Apply(request)
		same(t, fmt.Sprintf("command %d", len(h.answers)), request, outcomes[i].Response, want, outcomes[i].Err, err)
		h.answers = append(h.answers, model.Text(want)+fmt.Sprint(err))
	}
	h.read()
}

// read compares reads of the view.
func (h *history) read() {
	v := h.m.View()
	if got, want := v.Alarms(), h.oracle.Alarms(); !slices.Equal(got, want) {
		h.t.Fatalf("alarms %v, want %v", got, want)
	}
	if st := v.State(); st.Revision != h.oracle.Revision() || st.Compacted != h.oracle.Compacted() {
		h.t.Fatalf("view at %+v, want revision %d, compacted %d", st, h.oracle.Revision(), h.oracle.Compacted())
	}
	h.readLeases()
	for range 3 {
		q := h.gen.Range(h.oracle.Revision())
		if q.Validate() != nil {
			continue
		}
		got, gotErr := v.Range(q)
		want, err := h.oracle.Range(q)
		same(h.t, "read of a view", q, got, want, gotErr, err)
	}
	txn := h.gen.Txn(h.oracle.Revision())
	if model.Validate(txn) == nil && txn.ReadOnly() {
		got, gotErr := v.Txn(txn)
		want, err := h.oracle.Txn(txn)
		same(h.t, "read-only txn", txn, got, want, gotErr, err)
	}
}

// leases are what the changes of leases have told in this life of the machine.
func (r *replica) leases() map[id.Lease]lease.Facts {
	for {
		changes, anew, ok := r.feed.Next()
		if !ok {
			return r.told
		}
		if anew {
			r.told = map[id.Lease]lease.Facts{}
		}
		for _, c := range changes {
			if c.Gone {
				delete(r.told, c.ID)
			} else {
				r.told[c.ID] = c.Facts
			}
		}
	}
}

// attached lists the keys of a lease.
func (r *replica) attached(name id.Lease) string {
	r.t.Helper()
	list, err := r.m.View().LeaseKeys(name, 1<<20)
	if err != nil {
		r.t.Fatal(err)
	}
	return fmt.Sprintf("%q", list)
}

// readLeases compares the leases and what hangs on them.
func (h *history) readLeases() {
	h.t.Helper()
	told := h.leases()
	if len(told) != len(h.oracle.Leases()) {
		h.t.Fatalf("leases %v, want %v", told, h.oracle.Leases())
	}
	for _, name := range h.gen.Leases {
		if told[name].Birth != h.oracle.Birth(name) {
			h.t.Fatalf("lease %d is number %d, want %d", name, told[name].Birth, h.oracle.Birth(name))
		}
		if got, want := h.attached(name), fmt.Sprintf("%q", h.oracle.Attached(name)); got != want {
			h.t.Fatalf("keys of lease %d are %s, want %s", name, got, want)
		}
	}
}
