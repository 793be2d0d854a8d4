package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	lockpb "github.com/kvorum/kvorum/internal/api/v3/concurrencypb"
)

// What programs coordinate with: watches, leases, locks, elections and
// transactional memory, of the official Go client and of the services.
func TestTheGoClientsCoordination(t *testing.T) {
	stories := []story{
		{"watch", watchStory, watchLines},
		{"mutex", mutexStory, mutexLines},
		{"election", electionStory, electionLines},
		{"stm", stmStory, stmLines},
		{"services", servicesStory, servicesLines},
		{"both kinds in one line", mixedStory, mixedLines},
	}
	if !testing.Short() { // it waits for leases
		stories = append(stories, story{"keepalive", keepAliveStory, keepAliveLines})
	}
	tellAll(t, stories)
}

// Locks that python3-etcd3 keeps by itself.
func TestPythonEtcd3Locks(t *testing.T) {
	python := pythonWithEtcd3(t)
	script := filepath.Join(clientScripts, "lock.py")
	got := runClient(t, nil, python, script, ours(t))
	for _, line := range []string{
		"acquired: True", "is it: (True, False)", "its key: (True, True, 1)", "refreshed: [20]", "released by the other: False", "released: True",
		"released again: False", "counted: b'20'", "it lasted: True", "released by who had it: False", "within: True", "without: False",
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	if client := realEtcd(t); client != "" {
		sameLines(t, "beside etcd 3.4", got, runClient(t, nil, python, script, client))
	}
}

// npmCoordination is what the npm package etcd3 has for it.
func npmCoordination(t *testing.T, env []string) {
	script := filepath.Join(clientScripts, "coordination.js")
	got := runClient(t, env, "node", script, ours(t))
	for _, line := range []string{
		`one: [["put","w/a","1",1,"1",null],["put","w/a","2",3,"2",null]]`, `after more than its time: {"l/kept":"x"}`, `revoked: []`, `it lasted: true`,
		`by the other: true`, `free: "held"`, `told: "first"`, `told: "first again"`, `told: "second"`, `leads: "second"`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	if client := realEtcd(t); client != "" {
		sameLines(t, "beside etcd 3.4", got, runClient(t, env, "node", script, client))
	}
}

// events tells what a watch was sent.
func (s *telling) events(what string, r clientv3.WatchResponse) int {
	for _, e := range r.Events {
		line := fmt.Sprintf("%s: %v %s=%s at %d, created %d, version %d", what, e.Type, e.Kv.Key, e.Kv.Value, s.at(e.Kv.ModRevision), max(0, s.at(e.Kv.CreateRevision)), e.Kv.Version)
		if e.PrevKv != nil {
			line += fmt.Sprintf(", was %s", e.PrevKv.Value)
		}
		if e.IsCreate() {
			line += ", new"
		}
		s.say("%s", line)
	}
	return len(r.Events)
}

// watched takes so many events.
func (s *telling) watched(what string, from clientv3.WatchChan, n int) {
	for n > 0 {
		r := take(s, what, from)
		done(r.Err())
		n -= s.events(what, r)
	}
}

func watchStory(s *telling) {
	ctx, end := context.WithCancel(s.ctx)
	all := s.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	s.say("created: %v", take(s, "creation", all).Created)
	ones := s.Watch(ctx, "w/a", clientv3.WithFilterDelete())
	gone := s.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithFilterPut())
	future := s.Watch(ctx, "w/a", clientv3.WithRev(s.base+6), clientv3.WithCreatedNotify())
	take(s, "creation", future)
	got(s.Get(s.ctx, "w/"))
	got(s.Put(s.ctx, "w/a", "1"))
	got(s.Put(s.ctx, "x", "outside"))
	got(s.Put(s.ctx, "w/a", "2"))
	got(s.Txn(s.ctx).Then(clientv3.OpPut("w/b", "1"), clientv3.OpPut("w/c", "1"), clientv3.OpDelete("w/a")).Commit())
	got(s.Delete(s.ctx, "w/none"))
	got(s.Put(s.ctx, "w/a", "3"))
	got(s.Delete(s.ctx, "w/", clientv3.WithPrefix()))
	s.watched("all", all, 9)
	s.watched("deletions", gone, 4)
	s.watched("future", future, 1)
	s.watched("one", ones, 3)
	past := s.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(s.base+3))
	s.watched("past", past, 8)
	progress := metadata.AppendToOutgoingContext(ctx, "stream", "of its own")
	idle := s.Watch(progress, "idle", clientv3.WithCreatedNotify())
	take(s, "creation", idle)
	s.until("a bookmark", func() bool {
		done(s.RequestProgress(progress))
		select {
		case r := <-idle:
			s.say("bookmark: %v at %d", r.IsProgressNotify(), s.at(r.Header.Revision))
			return true
		case <-time.After(200 * time.Millisecond):
			return false
		}
	})
	got(s.Compact(s.ctx, s.base+5))
	r := take(s, "compaction", s.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(s.base+4)))
	s.say("compacted: %v, at %d, cancelled %v", errors.Is(r.Err(), rpctypes.ErrCompacted), s.at(r.CompactRevision), r.Canceled)
	end()
	for _, w := range []clientv3.WatchChan{all, ones, gone, future, past, idle} {
		ended(s, "a watch", w)
	}
	s.say("all have ended")
}

const watchLines = `
created: true
all: PUT w/a=1 at 1, created 1, version 1, new
all: PUT w/a=2 at 3, created 1, version 2, was 1
all: PUT w/b=1 at 4, created 4, version 1, new
all: PUT w/c=1 at 4, created 4, version 1, new
all: DELETE w/a= at 4, created 0, version 0, was 2
all: PUT w/a=3 at 5, created 5, version 1, new
all: DELETE w/a= at 6, created 0, version 0, was 3
all: DELETE w/b= at 6, created 0, version 0, was 1
all: DELETE w/c= at 6, created 0, version 0, was 1
deletions: DELETE w/a= at 4, created 0, version 0
deletions: DELETE w/a= at 6, created 0, version 0
deletions: DELETE w/b= at 6, created 0, version 0
deletions: DELETE w/c= at 6, created 0, version 0
future: DELETE w/a= at 6, created 0, version 0
one: PUT w/a=1 at 1, created 1, version 1, new
one: PUT w/a=2 at 3, created 1, version 2
one: PUT w/a=3 at 5, created 5, version 1, new
past: PUT w/a=2 at 3, created 1, version 2
past: PUT w/b=1 at 4, created 4, version 1, new
past: PUT w/c=1 at 4, created 4, version 1, new
past: DELETE w/a= at 4, created 0, version 0
past: PUT w/a=3 at 5, created 5, version 1, new
past: DELETE w/a= at 6, created 0, version 0
past: DELETE w/b= at 6, created 0, version 0
past: DELETE w/c= at 6, created 0, version 0
bookmark: true at 6
compacted: true, at 5, cancelled true
all have ended
`

func keepAliveStory(s *telling) {
	lease := got(s.Grant(s.ctx, 2))
	s.say("granted: %d", lease.TTL)
	got(s.Put(s.ctx, "k/kept", "x", clientv3.WithLease(lease.ID)))
	other := got(s.Grant(s.ctx, 6))
	got(s.Put(s.ctx, "k/other", "x", clientv3.WithLease(other.ID)))
	ctx, end := context.WithCancel(s.ctx)
	renewals := got(s.KeepAlive(ctx, lease.ID))
	others := got(s.KeepAlive(s.ctx, other.ID))
	last := time.Now()
	for range 5 { // longer than the lease lasts
		last = time.Now() // before the renewal was asked for that comes next
		if r := take(s, "a renewal", renewals); r.TTL != 2 || r.ID != lease.ID {
			s.say("renewed: %v", r)
		}
	}
	s.say("after more than its time: %v", s.keys("k/"))
	s.say("once: %d", got(s.KeepAliveOnce(s.ctx, other.ID)).TTL)
	left := got(s.TimeToLive(s.ctx, other.ID, clientv3.WithAttachedKeys()))
	s.say("left: %v, granted %d, keys %s", left.TTL > 2 && left.TTL <= 6, left.GrantedTTL, left.Keys)
	end()
	ended(s, "renewals", renewals)
	s.until("the end of what nobody renews", func() bool { return len(s.keys("k/kept")) == 0 })
	lasted := time.Since(last)
	s.say("it lasted: %v", lasted > 1900*time.Millisecond && lasted < 6*time.Second)
	got(s.Revoke(s.ctx, other.ID))
	ended(s, "renewals of what was revoked", others)
	s.say("revoked: %v", s.keys("k/"))
	_, err := s.KeepAliveOnce(s.ctx, other.ID)
	s.say("renewed after its end: %v", err)
	ended(s, "renewals of what is not there", got(s.KeepAlive(s.ctx, 404)))
	_, err = s.Revoke(s.ctx, 404)
	s.say("revoked again: %v", err)
}

const keepAliveLines = `
granted: 2
after more than its time: [k/kept k/other]
once: 6
left: true, granted 6, keys [k/other]
it lasted: true
revoked: []
renewed after its end: etcdserver: requested lease not found
revoked again: etcdserver: requested lease not found
`

// session begins one whose lease lasts for half a minute.
func (s *telling) session() *concurrency.Session {
	return got(concurrency.NewSession(s.Client, concurrency.WithTTL(30), concurrency.WithContext(s.ctx)))
}

// later runs a call that waits.
func later(call func() error) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	return ended
}

// owns asks within a txn, as somebody would who protects a write.
func (s *telling) owns(m *concurrency.Mutex) bool {
	return got(s.Txn(s.ctx).If(m.IsOwner()).Then(clientv3.OpPut("protected", m.Key())).Commit()).Succeeded
}

func mutexStory(s *telling) {
	one, two, three := s.session(), s.session(), s.session()
	a, b, c := concurrency.NewMutex(one, "m"), concurrency.NewMutex(two, "m"), concurrency.NewMutex(three, "m")
	done(a.Lock(s.ctx))
	s.say("its key: %v, at %d", a.Key() == fmt.Sprintf("m/%x", one.Lease()), s.at(a.Header().Revision))
	s.say("it owns it: %v", s.owns(a))
	done(concurrency.NewMutex(one, "m").Lock(s.ctx))
	s.say("tried by another: %v, keys %d", b.TryLock(s.ctx), len(s.keys("m/")))
	second := later(func() error { return b.Lock(s.ctx) })
	s.has("m/", 2)
	third := later(func() error { return c.Lock(s.ctx) })
	s.has("m/", 3)
	short, end := context.WithTimeout(s.ctx, 100*time.Millisecond)
	fourth := s.session()
	err := concurrency.NewMutex(fourth, "m").Lock(short)
	end()
	s.say("without time: %v, keys %d", errors.Is(err, context.DeadlineExceeded), len(s.keys("m/")))
	fence := a.Header().Revision
	done(a.Unlock(s.ctx))
	done(take(s, "the second", second))
	s.say("fenced: %v, the first owns it: %v, the second: %v, the third: %v", b.Header().Revision > fence, s.owns(a), s.owns(b), len(third) == 1)
	s.say("unlocked twice: %v", a.Unlock(s.ctx))
	fence = b.Header().Revision
	done(two.Close()) // its lease goes, and the lock with it
	done(take(s, "the third", third))
	s.say("fenced: %v, the second owns it: %v, the third: %v", c.Header().Revision > fence, s.owns(b), s.owns(c))
	lost := later(func() error { return concurrency.NewMutex(fourth, "m").Lock(s.ctx) })
	s.has("m/", 2)
	got(s.Revoke(s.ctx, fourth.Lease()))
	done(c.Unlock(s.ctx))
	s.say("without its lease: %v", take(s, "the fourth", lost))
	s.say("tried when it is free: %v", a.TryLock(s.ctx))
	done(a.Unlock(s.ctx))

	// Sixteen that count; a counter that is read and written without a txn.
	got(s.Put(s.ctx, "count", ""))
	var all sync.WaitGroup
	for range 4 {
		session := s.session()
		locker := concurrency.NewLocker(session, "n")
		all.Go(func() {
			for range 4 {
				locker.Lock()
				r, err := s.Get(s.ctx, "count")
				if err == nil {
					_, err = s.Put(s.ctx, "count", string(r.Kvs[0].Value)+"x")
				}
				locker.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	s.say("counted: %s", got(s.Get(s.ctx, "count")).Kvs[0].Value)
}

const mutexLines = `
its key: true, at 1
it owns it: true
tried by another: mutex: Locked by another session, keys 1
without time: true, keys 3
fenced: true, the first owns it: false, the second: true, the third: false
unlocked twice: mutex: lock has already been released
fenced: true, the second owns it: false, the third: true
without its lease: mutex: session is expired
tried when it is free: <nil>
counted: xxxxxxxxxxxxxxxx
`

func electionStory(s *telling) {
	one, two := s.session(), s.session()
	a, b := concurrency.NewElection(one, "e"), concurrency.NewElection(two, "e")
	_, err := a.Leader(s.ctx)
	s.say("before it: %v", err)
	ctx, end := context.WithCancel(s.ctx)
	leaders := concurrency.NewElection(two, "e").Observe(ctx)
	told := func() {
		r := take(s, "who leads", leaders)
		s.say("told: %s, key %v", r.Kvs[0].Value, string(r.Kvs[0].Key) == fmt.Sprintf("e/%x", r.Kvs[0].Lease))
	}
	done(a.Campaign(s.ctx, "first"))
	s.say("elected: %v, at %d", a.Key() == fmt.Sprintf("e/%x", one.Lease()), s.at(a.Rev()))
	told()
	second := later(func() error { return b.Campaign(s.ctx, "second") })
	s.has("e/", 2)
	done(a.Proclaim(s.ctx, "first again"))
	told()
	is := got(b.Leader(s.ctx))
	s.say("leads: %s", is.Kvs[0].Value)
	resumed := concurrency.ResumeElection(one, "e", a.Key(), a.Rev())
	done(resumed.Proclaim(s.ctx, "resumed"))
	told()
	done(resumed.Resign(s.ctx))
	done(take(s, "the second", second))
	told()
	s.say("fenced: %v", b.Rev() > a.Rev())
	s.say("the first proclaims: %v", a.Proclaim(s.ctx, "late"))
	short, stop := context.WithTimeout(s.ctx, 100*time.Millisecond)
	err = concurrency.NewElection(s.session(), "e").Campaign(short, "third")
	stop()
	s.say("without time: %v, keys %d", errors.Is(err, context.DeadlineExceeded), len(s.keys("e/")))
	third := concurrency.NewElection(s.session(), "e")
	waits := later(func() error { return third.Campaign(s.ctx, "third") })
	s.has("e/", 2)
	done(two.Close())
	done(take(s, "the third", waits))
	told()
	end()
	ended(s, "observation", leaders)
	s.say("keys %d", len(s.keys("e/")))
}

const electionLines = `
before it: election: no leader
elected: true, at 1
told: first, key true
told: first again, key true
leads: first again
told: resumed, key true
told: second, key true
fenced: true
the first proclaims: election: not leader
without time: true, keys 1
told: third, key true
keys 1
`

func stmStory(s *telling) {
	const accounts, clerks, transfers = 5, 4, 15
	account := func(n int) string { return fmt.Sprintf("account/%d", n) }
	for n := range accounts {
		got(s.Put(s.ctx, account(n), "100"))
	}
	number := func(text string) (n int) {
		fmt.Sscan(text, &n)
		return n
	}
	for _, level := range []struct {
		name string
		how  concurrency.Isolation
	}{{"serializable snapshot", concurrency.SerializableSnapshot}, {"serializable", concurrency.Serializable}, {"repeatable reads", concurrency.RepeatableReads}} {
		failed := make(chan error, clerks)
		for clerk := range clerks {
			go func() {
				for n := range transfers {
					from, to := account((clerk+n)%accounts), account((clerk*n+1)%accounts)
					_, err := concurrency.NewSTM(s.Client, func(stm concurrency.STM) error {
						if from == to {
							return nil
						}
						a, b := number(stm.Get(from)), number(stm.Get(to))
						stm.Put(from, fmt.Sprint(a-n))
						stm.Put(to, fmt.Sprint(b+n))
						return nil
					}, concurrency.WithIsolation(level.how), concurrency.WithPrefetch(from, to), concurrency.WithAbortContext(s.ctx))
					if err != nil {
						failed <- err
						return
					}
				}
				failed <- nil
			}()
		}
		for range clerks {
			done(take(s, "a clerk", failed))
		}
		sum := 0
		for _, kv := range got(s.Get(s.ctx, "account/", clientv3.WithPrefix())).Kvs {
			sum += number(string(kv.Value))
		}
		s.say("%s: %d", level.name, sum)
	}
	stop := errors.New("no")
	_, err := concurrency.NewSTM(s.Client, func(stm concurrency.STM) error {
		stm.Put("account/0", "0")
		return stop
	})
	s.say("given up: %v", err == stop)
	r := got(concurrency.NewSTM(s.Client, func(stm concurrency.STM) error {
		stm.Del("account/1")
		stm.Put("account/new", stm.Get("account/none")+stm.Get("account/2", "account/none")+"!")
		if stm.Rev("account/none") != 0 || stm.Rev("account/2") <= s.base {
			return stop
		}
		return nil
	}))
	s.say("done: %v, keys %v", r.Succeeded, sorted(s.keys("account/")))
}

const stmLines = `
serializable snapshot: 500
serializable: 500
repeatable reads: 500
given up: true
done: true, keys [account/0 account/2 account/3 account/4 account/new]
`

// called calls a method that the official client has no function for.
func called[R any](s *telling, method string, in any) (*R, error) {
	out := new(R)
	if err := s.ActiveConnection().Invoke(s.ctx, method, in, out); err != nil {
		return nil, err
	}
	return out, nil
}

func (s *telling) lock(name string, lease clientv3.LeaseID) (*lockpb.LockResponse, error) {
	return called[lockpb.LockResponse](s, lockpb.LockMethod, &lockpb.LockRequest{Name: []byte(name), Lease: int64(lease)})
}

func (s *telling) unlock(key string) (*lockpb.UnlockResponse, error) {
	return called[lockpb.UnlockResponse](s, lockpb.UnlockMethod, &lockpb.UnlockRequest{Key: []byte(key)})
}

func (s *telling) campaign(name string, lease clientv3.LeaseID, value string) (*lockpb.CampaignResponse, error) {
	return called[lockpb.CampaignResponse](s, lockpb.CampaignMethod, &lockpb.CampaignRequest{Name: []byte(name), Lease: int64(lease), Value: []byte(value)})
}

func (s *telling) proclaim(leader *lockpb.LeaderKey, value string) (*lockpb.ProclaimResponse, error) {
	return called[lockpb.ProclaimResponse](s, lockpb.ProclaimMethod, &lockpb.ProclaimRequest{Leader: leader, Value: []byte(value)})
}

func (s *telling) leader(name string) (*lockpb.LeaderResponse, error) {
	return called[lockpb.LeaderResponse](s, lockpb.LeaderMethod, &lockpb.LeaderRequest{Name: []byte(name)})
}

func (s *telling) resign(leader *lockpb.LeaderKey) (*lockpb.ResignResponse, error) {
	return called[lockpb.ResignResponse](s, lockpb.ResignMethod, &lockpb.ResignRequest{Leader: leader})
}

// observe follows an election; what it is told comes one by one.
func (s *telling) observe(name string) func() string {
	stream := got(s.ActiveConnection().NewStream(s.ctx, &grpc.StreamDesc{ServerStreams: true}, lockpb.ObserveMethod))
	done(stream.SendMsg(&lockpb.LeaderRequest{Name: []byte(name)}))
	done(stream.CloseSend())
	return func() string {
		r := new(lockpb.LeaderResponse)
		done(stream.RecvMsg(r))
		return fmt.Sprintf("%s=%s", r.Kv.Key, r.Kv.Value)
	}
}

func servicesStory(s *telling) {
	for _, lease := range []clientv3.LeaseID{0x1a, -0x1b, 0x1c} {
		got(pb.NewLeaseClient(s.ActiveConnection()).LeaseGrant(s.ctx, &pb.LeaseGrantRequest{ID: int64(lease), TTL: 30}))
	}
	first := got(s.lock("s", 0x1a))
	s.say("locked: %s at %d", first.Key, s.at(first.Header.Revision))
	again := got(s.lock("s", 0x1a))
	s.say("again: %s at %d", again.Key, s.at(again.Header.Revision))
	var next *lockpb.LockResponse
	second := later(func() (err error) {
		next, err = s.lock("s", -0x1b)
		return err
	})
	s.has("s/", 2)
	s.say("unlocked: at %d", s.at(got(s.unlock("s/1a")).Header.Revision))
	done(take(s, "the second", second))
	s.say("second: %s at %d", next.Key, s.at(next.Header.Revision))
	s.say("unlocked again: at %d", s.at(got(s.unlock("s/1a")).Header.Revision))
	_, err := s.lock("t", 404)
	s.refused("a lease that is not there", err)
	_, err = s.unlock("")
	s.refused("no key", err)
	drawn := got(s.lock("u", 0))
	left := got(s.TimeToLive(s.ctx, s.leaseOf(string(drawn.Key))))
	s.say("without a lease: %d", left.GrantedTTL)

	_, err = s.leader("v")
	s.refused("no leader", err)
	won := got(s.campaign("v", 0x1a, "one"))
	l := won.Leader
	s.say("elected: %s %s %d %x at %d", l.Name, l.Key, s.at(l.Rev), l.Lease, s.at(won.Header.Revision))
	told := s.observe("v")
	s.say("told: %s", told())
	got(s.campaign("v", 0x1a, "two"))
	s.say("told: %s", told())
	waits := later(func() error { _, err := s.campaign("v", 0x1c, "next"); return err })
	s.has("v/", 2)
	got(s.proclaim(l, "three"))
	s.say("told: %s", told())
	_, err = s.proclaim(&lockpb.LeaderKey{Key: l.Key, Rev: l.Rev - 1, Lease: 0x1a}, "x")
	s.refused("of an earlier life", err)
	_, err = s.proclaim(nil, "x")
	s.refused("proclaimed by nobody", err)
	_, err = s.resign(nil)
	s.refused("resigned by nobody", err)
	_, err = s.resign(&lockpb.LeaderKey{Key: l.Key, Rev: l.Rev - 1, Lease: 0x1a})
	s.refused("resigned in an earlier life", err)
	is := got(s.leader("v")).Kv
	s.say("leads: %s=%s, version %d, lease %x", is.Key, is.Value, is.Version, is.Lease)
	got(s.resign(l))
	done(take(s, "the next", waits))
	s.say("told: %s", told())
}

const servicesLines = `
locked: s/1a at 1
again: s/1a at 1
unlocked: at 3
second: s/-1b at 3
unlocked again: at 3
a lease that is not there: Unknown: etcdserver: requested lease not found
no key: Unknown: etcdserver: key is not provided
without a lease: 60
no leader: Unknown: election: no leader
elected: v v/1a 5 1a at 5
told: v/1a=one
told: v/1a=two
told: v/1a=three
of an earlier life: Unknown: election: not leader
proclaimed by nobody: Unknown: "leader" field must be provided
resigned by nobody: Unknown: "leader" field must be provided
resigned in an earlier life: done
leads: v/1a=three, version 3, lease 1a
told: v/1c=next
`

// leaseOf is the lease of a key.
func (s *telling) leaseOf(key string) clientv3.LeaseID {
	return clientv3.LeaseID(got(s.Get(s.ctx, key)).Kvs[0].Lease)
}

// Locks of the service and mutexes of the client exclude each other, and so do
// candidates of both kinds.
func mixedStory(s *telling) {
	one, two := s.session(), s.session()
	m := concurrency.NewMutex(one, "x")
	done(m.Lock(s.ctx))
	var locked *lockpb.LockResponse
	service := later(func() (err error) {
		locked, err = s.lock("x", two.Lease())
		return err
	})
	s.has("x/", 2)
	fence := m.Header().Revision
	done(m.Unlock(s.ctx))
	done(take(s, "the service", service))
	s.say("the service after the client: %v, fenced %v", string(locked.Key) == fmt.Sprintf("x/%x", two.Lease()), locked.Header.Revision > fence)
	s.say("tried by the client: %v", m.TryLock(s.ctx))
	client := later(func() error { return m.Lock(s.ctx) })
	s.has("x/", 2)
	got(s.unlock(string(locked.Key)))
	done(take(s, "the client", client))
	s.say("the client after the service: fenced %v, owns it %v", m.Header().Revision > locked.Header.Revision, s.owns(m))

	e := concurrency.NewElection(one, "y")
	leaders := e.Observe(s.ctx)
	won := got(s.campaign("y", two.Lease(), "service"))
	told := s.observe("y")
	s.say("told: %s and %s", take(s, "who leads", leaders).Kvs[0].Value, told()[len(won.Leader.Key)+1:])
	candidate := later(func() error { return e.Campaign(s.ctx, "client") })
	s.has("y/", 2)
	got(s.resign(won.Leader))
	done(take(s, "the client", candidate))
	s.say("told: %s and %s", take(s, "who leads", leaders).Kvs[0].Value, told()[len(e.Key())+1:])
	s.say("leads: %s, fenced %v", got(s.leader("y")).Kv.Value, e.Rev() > won.Leader.Rev)
}

const mixedLines = `
the service after the client: true, fenced true
tried by the client: mutex: Locked by another session
the client after the service: fenced true, owns it true
told: service and service
told: client and client
leads: client, fenced true
`
