package embed

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// watcher is a raw stream of watches.
type watcher struct {
	t  testing.TB
	to pb.Watch_WatchClient
}

func openWatch(t testing.TB, m *member) *watcher {
	t.Helper()
	to, err := pb.NewWatchClient(m.conn).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &watcher{t, to}
}

func (w *watcher) create(r *pb.WatchCreateRequest) {
	w.t.Helper()
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

func (w *watcher) cancel(watch int64) {
	w.t.Helper()
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: watch}}})
}

func (w *watcher) progress() {
	w.t.Helper()
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (w *watcher) send(r *pb.WatchRequest) {
	w.t.Helper()
	if err := w.to.Send(r); err != nil {
		w.t.Fatal(err)
	}
}

// recv says in words what comes next.
func (w *watcher) recv() string {
	w.t.Helper()
	r, err := w.to.Recv()
	if err != nil {
		return err.Error()
	}
	s := fmt.Sprint(r.WatchId)
	if r.Header.Revision != 0 {
		s += fmt.Sprintf("@%d", r.Header.Revision)
	}
	if r.Created {
		s += " created"
	}
	if r.Canceled {
		s += " canceled"
	}
	if r.CancelReason != "" {
		s += ": " + r.CancelReason
	}
	if r.CompactRevision != 0 {
		s += fmt.Sprintf(" compacted %d", r.CompactRevision)
	}
	for _, e := range r.Events {
		s += fmt.Sprintf(" %s %s.%d", e.Type, e.Kv.Key, e.Kv.ModRevision)
		if e.PrevKv != nil {
			s += fmt.Sprintf("<%s.%d", e.PrevKv.Value, e.PrevKv.ModRevision)
		}
	}
	return s
}

func (w *watcher) want(lines ...string) {
	w.t.Helper()
	for _, want := range lines {
		if got := w.recv(); got != want {
			w.t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

// What spec 3 says of requests and their answers, on the wire.
func TestWatchOnTheWire(t *testing.T) {
	m := startMember(t, t.TempDir())
	kv, ctx := pb.NewKVClient(m.conn), t.Context()
	put := func(key, value string) {
		t.Helper()
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 { // revisions 2 to 5
		put("a", fmt.Sprint(i))
	}
	if _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: 4, Physical: true}); err != nil {
		t.Fatal(err)
	}
	w := openWatch(t, m)
	w.send(&pb.WatchRequest{}) // ignored
	w.progress()               // of no watch: nothing
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 4, PrevKv: true})
	w.want("0@5 created", "0@5 PUT a.4 PUT a.5<2.4")
	w.create(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")})
	w.want("-1@5 created canceled: mvcc: watcher range is empty")
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: -1})
	w.want("-1@5 created canceled: etcdserver: mvcc: required revision has been compacted")
	w.create(&pb.WatchCreateRequest{WatchId: 7, RangeEnd: []byte{0}})
	w.want("7@5 created")
	w.create(&pb.WatchCreateRequest{WatchId: 7, Key: []byte("a")})
	w.want("-1@5 created canceled: mvcc: duplicate watch ID provided on the WatchStream")
	w.create(&pb.WatchCreateRequest{Key: []byte("z"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT, 99}})
	w.want("1@5 created")
	w.cancel(99) // ignored
	w.cancel(0)
	w.want("0@5 canceled")
	w.progress()
	w.want("-1@5")
	put("a", "x")
	w.want("7@6 PUT a.6")
	put("z", "x")
	w.want("7@7 PUT z.7")
	if _, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}}); err != nil {
		t.Fatal(err)
	}
	got := []string{w.recv(), w.recv()}
	slices.Sort(got)
	if !slices.Equal(got, []string{"1@8 DELETE z.8", "7@8 DELETE a.8 DELETE z.8"}) {
		t.Fatalf("%q", got)
	}
	// Ended by compaction: the ID stays until its client has cancelled it.
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3})
	w.want("2@8 created", "2 canceled compacted 4")
	w.progress() // not while it stays
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 2})
	w.want("-1@8 created canceled: mvcc: duplicate watch ID provided on the WatchStream")
	w.cancel(2)
	w.want("2@8 canceled")
	w.create(&pb.WatchCreateRequest{Key: []byte("f"), StartRevision: 10})
	w.want("3@8 created")
	w.progress() // not while one waits for the future
	put("f", "9")
	w.want("7@9 PUT f.9")
	put("f", "10")
	got = []string{w.recv(), w.recv()}
	slices.Sort(got)
	if !slices.Equal(got, []string{"3@10 PUT f.10", "7@10 PUT f.10"}) {
		t.Fatalf("%q", got)
	}
	w.progress()
	w.want("-1@10")
	if err := w.to.CloseSend(); err != nil {
		t.Fatal(err)
	}
	put("g", "11") // events go on after the client's half of the stream is closed
	w.want("7@11 PUT g.11")
}

// A member that stops ends its watches at once, with an error that makes clients go
// on elsewhere.
func TestAStoppingMemberEndsItsWatches(t *testing.T) {
	m := startMember(t, t.TempDir())
	w := openWatch(t, m)
	w.create(&pb.WatchCreateRequest{Key: []byte("a")})
	w.want("0@1 created")
	server := m.Server
	begun := time.Now()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > drain {
		t.Errorf("it took %v", took)
	}
	m.Server = nil
	_, err := w.to.Recv()
	if status.Code(err) != codes.Unavailable && err != io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
	m.conn.Close()
}

func newClient(t *testing.T, endpoints ...string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// The official client sees every change once, over restarts of the member, with and
// without a ring to read from.
func TestOfficialClientWatchesOverARestart(t *testing.T) {
	dir := t.TempDir()
	cfg, client := configFor(t, dir)
	m := startMemberAs(t, cfg, client)
	c := newClient(t, client)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	live := c.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	if r := <-live; !r.Created || r.Header.Revision != 1 {
		t.Fatalf("%+v", r)
	}
	value := string(bytes.Repeat([]byte("v"), 1000))
	next := int64(2)
	follow := func(what string, ch clientv3.WatchChan, from, to int64) {
		t.Helper()
		for from <= to {
			r, ok := <-ch
			if !ok || r.Err() != nil {
				t.Fatalf("%s: %v, %v", what, ok, r.Err())
			}
			for _, e := range r.Events {
				key := fmt.Sprintf("k%d", e.Kv.ModRevision%5)
				if e.Kv.ModRevision != from || string(e.Kv.Key) != key || e.Kv.Version != (from-2)/5+1 {
					t.Fatalf("%s: %v, want %d", what, e, from)
				}
				if from > 6 && (e.PrevKv == nil || e.PrevKv.ModRevision != from-5 || string(e.PrevKv.Value) != value) {
					t.Fatalf("%s: before %d: %v", what, from, e.PrevKv)
				}
				from++
			}
		}
	}
	write := func(n int) {
		t.Helper()
		for range n {
			if _, err := c.Put(ctx, fmt.Sprintf("k%d", next%5), value); err != nil {
				t.Fatal(err)
			}
			next++
		}
	}
	write(300)
	follow("live", live, 2, next-1)
	for range 2 {
		m.stop()
		m = startMemberAs(t, cfg, client)
		write(50)
		follow("over a restart", live, next-50, next-1)
		again := c.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(2))
		follow("from history", again, 2, next-1)
	}
	m.stop()
}

// A response that is too large for one message comes in pieces, which the official
// client joins.
func TestLargeResponsesAreSplit(t *testing.T) {
	m := startMember(t, t.TempDir())
	kv, ctx := pb.NewKVClient(m.conn), t.Context()
	for i := range 60 {
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "k%02d", i), Value: make([]byte, 100_000)}); err != nil {
			t.Fatal(err)
		}
	}
	c := newClient(t, m.client)
	split := c.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithFragment(), clientv3.WithCreatedNotify())
	<-split
	raw := openWatch(t, m)
	raw.create(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: true, Fragment: true})
	raw.want("0@61 created")
	if _, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}); err != nil {
		t.Fatal(err)
	}
	if r := <-split; len(r.Events) != 60 || r.Err() != nil || r.Header.Revision != 62 {
		t.Errorf("%d events, %v", len(r.Events), r.Err())
	}
	events := 0
	for more := true; more; {
		r, err := raw.to.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if size := len(r.Events) * 100_000; size > 2<<20 || r.Header.Revision != 62 {
			t.Errorf("a piece of %d events", len(r.Events))
		}
		events += len(r.Events)
		more = r.Fragment
	}
	if events != 60 {
		t.Errorf("%d events in pieces", events)
	}
}

// Idle watches that ask for it are told how far they are.
func TestBookmarksByInterval(t *testing.T) {
	m := startMember(t, t.TempDir(), "--watch-progress-notify-interval", "100ms")
	c := newClient(t, m.client)
	ctx := t.Context()
	ch := c.Watch(ctx, "idle", clientv3.WithProgressNotify())
	for range 3 {
		r, err := c.Put(ctx, "other", "")
		if err != nil {
			t.Fatal(err)
		}
		for {
			got := <-ch
			if !got.IsProgressNotify() || got.Header.Revision > r.Header.Revision {
				t.Fatalf("%+v", got)
			}
			if got.Header.Revision == r.Header.Revision {
				break
			}
		}
	}
}

// sameHistory watches all keys from the beginning at two members, one of which was
// sent the state: both tell the same, every revision once.
func (tb *table) sameHistory(a, b *seat) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.t.Context(), time.Minute)
	defer cancel()
	var said [2][]string
	for i, s := range []*seat{a, b} {
		r, err := pb.NewKVClient(s.conn).Range(ctx, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
		if err != nil {
			tb.t.Fatal(err)
		}
		to, err := pb.NewWatchClient(s.conn).Watch(ctx)
		if err != nil {
			tb.t.Fatal(err)
		}
		w := &watcher{t: tb.t, to: to}
		w.create(&pb.WatchCreateRequest{RangeEnd: []byte{0}, StartRevision: 2})
		for next := int64(2); next <= r.Header.Revision; {
			m, err := to.Recv()
			if err != nil {
				tb.t.Fatal(err)
			}
			for _, e := range m.Events {
				if e.Kv.ModRevision != next {
					tb.t.Fatalf("%s: revision %d in the place of %d", s.name, e.Kv.ModRevision, next)
				}
				said[i] = append(said[i], fmt.Sprintf("%s %s %d %d", e.Type, e.Kv.Key, len(e.Kv.Value), e.Kv.Version))
				next++
			}
		}
	}
	if !slices.Equal(said[0], said[1]) {
		tb.t.Errorf("%s and %s tell different histories", a.name, b.name)
	}
}
