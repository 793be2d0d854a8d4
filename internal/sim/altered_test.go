package sim

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
)

// alter changes a value in the store of a member that is down, as no disk would: every
// checksum is right afterwards.
func (s *scene) alter(r *replica, from, to string) {
	s.t.Helper()
	db, err := memdb.Open(memdb.Options{FS: r.machine.Disk().Mount(), Dir: storeDir, FlushBytes: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	low, high := keys.AppendGroupStart(nil, id.DefaultGroup), keys.AppendGroupEnd(nil, id.DefaultGroup)
	rows, err := db.Iter(low, high)
	if err != nil {
		s.t.Fatal(err)
	}
	batch, found := db.NewBatch(), 0
	for ok := rows.SeekGE(low); ok; ok = rows.Next() {
		if value, err := rows.Value(); err == nil && bytes.Contains(value, []byte(from)) {
			batch.Set(bytes.Clone(rows.Key()), bytes.Replace(value, []byte(from), []byte(to), 1))
			found++
		}
	}
	if err := errors.Join(rows.Err(), rows.Close(), db.Commit(batch), db.Close()); err != nil || found == 0 {
		s.t.Fatalf("%d rows of %q, %v", found, from, err)
	}
	r.altered = true
}

// heard is a Completions that keeps the result.
type heard struct {
	host.Result
	over bool
}

func (h *heard) Push(r host.Result) { h.Result, h.over = r, true }

// compare has a member compare the data of all, and returns whom it accuses.
func (s *scene) compare(r *replica) (accused []id.Member) {
	s.t.Helper()
	goOn := func() error { return nil }
	all, err := r.services.Scrub(r.services.Revision(), server.Comparing{
		GoOn: goOn,
		Ask: func(m id.Member, question []byte) ([]byte, error) {
			return s.replicaOf(m).services.AnswerSum(question, func() error { return host.ErrTimeout }, goOn)
		},
		Silent: func(m id.Member, err error) { s.t.Errorf("member %v gives no sum: %v", m, err) },
		Found:  func(list []id.Member) { accused = list },
		Await:  func(func(host.Call)) error { return nil }, // the scene reports it later
	})
	if err != nil || !all {
		s.t.Fatalf("not all are compared: %v", err)
	}
	return accused
}

// A member whose data is not that of the others is found by whoever leads, itself too;
// from then on nobody changes a key, at no member, and what they read stays as it is. The
// others are accused of nothing, before and after. etcd's issues 13766 and 14690 went
// unnoticed for months.
func TestEtcd13766AnAlteredStoreIsFoundAndStopsEveryWriter(t *testing.T) {
	for n := range 3 {
		s := newScene(t, 3, func(s *swarm) {
			s.cluster, s.flushBytes, s.memtableBytes = true, 1, 256
			s.space = spaceSwarm{quota: 1 << 30, spenders: 1, pause: never, keep: never}
		})
		s.keeper.still, s.spenders[0].wakeAt = true, env.Never
		for i := range 24 {
			s.put(s.leader(), fmt.Sprintf("r%d", i%5), 0)
		}
		s.write(s.leader(), &command.PutRequest{Key: []byte("over"), Value: []byte("honest value")})
		caughtUp := func() bool {
			return !slices.ContainsFunc(s.replicas, func(r *replica) bool {
				return r.host == nil || !r.published || r.applied != s.ledger.last()
			})
		}
		for i := range 8 { // the row goes to the disk with those that come after it
			s.put(s.leader(), fmt.Sprintf("r%d", i%5), 0)
		}
		s.until("all have applied everything", caughtUp)
		if accused := s.compare(s.leader()); len(accused) > 0 {
			t.Fatalf("nobody was altered, and %v are accused", accused)
		}
		liar := s.replicas[n]
		liar.crash(simenv.ProcessCrash, "is killed, and its store is altered")
		s.alter(liar, "honest value", "crooks value")
		s.put(s.leader(), "r1", 0)
		s.until("all are back", caughtUp)
		judge := s.leader()
		accused := s.compare(judge)
		if !slices.Equal(accused, []id.Member{liar.member}) {
			t.Fatalf("%v was altered, and %v accuses %v", liar, judge, accused)
		}
		report := &heard{}
		judge.services.ReportCorrupt(host.Call{To: report, Deadline: judge.process.Clock.Now().Add(time.Second)}, accused[0])
		judge.wake()
		s.until("the alarm is told", func() bool { return report.over })
		for _, r := range s.replicas {
			for _, body := range []command.Body{&command.PutRequest{Key: []byte("s1")}, &command.DeleteRangeRequest{Key: []byte("r1")}, &command.CompactRequest{Revision: 2}} {
				if err := s.spend(r, body); !errors.Is(err, command.ErrCorrupt) {
					t.Errorf("%v: %T: %v, want a refusal since members do not agree", r, body, err)
				}
			}
		}
		if again := s.compare(s.leader()); len(again) > 0 {
			t.Errorf("what was said is said again: %v", again)
		}
		if err := s.spend(judge, &command.AlarmDisarm{Alarm: command.Alarm{Member: liar.member, Type: command.AlarmCorrupt}}); err != nil {
			t.Error(err)
		}
		s.write(s.leader(), &command.PutRequest{Key: []byte("r1")})
	}
}

// write makes a client's call that must pass.
func (s *scene) write(r *replica, body command.Body) {
	s.t.Helper()
	if s.call(r, body) == nil {
		s.t.Fatalf("%T at %v failed\n%s", body, r, s.trace.story())
	}
}

// spend makes a call through the services of a member and returns what it came to.
func (s *scene) spend(r *replica, body command.Body) (err error) {
	s.t.Helper()
	c := s.spenders[0]
	c.begins(r, func(t *talk) { _, err = c.runs(t, body) })
	s.until("the call ends", func() bool { return c.current == nil })
	return err
}
