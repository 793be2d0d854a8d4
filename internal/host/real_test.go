package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// counter is a Machine that counts commands, for runs with real goroutines.
type counter struct {
	mark     raft.Position
	count    atomic.Int64
	outcomes []command.Outcome
	flushed  raft.Position
	fails    atomic.Pointer[error]
}

func (c *counter) Mark() raft.Position                  { return c.mark }
func (c *counter) Durable() (raft.Position, error)      { return c.flushed, nil }
func (c *counter) StartFlush() error                    { c.flushed = c.mark; return nil }
func (c *counter) Turn(env.Instant) (bool, env.Instant) { return false, env.Never }
func (c *counter) Apply(entries []raft.Entry) ([]command.Outcome, error) {
	c.outcomes = c.outcomes[:0]
	for _, e := range entries {
		if e.Index != c.mark.Index+1 {
			return nil, fmt.Errorf("entry %d after %d", e.Index, c.mark.Index)
		}
		c.mark = raft.Position{Index: e.Index, Term: e.Term}
		if e.Kind != raft.Batch {
			continue
		}
		for b := command.ReadBatch(e.Data); b.Next(); {
			h, err := command.Peek(b.Command())
			if err != nil {
				return nil, err
			}
			c.count.Add(1)
			c.outcomes = append(c.outcomes, command.Outcome{Origin: h.Origin, Term: e.Term, Index: e.Index})
		}
	}
	if broken := c.fails.Load(); broken != nil {
		return nil, *broken
	}
	return c.outcomes, nil
}

// lan joins hosts of one process; envelopes are delivered by the sender.
type lan struct {
	mu    sync.RWMutex
	hosts map[id.Member]*Host
}

func (l *lan) Send(envelopes []Envelope) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, e := range envelopes {
		if to := l.hosts[e.To]; to != nil {
			to.Deliver([]Envelope{e})
		}
	}
}

// running is a host with real goroutines over the real disk.
type running struct {
	host   *Host
	group  *Group
	state  *counter
	world  *osenv.World
	cancel context.CancelFunc
	ended  chan error
}

func run(t testing.TB, l *lan, member id.Member, voters ...id.Member) *running {
	t.Helper()
	return runOn(t, osenv.FS(), l, member, voters...)
}

func runOn(t testing.TB, fs env.FS, l *lan, member id.Member, voters ...id.Member) *running {
	t.Helper()
	r := &running{world: osenv.New(), state: &counter{}, ended: make(chan error, 1)}
	log, err := raftlog.Open(raftlog.Options{FS: fs, Dir: t.TempDir(), Rand: r.world.Rand, Tasks: r.world.Tasks, Clock: r.world.Clock})
	if err != nil {
		t.Fatal(err)
	}
	r.host = New(Options{Member: member, Clock: r.world.Clock, Rand: r.world.Rand, Tasks: r.world.Tasks, Log: log, Transport: l,
		Election: 300 * time.Millisecond, Heartbeat: 30 * time.Millisecond})
	if r.group, err = r.host.Open(1, r.state, raft.Conf{Voters: voters}); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.hosts[member] = r.host
	l.mu.Unlock()
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() { r.ended <- r.host.Run(ctx) }()
	return r
}

func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil {
		t.Errorf("run: %v", err)
	}
	if err := r.host.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	r.world.Stop()
}

// waiter ends one call at a time.
type waiter chan Result

func (w waiter) Push(r Result) { w <- r }

// watchedFS tells which syncs of the log were begun by one who was idle, and can keep
// their ends back.
type watchedFS struct {
	env.FS
	idle, others atomic.Int64
	held         chan func() // nil: none is kept back
}

func (w *watchedFS) wrap(f env.File, err error) (env.File, error) { return &watchedFile{f, w}, err }

func (w *watchedFS) Create(name string, c vfs.DiskWriteCategory) (env.File, error) {
	return w.wrap(w.FS.Create(name, c))
}

func (w *watchedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (env.File, error) {
	return w.wrap(w.FS.OpenReadWrite(name, c, o...))
}

func (w *watchedFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (env.File, error) {
	return w.wrap(w.FS.ReuseForWrite(from, to, c))
}

type watchedFile struct {
	env.File
	w *watchedFS
}

func (f *watchedFile) StartSync(idle bool, done func(error)) {
	if idle {
		f.w.idle.Add(1)
	} else {
		f.w.others.Add(1)
	}
	if f.w.held != nil && !idle {
		env.StartSync(f.File, idle, func(err error) { f.w.held <- func() { done(err) } })
		return
	}
	env.StartSync(f.File, idle, done)
}

// Who waits alone is idle while his command is synced; with a large frame, or with
// others beside him, somebody has something to do meanwhile.
func TestWhoIsIdleWhileAFrameIsSynced(t *testing.T) {
	fs := &watchedFS{FS: osenv.FS()}
	r := runOn(t, fs, &lan{hosts: map[id.Member]*Host{}}, 1, 1)
	defer r.stop(t)
	w := make(waiter, 8)
	ended := func(calls int) {
		for range calls {
			if got := <-w; got.Err != nil {
				t.Fatalf("put: %+v", got)
			}
		}
	}
	for range 20 {
		r.group.Propose(Call{To: w}, put("k", "v"))
		ended(1)
	}
	if others := fs.others.Load(); others != 0 || fs.idle.Load() < 20 {
		t.Fatalf("%d syncs of one client's were begun by somebody idle, %d by others", fs.idle.Load(), others)
	}
	r.group.Propose(Call{To: w}, put("k", strings.Repeat("v", smallFrame)))
	ended(1)
	if others := fs.others.Load(); others != 1 {
		t.Fatalf("%d syncs of a large frame were begun by somebody busy", others)
	}
	for range 50 {
		for range 8 {
			r.group.Propose(Call{To: w}, put("k", "v"))
		}
		ended(8)
	}
	if others := fs.others.Load(); others < 2 {
		t.Fatal("all syncs of eight clients' were begun by somebody idle")
	}
}

// A host that ends waits for the sync that is under way: its log is closed next.
func TestTheEndWaitsForASync(t *testing.T) {
	fs := &watchedFS{FS: osenv.FS(), held: make(chan func(), 1)}
	r := runOn(t, fs, &lan{hosts: map[id.Member]*Host{}}, 1, 1)
	w := make(waiter, 2)
	r.group.Propose(Call{To: w}, put("k", strings.Repeat("v", smallFrame)))
	end := <-fs.held
	r.cancel()
	waitFor(t, func() bool { return r.host.executor.Load() == nil })
	select {
	case err := <-r.ended:
		t.Fatalf("the host has ended (%v) while a sync was under way", err)
	case <-time.After(20 * flushLook):
	}
	end()
	r.stop(t)
	if <-w; r.host.Err() != nil {
		t.Fatal(r.host.Err())
	}
}

func TestManyClientsOnRealGoroutines(t *testing.T) {
	r := run(t, &lan{hosts: map[id.Member]*Host{}}, 1, 1)
	const clients, each = 32, 60
	var group sync.WaitGroup
	for range clients {
		group.Add(1)
		go func() {
			defer group.Done()
			w := make(waiter, 1)
			for i := range each {
				r.group.Propose(Call{To: w, Tag: uint64(i)}, put("k", "v"))
				if got := <-w; got.Err != nil || got.Tag != uint64(i) {
					t.Errorf("put: %+v", got)
				}
				r.group.ReadIndex(Call{To: w, Tag: uint64(i)})
				if got := <-w; got.Err != nil {
					t.Errorf("read: %+v", got)
				}
			}
		}()
	}
	group.Wait()
	if s := r.group.Status(); s.Leader != 1 || r.state.count.Load() != clients*each {
		t.Errorf("%d commands, status %+v", r.state.count.Load(), s)
	}
	r.stop(t)
	late := make(waiter, 1)
	r.group.Propose(Call{To: late}, put("k", "v"))
	if got := <-late; !errors.Is(got.Err, ErrStopped) {
		t.Errorf("a put after the end: %+v", got)
	}
	r.group.ReadIndex(Call{To: late})
	if got := <-late; !errors.Is(got.Err, ErrStopped) {
		t.Errorf("a read after the end: %+v", got)
	}
	r.group.ProposeConf(Call{To: late}, 0, raft.Conf{}, nil)
	if got := <-late; !errors.Is(got.Err, ErrStopped) {
		t.Errorf("a change after the end: %+v", got)
	}
}

func TestThreeHostsOnRealGoroutines(t *testing.T) {
	l := &lan{hosts: map[id.Member]*Host{}}
	var all []*running
	for m := range id.Member(3) {
		all = append(all, run(t, l, m+1, 1, 2, 3))
	}
	var group sync.WaitGroup
	for i := range 12 {
		group.Add(1)
		go func() {
			defer group.Done()
			w := make(waiter, 1)
			for range 20 {
				all[i%3].group.Propose(Call{To: w}, put("k", "v"))
				if got := <-w; got.Err != nil {
					t.Errorf("put: %+v", got)
				}
			}
		}()
	}
	group.Wait()
	for _, r := range all {
		waitFor(t, func() bool { return r.state.count.Load() == 12*20 })
	}
	for _, r := range all {
		r.stop(t)
	}
}

// A machine that cannot go on ends the run with what it said, and every call.
func TestAFailingMachineEndsTheRun(t *testing.T) {
	r := run(t, &lan{hosts: map[id.Member]*Host{}}, 1, 1)
	w := make(waiter, 1)
	r.group.Propose(Call{To: w}, put("k", "v"))
	<-w
	broken := errors.New("the disk is full")
	r.state.fails.Store(&broken)
	r.group.Propose(Call{To: w}, put("k", "v"))
	if got := <-w; !errors.Is(got.Err, ErrStopped) {
		t.Errorf("%+v", got)
	}
	if err := <-r.ended; !errors.Is(err, broken) || !errors.Is(r.host.Err(), broken) {
		t.Errorf("run ended with %v", err)
	}
	if err := r.host.Close(); err != nil {
		t.Error(err)
	}
	r.world.Stop()
}

// BenchmarkPut is the host's part of a put on a lone voter, with as many calls
// under way as the name says, over a disk in memory: what is left is the host's
// CPU and its allocations.
func BenchmarkPut(b *testing.B) {
	for _, clients := range []int{1, 64, 1000} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			r := runOn(b, vfs.NewMem(), &lan{hosts: map[id.Member]*Host{}}, 1, 1)
			w := make(waiter, clients)
			// A buffer is the host's from the call to its result.
			bufs := make([][]byte, clients)
			for i := range bufs {
				bufs[i] = put("some/key/of/a/usual/length", "a value that is not very long, but not tiny either")
			}
			b.ReportAllocs()
			b.ResetTimer()
			sent, got := 0, 0
			for ; sent < min(clients, b.N); sent++ {
				r.group.Propose(Call{To: w, Tag: uint64(sent)}, bufs[sent])
			}
			for ; got < b.N; got++ {
				result := <-w
				if result.Err != nil {
					b.Fatal(result.Err)
				}
				if sent < b.N {
					r.group.Propose(Call{To: w, Tag: result.Tag}, bufs[result.Tag])
					sent++
				}
			}
			b.StopTimer()
			r.stop(b)
		})
	}
}
