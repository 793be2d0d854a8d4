package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kvorum/kvorum/internal/testkit/cluster"
)

var resumeFor = flag.Duration("resume.for", 3*time.Second, "how long members are killed under 200 watchers")

const (
	resumeGroups, resumeKeys   = 10, 40
	resumeWriters, resumePace  = 4, 10 * time.Millisecond
	resumeWatchers, resumeEach = 200, 10 // so many, of each client
)

// resumeKey is one of the keys, in one of the groups.
func resumeKey(n int) string { return fmt.Sprintf("r/%02d/%02d", n%resumeGroups, n) }

// change is one event that a writer was told of, or that a watcher saw.
type change struct {
	key, value string
	revision   int64
	deleted    bool
}

// resumeWriter puts, deletes and runs txns on keys that nobody else writes.
type resumeWriter struct {
	number  int
	client  *clientv3.Client
	told    []change       // acknowledged, in order
	unknown map[string]int // values, and deletions as their key, that may be there
	acks    *atomic.Int64
}

func (w *resumeWriter) run(ctx context.Context) {
	pace := time.NewTicker(resumePace)
	defer pace.Stop()
	own := func(n int) string { return resumeKey(n%(resumeKeys/resumeWriters)*resumeWriters + w.number) }
	for n := 0; ctx.Err() == nil; n++ {
		value := fmt.Sprintf("%d.%d", w.number, n)
		switch {
		case n%10 == 9:
			w.write(change{key: own(n), deleted: true})
		case n%5 == 2:
			w.write(change{key: own(n), value: value}, change{key: own(n + 3), value: value + "+"})
		default:
			w.write(change{key: own(n), value: value})
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
	}
}

// write makes some changes in one revision.
func (w *resumeWriter) write(changes ...change) {
	var ops []clientv3.Op
	for _, c := range changes {
		if c.deleted {
			ops = append(ops, clientv3.OpDelete(c.key))
		} else {
			ops = append(ops, clientv3.OpPut(c.key, c.value))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := w.client.Txn(ctx).Then(ops...).Commit()
	for _, c := range changes {
		switch {
		case err != nil && c.deleted:
			w.unknown[c.key]++
		case err != nil:
			w.unknown[c.value]++
		case c.deleted && r.Responses[0].GetResponseDeleteRange().Deleted == 0:
		default:
			c.revision = r.Header.Revision
			w.told = append(w.told, c)
		}
	}
	if err == nil {
		w.acks.Add(1)
	}
}

// life is what a watcher has seen of a key. sum is over all of it.
type life struct {
	version, modified int64
	value             string
	sum               uint64
}

// resumeWatcher watches a range from the beginning on, and goes on where it was.
type resumeWatcher struct {
	name   string
	client *clientv3.Client
	key    string
	opts   []clientv3.OpOption
	// strict ends when its member loses the leader: it is then begun anew here. What
	// else happens the client's library sees to.
	strict bool

	revision       int64 // of the last event
	keys           map[string]*life
	events, begins int
	keep           bool
	kept           []change
}

// errSeen is a watch that tells what is not so.
var errSeen = errors.New("wrong")

// run watches until it has seen a revision after last, which is 0 for long.
func (w *resumeWatcher) run(ctx context.Context, last *atomic.Int64) error {
	for ctx.Err() == nil {
		w.begins++
		if over, err := w.watch(ctx, last); over || err != nil {
			return err
		}
		select { // no leader just now: a program would not ask in a circle either
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

func (w *resumeWatcher) watch(ctx context.Context, last *atomic.Int64) (over bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.strict {
		ctx = clientv3.WithRequireLeader(ctx)
	}
	for r := range w.client.Watch(ctx, w.key, append(w.opts, clientv3.WithRev(w.revision+1))...) {
		if err := r.Err(); err != nil {
			if errors.Is(err, rpctypes.ErrNoLeader) {
				return false, nil
			}
			return false, err
		}
		if len(r.Events) > 0 && r.Events[0].Kv.ModRevision <= w.revision {
			return false, fmt.Errorf("%w: revision %d after %d", errSeen, r.Events[0].Kv.ModRevision, w.revision)
		}
		for _, e := range r.Events {
			if until := last.Load(); until > 0 && e.Kv.ModRevision > until {
				return true, nil
			}
			if err := w.take(e); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// take judges an event by those before it.
func (w *resumeWatcher) take(e *clientv3.Event) error {
	kv := e.Kv
	l := w.keys[string(kv.Key)]
	if l == nil {
		l = &life{}
		w.keys[string(kv.Key)] = l
	}
	deleted := e.Type == mvccpb.Event_DELETE
	switch {
	case kv.ModRevision < w.revision:
		return fmt.Errorf("%w: revision %d after %d", errSeen, kv.ModRevision, w.revision)
	case kv.ModRevision == l.modified:
		return fmt.Errorf("%w: %s twice at %d", errSeen, kv.Key, l.modified)
	case deleted && l.version == 0:
		return fmt.Errorf("%w: %s is deleted at %d and was not there", errSeen, kv.Key, kv.ModRevision)
	case !deleted && kv.Version != l.version+1:
		return fmt.Errorf("%w: %s has version %d at %d, it had %d", errSeen, kv.Key, kv.Version, kv.ModRevision, l.version)
	case e.PrevKv != nil && (string(e.PrevKv.Value) != l.value || e.PrevKv.ModRevision != l.modified || e.PrevKv.Version != l.version):
		return fmt.Errorf("%w: %s was %v before %d, it had %+v", errSeen, kv.Key, e.PrevKv, kv.ModRevision, *l)
	}
	l.version, l.modified, l.value = kv.Version, kv.ModRevision, string(kv.Value)
	sum := fnv.New64a()
	fmt.Fprint(sum, l.sum, kv.ModRevision, deleted, l.value)
	l.sum = sum.Sum64()
	w.revision = kv.ModRevision
	w.events++
	if w.keep {
		w.kept = append(w.kept, change{string(kv.Key), l.value, kv.ModRevision, deleted})
	}
	return nil
}

// resumption is the whole program.
type resumption struct {
	t        *testing.T
	c        *cluster.Cluster
	writers  []*resumeWriter
	watchers []*resumeWatcher
	acks     atomic.Int64
	last     atomic.Int64
}

func (p *resumption) client() *clientv3.Client {
	c, err := clientv3.New(clientv3.Config{Endpoints: p.c.Endpoints(), Logger: zap.NewNop(), DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// people makes writers and watchers: of everything, of a group, of a key; with values
// before and without; with two kinds of going on.
func (p *resumption) people() {
	for n := range resumeWriters {
		p.writers = append(p.writers, &resumeWriter{number: n, client: p.client(), unknown: map[string]int{}, acks: &p.acks})
	}
	var c *clientv3.Client
	for n := range resumeWatchers {
		if n%resumeEach == 0 {
			c = p.client()
		}
		w := &resumeWatcher{client: c, keys: map[string]*life{}, strict: n%3 == 1, keep: n == 0}
		switch {
		case n%10 == 0:
			w.key, w.opts = "r/", append(w.opts, clientv3.WithPrefix())
		case n%10 <= 5:
			w.key, w.opts = fmt.Sprintf("r/%02d/", n/10%resumeGroups), append(w.opts, clientv3.WithPrefix())
		default:
			w.key = resumeKey(n / 2 % resumeKeys)
		}
		if n%4 == 0 {
			w.opts = append(w.opts, clientv3.WithPrevKV())
		}
		w.name = fmt.Sprintf("watcher %d of %s", n, w.key)
		p.watchers = append(p.watchers, w)
	}
}

// strike kills one member or more, lets the others go on, and brings it back.
func (p *resumption) strike(round int) string {
	members := append([]*cluster.Member(nil), p.c.Members...)
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	victims := members[:1]
	switch {
	case round%10 == 9:
		victims = members
	case round%5 == 3:
		victims = members[:2]
	}
	gently := round%3 == 1 && len(victims) == 1
	before := p.acks.Load()
	for _, m := range victims {
		if gently {
			m.Terminate()
		} else {
			m.Kill()
		}
	}
	if len(victims) == 1 {
		p.c.Eventually("writes without it", func(context.Context) bool { return p.acks.Load() >= before+20 })
	}
	p.c.Start(victims...)
	leader := p.c.Leader()
	for _, m := range victims {
		m.AwaitCaughtUp(leader)
	}
	before = p.acks.Load()
	p.c.Eventually("writes with it", func(context.Context) bool { return p.acks.Load() >= before+20 })
	return fmt.Sprintf("%d at once, gently %v", len(victims), gently)
}

// mark puts all keys in one revision, and returns it.
func (p *resumption) mark(name string) (revision int64) {
	cl := p.client()
	for try := 0; ; try++ {
		var ops []clientv3.Op
		for n := range resumeKeys {
			ops = append(ops, clientv3.OpPut(resumeKey(n), fmt.Sprintf("%s %d", name, try)))
		}
		ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
		r, err := cl.Txn(ctx).Then(ops...).Commit()
		cancel()
		if err == nil {
			return r.Header.Revision
		}
		if try == 5 {
			p.t.Fatalf("%s: %v", name, err)
		}
	}
}

// judge compares all watchers with each other, with the store, and with what the
// writers were told.
func (p *resumption) judge(end int64) {
	stored, err := p.writers[0].client.Get(p.t.Context(), "r/", clientv3.WithPrefix(), clientv3.WithRev(end))
	if err != nil || len(stored.Kvs) != resumeKeys {
		p.t.Fatalf("the store has %v, %v", stored, err)
	}
	scribe := p.watchers[0]
	for _, w := range p.watchers {
		inRange := 0
		for _, kv := range stored.Kvs {
			key := string(kv.Key)
			if key != w.key && (!strings.HasPrefix(key, w.key) || !strings.HasSuffix(w.key, "/")) {
				continue
			}
			inRange++
			l, first := w.keys[key], scribe.keys[key]
			if l == nil || first == nil || l.version != kv.Version || l.modified != end || l.sum != first.sum {
				p.t.Errorf("%s saw %+v of %s, the first one %+v, and the store has %v", w.name, l, key, first, kv)
			}
		}
		if inRange != len(w.keys) {
			p.t.Errorf("%s saw %d keys, there are %d", w.name, len(w.keys), inRange)
		}
	}
	late, wrong := compare(scribe.kept, p.writers)
	for _, what := range wrong {
		p.t.Error(what)
	}
	p.t.Logf("%d changes seen, of which %d were not acknowledged", len(scribe.kept), late)
}

// compare holds what was seen against what the writers were told: all that was
// acknowledged is there, and nothing but that, and what nobody knows, late.
func compare(seen []change, writers []*resumeWriter) (late int, wrong []string) {
	told := map[change]bool{}
	unknown := map[string]int{}
	for _, w := range writers {
		for _, c := range w.told {
			told[c] = true
		}
		for what, times := range w.unknown {
			unknown[what] += times
		}
	}
	for _, c := range seen {
		what := c.value
		if c.deleted {
			what = c.key
		}
		switch {
		case told[c]:
			delete(told, c)
		case strings.HasPrefix(c.value, "end "):
		case unknown[what] > 0:
			unknown[what]--
			late++
		default:
			wrong = append(wrong, fmt.Sprintf("seen, and nobody wrote it: %+v", c))
		}
	}
	for c := range told {
		wrong = append(wrong, fmt.Sprintf("acknowledged and never seen: %+v", c))
	}
	return late, wrong
}

// Members are killed and started again under writes, one, two, or all, while 200
// watchers go on where they were: no event is lost, doubled or out of order. How long
// is -resume.for.
func TestWatchersResumeWhereTheyWere(t *testing.T) {
	skipShort(t)
	p := &resumption{t: t, c: newCluster(t, 3)}
	p.c.Start(p.c.Members...)
	p.people()
	writing, stop := context.WithCancel(t.Context())
	watching, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	var writers, watchers sync.WaitGroup
	failed := make([]error, len(p.watchers))
	for i, w := range p.watchers {
		watchers.Go(func() { failed[i] = w.run(watching, &p.last) })
	}
	for _, w := range p.writers {
		writers.Go(func() { w.run(writing) })
	}
	defer writers.Wait()
	defer stop()
	begun, rounds := time.Now(), 0
	for ; rounds < 3 || time.Since(begun) < *resumeFor; rounds++ {
		did := p.strike(rounds)
		if *resumeFor > time.Minute {
			t.Logf("%v: round %d, %s, %d writes", time.Since(begun).Round(time.Second), rounds+1, did, p.acks.Load())
		}
	}
	took := time.Since(begun)
	stop()
	writers.Wait()
	end := p.mark("end")
	p.last.Store(end)
	p.mark("after")
	patience := time.AfterFunc(time.Minute, giveUp)
	watchers.Wait()
	patience.Stop()
	events, begins := 0, 0
	for i, w := range p.watchers {
		if failed[i] != nil {
			t.Errorf("%s, after %d events and revision %d of %d: %v", w.name, w.events, w.revision, end, failed[i])
		}
		events, begins = events+w.events, begins+w.begins-1
	}
	if !t.Failed() {
		p.judge(end)
	}
	t.Logf("%d rounds in %v: %d writes, %d events seen by %d watchers, %d begun anew by hand", rounds, took.Round(time.Second), p.acks.Load(), events, len(p.watchers), begins)
}

// The judges of the program see what they are there for.
func TestWhatIsLostDoubledOrOutOfOrderIsSeen(t *testing.T) {
	put := func(key string, revision, version int64) *clientv3.Event {
		return &clientv3.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision, Version: version}}
	}
	gone := func(key string, revision int64) *clientv3.Event {
		return &clientv3.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision}}
	}
	was := func(e *clientv3.Event, revision, version int64) *clientv3.Event {
		e.PrevKv = &mvccpb.KeyValue{Key: e.Kv.Key, ModRevision: revision, Version: version}
		return e
	}
	for what, events := range map[string][]*clientv3.Event{
		"":             {put("a", 2, 1), put("b", 2, 1), was(put("a", 4, 2), 2, 1), gone("a", 5), put("a", 7, 1)},
		"a lost put":   {put("a", 2, 1), put("a", 4, 3)},
		"a lost end":   {put("a", 2, 1), put("b", 3, 1), put("a", 4, 1)},
		"doubled":      {put("a", 2, 1), put("a", 2, 1)},
		"out of order": {put("a", 2, 1), put("b", 4, 1), put("a", 3, 2)},
		"gone twice":   {put("a", 2, 1), gone("a", 3), gone("a", 4)},
		"another past": {put("a", 2, 1), was(put("a", 4, 2), 3, 1)},
	} {
		w := &resumeWatcher{keys: map[string]*life{}}
		var err error
		for _, e := range events {
			if err == nil {
				err = w.take(e)
			}
		}
		if (err != nil) != (what != "") {
			t.Errorf("%s: %v", what, err)
		}
	}
	writers := []*resumeWriter{{told: []change{{"a", "1", 2, false}, {"a", "", 5, true}}, unknown: map[string]int{"2": 1}}}
	seen := []change{{"a", "1", 2, false}, {"a", "2", 3, false}, {"a", "", 5, true}}
	if late, wrong := compare(seen, writers); late != 1 || len(wrong) != 0 {
		t.Errorf("what is right: %d late, %q", late, wrong)
	}
	for what, seen := range map[string][]change{
		"lost": seen[:2], "twice late": append(seen[:3:3], change{"a", "2", 7, false}), "at another revision": append(seen[:2:2], change{"a", "", 6, true}),
	} {
		if _, wrong := compare(seen, writers); len(wrong) == 0 {
			t.Errorf("%s: nothing is wrong", what)
		}
	}
}
