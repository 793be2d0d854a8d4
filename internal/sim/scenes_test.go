package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/watch"
)

// The scenes of pains.md, classes D (watch) and F (leases), each named after the bug
// of etcd that it keeps away. A scene is a world in which nothing happens by itself:
// the script says what does, and every checker looks on.

type scene struct {
	*world
	t *testing.T
	// watcher and lessee are played by the script.
	watcher *watcher
	lessee  *lessee
}

func newScene(t *testing.T, replicas int, tilt func(*swarm)) *scene {
	t.Helper()
	skipAlone(t)
	w := newWorld(Options{Seed: 1, Replicas: replicas, Tell: true, Brief: true, Profile: func(s *swarm) {
		*s = swarm{
			storm: never, election: 200 * time.Millisecond, heartbeat: 20 * time.Millisecond, turnCost: 10 * time.Microsecond,
			segmentBytes: 64 << 10, maxSegmentBytes: 64 << 10, cacheBytes: 64 << 10, memtableBytes: 16 << 10,
			disk:    simenv.DiskOptions{WholeBlocks: true, SyncMin: 50 * time.Microsecond, SyncMax: 200 * time.Microsecond},
			network: netSwarm{minDelay: 50 * time.Microsecond, maxDelay: 200 * time.Microsecond},
			faults:  faultSwarm{outage: 10 * time.Millisecond, partFor: never},
			load:    loadSwarm{clients: 1, calls: 1, burst: 1, keys: 4, values: 8, timeout: 500 * time.Millisecond, registers: 1},
			watches: watchSwarm{clients: 1, most: 4, pause: never, tick: 20 * time.Millisecond, ring: 1 << 20},
			leases:  leaseSwarm{lessees: 1, pause: never, ttl: 1, every: 330},
		}
		if tilt != nil {
			tilt(s)
		}
	}})
	s := &scene{world: w, t: t, watcher: w.watchers[0], lessee: w.lessees[0]}
	w.clients[0].wakeAt, s.lessee.wakeAt, s.watcher.whimAt = env.Never, env.Never, env.Never
	for _, r := range w.replicas {
		r.start()
	}
	s.until("a leader serves", func() bool { return s.leading() != nil && s.leading().applied > 0 })
	return s
}

// pass lets time pass, until lets it pass until something is true.
func (s *scene) pass(d time.Duration) {
	s.t.Helper()
	s.runUntil(s.env.Now().Add(d), nil)
	s.ok()
}

func (s *scene) until(what string, done func() bool) {
	s.t.Helper()
	s.runUntil(s.env.Now().Add(20*time.Second), done)
	if s.ok(); !done() {
		s.t.Fatalf("never: %s%s\n%s", what, s.standing(), s.trace.story())
	}
}

func (s *scene) ok() {
	s.t.Helper()
	if s.failure != nil {
		s.t.Fatalf("%v\n%s", s.failure, s.trace.story())
	}
}

// end heals everything and passes the verdict.
func (s *scene) end() {
	s.t.Helper()
	if s.settle(); s.failure == nil {
		s.judge()
	}
	s.ok()
}

// leader waits until a member leads.
func (s *scene) leader() *replica {
	s.t.Helper()
	s.until("a member leads", func() bool { return s.leading() != nil })
	return s.leading()
}

// leading is the member that leads in the latest term and has applied an entry of it,
// nil if there is none.
func (s *scene) leading() *replica {
	now := s.leaders[s.ledger.tenures.term]
	r := now.leader
	if r == nil || r.host == nil || r.group.Leader() != r.member || r.state.Mark().Term != s.ledger.tenures.term {
		return nil
	}
	return r
}

// another waits until another member leads than did.
func (s *scene) another(former *replica) {
	s.t.Helper()
	s.until("another leads", func() bool { return s.leading() != nil && s.leading() != former })
}

// handOver has a leader hand its office over, 0 is to anybody.
func (s *scene) handOver(from *replica, to id.Member) {
	from.guard(func() { _ = from.group.Transfer(to) })
	from.wake()
}

// other is a member that is none of some.
func (s *scene) other(than ...*replica) *replica {
	for _, r := range s.replicas {
		if r != than[0] && r != than[len(than)-1] {
			return r
		}
	}
	return nil
}

// cut parts a member from all others, by +1, or takes that back, by -1.
func (s *scene) cut(r *replica, by int) {
	for _, o := range s.replicas {
		if o != r {
			s.network.part(r, o, false, by)
		}
	}
}

// call makes a call at a member and returns the answer.
func (s *scene) call(r *replica, request any) any {
	s.t.Helper()
	c := s.clients[0]
	var answer any
	c.told = func(_, response any) { answer = response }
	c.begin(r, draft{request: request})
	s.until("the call ends", func() bool { return c.current == nil })
	return answer
}

func (s *scene) put(r *replica, key string, lease id.Lease) id.Revision {
	s.t.Helper()
	answer, ok := s.call(r, &command.PutRequest{Key: []byte(key), Value: []byte("v"), Lease: lease}).(*command.PutResponse)
	if !ok {
		s.t.Fatalf("put %s at %v failed\n%s", key, r, s.trace.story())
	}
	return answer.Revision
}

// on moves the script's watcher to a member.
func (s *scene) on(r *replica) {
	c := s.watcher
	if c.stream != nil && !c.lost() {
		c.guard(c.stream.Close)
	}
	if c.stream != nil {
		c.disconnect("as the script says")
	}
	for c.replica != r { // it picks a member that is up
		if c.stream != nil {
			c.guard(c.stream.Close)
			c.disconnect("as the script says")
		}
		c.connect()
	}
	c.whimAt = env.Never
}

// watch begins a watch on the member that the watcher is on.
func (s *scene) watch(r watch.Request, next id.Revision) *watching {
	t := &watching{name: fmt.Sprintf("watch %d", len(s.watcher.wanted)+1), request: r, next: next}
	s.watcher.wanted = append(s.watcher.wanted, t)
	s.watcher.create(t)
	return t
}

// seen waits until a watch has been told of everything up to a revision.
func (s *scene) seen(t *watching, upto id.Revision) {
	s.t.Helper()
	s.until(fmt.Sprintf("%v has seen %d", t, upto), func() bool { return t.next > upto })
}

// askOf asks a member to renew a lease and returns what came of it, nil for nothing
// within the time of a call.
func (s *scene) askOf(r *replica, lease id.Lease, renew bool) *asking {
	s.t.Helper()
	c := &s.lessee.caller
	c.askAt(r, lease, renew)
	a := c.asking
	s.until("it is answered or given up", func() bool { return c.asking == nil })
	return a
}

func everything() watch.Request { return watch.Request{Key: []byte{0}, End: []byte{0}} }

// Issue 15271: after a partition a watch was shown events of before its start. It
// begins in the future of a member that lags, and sees what comes there once.
func TestEtcd15271NoTimeTravelAfterAPartition(t *testing.T) {
	s := newScene(t, 3, nil)
	s.on(s.leader())
	w := s.watch(everything(), 0)
	s.pass(50 * time.Millisecond)
	s.seen(w, s.put(s.leader(), "r1", 0))
	behind := s.other(s.leader())
	s.cut(behind, +1)
	for range 5 {
		s.put(s.leader(), "r1", 0)
	}
	last := s.put(s.leader(), "r2", 0)
	s.seen(w, last)
	s.on(behind)
	s.pass(100 * time.Millisecond)
	if now := behind.state.View().State().Revision; now >= last {
		t.Fatalf("the member is not behind: %d", now)
	}
	s.cut(behind, -1)
	s.seen(w, s.put(s.leader(), "r1", 0))
	s.end()
}

// Issues 17247 and 17529: events were doubled or lost where a watch went from
// history to the ring, and where it went on after its member was gone.
func TestEtcd17247And17529EveryEventOnce(t *testing.T) {
	s := newScene(t, 3, func(s *swarm) { s.watches.ring = 300 })
	s.on(s.leader())
	w := s.watch(watch.Request{Key: []byte("r"), End: []byte("s"), PrevKV: true}, 0)
	s.pass(50 * time.Millisecond)
	for i := range 4 {
		for n := range 20 {
			s.put(s.leader(), fmt.Sprintf("r%d", n%3), 0)
		}
		last := s.put(s.leader(), "r9", 0)
		if i%2 == 1 {
			s.watcher.replica.crash(simenv.ProcessCrash, "is killed by the script")
		}
		s.on(s.other(s.watcher.replica))
		s.seen(w, last)
	}
	s.end()
}

// Issues 18089 and 19179: compaction took a deletion from a watch that began at it.
func TestEtcd18089CompactionKeepsTheDeletionItIsAt(t *testing.T) {
	s := newScene(t, 1, func(s *swarm) { s.watches.ring = 100 })
	r := s.leader()
	s.put(r, "r1", 0)
	s.put(r, "r2", 0)
	gone := s.call(r, &command.DeleteRangeRequest{Key: []byte("r1")}).(*command.DeleteRangeResponse).Revision
	for range 10 {
		s.put(r, "r2", 0)
	}
	s.call(r, &command.CompactRequest{Revision: gone, Physical: true})
	s.on(r)
	s.pass(10 * time.Millisecond)
	w := s.watch(watch.Request{Key: []byte("r1"), PrevKV: true}, gone)
	s.until("the deletion is seen", func() bool { return w.next > gone })
	if s.trace.marks[markOvertaken] > 0 {
		t.Error("the watch was ended, and begins at the compact revision")
	}
	s.end()
}

// Issue 20221: a bookmark was of a revision that the watch had not been shown yet.
func TestEtcd20221NoBookmarkOfTheFuture(t *testing.T) {
	s := newScene(t, 1, func(s *swarm) { s.watches.tick = time.Millisecond })
	r := s.leader()
	s.on(r)
	r1 := s.watch(watch.Request{Key: []byte("r1"), Progress: true}, 0)
	s.watch(watch.Request{Key: []byte("r2"), Progress: true}, 0)
	s.pass(20 * time.Millisecond)
	for n := range 30 {
		s.put(r, fmt.Sprintf("r%d", 1+n%2), 0)
		s.watcher.guard(s.watcher.stream.Progress)
	}
	last := s.put(r, "r2", 0)
	s.seen(r1, last)
	if s.trace.marks[markBookmark] == 0 {
		t.Error("no bookmark was given")
	}
	s.end()
}

// Issue 17566: a watch that sees nothing was told nothing, and had to begin at a
// revision that was compacted long ago.
func TestEtcd17566QuietWatchesGetBookmarks(t *testing.T) {
	s := newScene(t, 3, nil)
	s.on(s.other(s.leader()))
	quiet := s.watch(watch.Request{Key: []byte("z"), Progress: true}, 0)
	filtered := s.watch(watch.Request{Key: []byte("r1"), Progress: true, NoPuts: true}, 0)
	s.pass(50 * time.Millisecond)
	last := id.Revision(0)
	for range 20 {
		last = s.put(s.leader(), "r1", 0)
	}
	s.seen(quiet, last)
	s.seen(filtered, last)
	s.end()
}

// Issue 22295: a watch that compaction had overtaken hung among those that catch up.
func TestEtcd22295AnOvertakenWatchIsTold(t *testing.T) {
	s := newScene(t, 1, func(s *swarm) { s.watches.ring = 300 })
	r := s.leader()
	s.on(r)
	w := s.watch(everything(), 0)
	s.pass(10 * time.Millisecond)
	s.watcher.pullAt = s.env.Now().Add(time.Second) // it reads nothing
	last := id.Revision(0)
	for range 30 {
		last = s.put(r, "r1", 0)
	}
	s.call(r, &command.CompactRequest{Revision: last - 3})
	s.seen(w, last)
	if s.trace.marks[markOvertaken] != 1 {
		t.Errorf("it was told %d times that it was overtaken", s.trace.marks[markOvertaken])
	}
	s.end()
}

// grant makes a lease of so many seconds.
func (s *scene) grant(r *replica, lease id.Lease, ttl int64) {
	s.t.Helper()
	if _, ok := s.call(r, &command.LeaseGrant{ID: lease, TTL: ttl}).(*command.LeaseGrantResponse); !ok {
		s.t.Fatalf("no lease\n%s", s.trace.story())
	}
}

// lives says whether a lease has not ended.
func (s *scene) lives(lease id.Lease) bool { return s.ledger.tenures.lives[lease].over == 0 }

// Issue 15247: a leader that nobody followed any more still renewed leases, which the
// next one ended.
func TestEtcd15247AnIsolatedLeaderRenewsNothing(t *testing.T) {
	s := newScene(t, 3, nil)
	s.grant(s.leader(), 7, 1)
	former := s.leader()
	s.cut(former, +1)
	if a := s.askOf(former, 7, true); a.result.Response != nil {
		t.Fatalf("it was renewed: %+v", a.result)
	}
	s.another(former)
	if a := s.askOf(s.leader(), 7, true); a.result.Err != nil || !a.ended {
		t.Fatalf("the new leader does not renew: %v", a.result.Err)
	}
	s.cut(former, -1)
	s.until("the lease ends", func() bool { return !s.lives(7) })
	s.end()
}

// Issue 17425: a leader that had been stopped came back and revoked leases that its
// successor had renewed.
func TestEtcd17425AFormerLeaderRevokesNothing(t *testing.T) {
	s := newScene(t, 3, nil)
	s.grant(s.leader(), 7, 1)
	former := s.leader()
	s.put(former, "l1", 7)
	former.machine.Pause(1500 * time.Millisecond)
	s.another(former)
	for end := s.env.Now().Add(3 * time.Second); s.env.Now() < end; s.pass(300 * time.Millisecond) {
		if a := s.askOf(s.leader(), 7, true); a.result.Err != nil || !a.ended {
			t.Fatalf("not renewed: %v", a.result.Err)
		}
	}
	if !s.lives(7) {
		t.Fatal("the lease has ended, and is renewed all the time")
	}
	s.end()
}

// Issue 13508: with every change of the leader leases had all of their time again, and
// where that changed often they never ended.
func TestEtcd13508CheckpointedTimeOutlivesTheLeader(t *testing.T) {
	s := newScene(t, 3, func(s *swarm) { s.leases.checkpoint = 100 * time.Millisecond })
	s.grant(s.leader(), 7, 4)
	began := s.env.Now()
	for s.lives(7) && s.env.Now() < began.Add(20*time.Second) {
		s.pass(2500 * time.Millisecond)
		former := s.leader()
		s.handOver(former, 0)
		s.another(former)
	}
	// A checkpoint says whole seconds, and rounds up.
	if s.lives(7) || s.ledger.tenures.lives[7].over > began.Add(6*time.Second) {
		t.Fatalf("the lease of 4 s lives %v after it was granted", s.env.Now().Sub(began))
	}
	s.end()
}

// What a leader has checkpointed counts though its successor applies it only after its
// own election: a lone member that is killed leads before it has read its log again
// (seed 266).
func TestCheckpointsThatAreAppliedAfterTheElectionCount(t *testing.T) {
	s := newScene(t, 1, func(s *swarm) { s.leases.checkpoint, s.memtableBytes = 1500*time.Millisecond, 1<<20 })
	s.grant(s.leader(), 7, 4)
	notes := func() []note { return s.ledger.tenures.lives[7].notes }
	s.until("it is checkpointed twice", func() bool { return len(notes()) == 2 })
	if notes()[0].remaining != 3 || notes()[1].remaining != 2 {
		t.Fatalf("checkpoints %v", notes())
	}
	s.replicas[0].crash(simenv.ProcessCrash, "is killed by the script")
	s.leader()
	began := s.env.Now()
	s.until("the lease ends", func() bool { return !s.lives(7) })
	if took := s.env.Now().Sub(began); took > 2500*time.Millisecond {
		t.Errorf("with 2 s left it lives %v after the election", took)
	}
	s.end()
}

// Issue 20615: a renewal succeeded after the lease had been revoked.
func TestEtcd20615NoRenewalAfterARevocation(t *testing.T) {
	s := newScene(t, 3, nil)
	s.grant(s.leader(), 7, 1)
	behind := s.other(s.leader())
	s.call(s.leader(), &command.LeaseRevoke{ID: 7})
	for _, r := range []*replica{behind, s.leader()} {
		a := s.askOf(r, 7, true)
		if _, renewed := a.result.Response.(*server.LeaseRenewed); renewed || a.result.Err == nil {
			t.Errorf("%v renews it: %+v", r, a.result)
		}
	}
	s.end()
}

// Issue 13205: leases that a member had learnt of by a snapshot never ended when it
// led.
func TestEtcd13205LeasesOfASnapshotEnd(t *testing.T) {
	s := newScene(t, 3, func(s *swarm) { s.flushBytes, s.retainBytes, s.memtableBytes = 1, 1, 256 })
	behind := s.other(s.leader())
	s.cut(behind, +1)
	for lease := range id.Lease(5) {
		s.grant(s.leader(), lease+1, 3)
		s.put(s.leader(), fmt.Sprintf("l%d", lease), lease+1)
	}
	for range 20 {
		s.put(s.leader(), "r1", 0)
	}
	s.cut(behind, -1)
	s.until("a snapshot is loaded", func() bool { return s.trace.marks[markSnapshot] > 0 && behind.applied == s.ledger.last() })
	for s.leader() != behind {
		s.handOver(s.leader(), behind.member)
		s.pass(100 * time.Millisecond)
	}
	s.until("all leases end", func() bool { return s.ledger.tenures.living() == nil })
	s.end()
}
