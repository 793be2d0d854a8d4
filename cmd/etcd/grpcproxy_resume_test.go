package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// openWatch is a watch on a stream of its own through a proxy, and what it was told.
type openWatch struct {
	key, end string
	from     int64 // the first revision that it is owed
	events   []string
	reached  int64 // it has everything up to there
	err      error
}

// follow takes what comes until ctx ends or it has everything up to a revision.
func (w *openWatch) follow(ctx context.Context, c pb.WatchClient, start int64, until func() int64) {
	stream, err := c.Watch(ctx)
	if err == nil {
		err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: []byte(w.key), RangeEnd: []byte(w.end), StartRevision: start,
		}}})
	}
	for err == nil {
		var r *pb.WatchResponse
		if r, err = stream.Recv(); err != nil {
			break
		}
		switch {
		case r.Canceled:
			err = fmt.Errorf("canceled: %s %d", r.CancelReason, r.CompactRevision)
		case r.Created:
			if w.from = start; start == 0 {
				w.from = r.Header.Revision + 1
			}
			w.reached = w.from - 1
		}
		for _, e := range r.Events {
			w.events = append(w.events, eventLine(e))
			w.reached = e.Kv.ModRevision
		}
		if last := until(); last > 0 && w.reached >= last {
			return
		}
	}
	if ctx.Err() == nil {
		w.err = err
	}
}

func eventLine(e *mvccpb.Event) string {
	return fmt.Sprintf("%d %v %s=%s", e.Kv.ModRevision, e.Type, e.Kv.Key, e.Kv.Value)
}

// proxyFor is how long it goes on; KVORUM_PROXY_FOR says another time.
func proxyFor(t *testing.T) time.Duration {
	text := os.Getenv("KVORUM_PROXY_FOR")
	if text == "" {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Watches come and go behind a proxy, of now, of the past and of what is to come, while
// the member is killed and started again: each is told exactly what happened, from where
// it began, once and in order, on a stream that never breaks.
func TestWatchesThroughAProxy(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	dir, client, peer := t.TempDir(), ports.Reserve(t), ports.Reserve(t)
	begin := func() *process {
		p := launch(t, "--data-dir", dir, "--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
			"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer)
		p.awaitReady()
		return p
	}
	member := begin()
	_, door := proxied(t, client)
	writer, watches := userOf(t, client), pb.NewWatchClient(rawConn(t, door))
	ctx, cancel := context.WithTimeout(t.Context(), proxyFor(t)+2*time.Minute)
	defer cancel()
	var mu sync.Mutex
	var all []*openWatch
	var current, last int64
	get := func(n *int64) func() int64 {
		return func() int64 {
			mu.Lock()
			defer mu.Unlock()
			return *n
		}
	}
	set := func(n *int64, to int64) {
		mu.Lock()
		defer mu.Unlock()
		*n = max(*n, to)
	}
	var running sync.WaitGroup
	open := func() {
		w := &openWatch{key: fmt.Sprintf("w/%d", rand.IntN(3))}
		if rand.IntN(2) == 0 {
			w.key, w.end = "w/", "w0"
		}
		start := int64(0)
		switch now := get(&current)(); rand.IntN(4) {
		case 0:
			start = 1 + rand.Int64N(now+1)
		case 1:
			start = now + rand.Int64N(20)
		}
		all = append(all, w)
		lasting, stop := context.WithCancel(ctx)
		if rand.IntN(2) == 0 {
			time.AfterFunc(time.Duration(rand.IntN(1500))*time.Millisecond, stop)
		}
		running.Go(func() {
			defer stop()
			w.follow(lasting, watches, start, get(&last))
		})
	}
	var killed int
	for begun, next := time.Now(), time.Now().Add(time.Second); time.Since(begun) < proxyFor(t); {
		if len(all) < 60 || rand.IntN(20) == 0 && len(all) < 2000 {
			open()
		}
		call, stop := context.WithTimeout(ctx, time.Second)
		if r, err := writer.Put(call, fmt.Sprintf("w/%d", rand.IntN(3)), fmt.Sprint(rand.Int())); err == nil {
			set(&current, r.Header.Revision)
		}
		stop()
		if time.Now().After(next) {
			member.signal(syscall.SIGKILL)
			member.awaitExit()
			member, killed, next = begin(), killed+1, time.Now().Add(time.Second)
		}
	}
	// One more word for each key, so that everybody can know that it has all.
	for i := range 3 {
		r, err := writer.Put(ctx, fmt.Sprintf("w/%d", i), "last")
		if err != nil {
			t.Fatal(err)
		}
		set(&current, r.Header.Revision)
	}
	set(&last, current-2)
	for i := range 60 { // and what those wait for that begin in the future
		if _, err := writer.Put(ctx, fmt.Sprintf("w/%d", i%3), "over"); err != nil {
			t.Fatal(err)
		}
	}
	running.Wait()
	checkWatches(t, writer, all)
	t.Logf("%d watches, %d revisions, the member killed %d times", len(all), current, killed)
}

// checkWatches holds what watches were told against what a watch of the member tells.
func checkWatches(t *testing.T, c *clientv3.Client, all []*openWatch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	end, err := c.Get(ctx, "w/0")
	if err != nil {
		t.Fatal(err)
	}
	var truth []*mvccpb.Event
	for r := range c.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(1)) {
		for _, e := range r.Events {
			truth = append(truth, (*mvccpb.Event)(e))
		}
		if len(truth) > 0 && truth[len(truth)-1].Kv.ModRevision == end.Header.Revision {
			break
		}
	}
	events := 0
	for i, w := range all {
		var want []string
		for _, e := range truth {
			key := string(e.Kv.Key)
			if e.Kv.ModRevision >= w.from && e.Kv.ModRevision <= w.reached && (key == w.key || w.end != "" && key >= w.key && key < w.end) {
				want = append(want, eventLine(e))
			}
		}
		if w.err != nil || !slices.Equal(w.events, want) {
			t.Errorf("watch %d of %s..%s from %d on ended with %v, and was told\n%s\nof\n%s", i, w.key, w.end, w.from, w.err,
				strings.Join(w.events, "\n"), strings.Join(want, "\n"))
			return
		}
		events += len(want)
	}
	if events == 0 {
		t.Error("nobody was told anything")
	}
}
