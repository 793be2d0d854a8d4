package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

var killRounds = flag.Int("kill.rounds", 3, "rounds of kill -9 under load")

// writer puts one key after the other and remembers what was acknowledged.
type writer struct {
	prefix string
	acked  int // keys prefix/0 .. prefix/acked-1 were acknowledged
}

func (w *writer) key(n int) string { return fmt.Sprintf("%s/%08d", w.prefix, n) }

// run writes until the server is gone.
func (w *writer) run(kv pb.KVClient) {
	for {
		key := w.key(w.acked)
		if _, err := kv.Put(context.Background(), &pb.PutRequest{Key: []byte(key), Value: []byte("value of " + key)}); err != nil {
			return
		}
		w.acked++
	}
}

// check reads back everything that was acknowledged. One key more may be there:
// the one whose answer never came.
func (w *writer) check(t *testing.T, kv pb.KVClient) {
	t.Helper()
	resp, err := kv.Range(context.Background(), &pb.RangeRequest{Key: []byte(w.prefix + "/"), RangeEnd: []byte(w.prefix + "0")})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(resp.Kvs); n < w.acked || n > w.acked+1 {
		t.Fatalf("%s: %d keys are there, %d were acknowledged", w.prefix, n, w.acked)
	}
	for i, got := range resp.Kvs {
		if key := w.key(i); string(got.Key) != key || string(got.Value) != "value of "+key || got.Version != 1 {
			t.Fatalf("%s holds %v", key, got)
		}
	}
	w.acked = len(resp.Kvs)
}

// TestKillNineLosesNothing: 64 writers, kill -9 at a random moment, restart, and
// every acknowledged write is there; again and again on one directory.
func TestKillNineLosesNothing(t *testing.T) {
	dir := t.TempDir()
	writers := make([]*writer, 64)
	for i := range writers {
		writers[i] = &writer{prefix: fmt.Sprintf("writer%02d", i)}
	}
	for round := range *killRounds {
		p := start(t, dir)
		p.awaitReady()
		kv := p.kv()
		for _, w := range writers {
			w.check(t, kv)
		}
		var wg sync.WaitGroup
		for _, w := range writers {
			wg.Go(func() { w.run(kv) })
		}
		time.AfterFunc(50*time.Millisecond+time.Duration(rand.Int64N(int64(time.Second))), func() {
			p.cmd.Process.Signal(syscall.SIGKILL)
		})
		wg.Wait()
		<-p.exited
		total := 0
		for _, w := range writers {
			total += w.acked
		}
		t.Logf("round %d: killed after %d acknowledged writes", round+1, total)
	}
	p := start(t, dir)
	p.awaitReady()
	kv := p.kv()
	for _, w := range writers {
		w.check(t, kv)
	}
}
