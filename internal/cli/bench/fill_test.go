package bench

import (
	"bytes"
	"compress/flate"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var small = Space{Keys: 300, KeyBytes: 10, ValueBytes: 64}

func TestFillPutsEachKeyOnceAndOnlyWhenKeysAreMissing(t *testing.T) {
	f := newFake()
	s := f.serve(t)
	fill := filler{server: s, space: small, seed: 1, progress: io.Discard}
	for range 2 {
		if err := fill.ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if f.saw("put") != small.Keys || len(f.keys()) != small.Keys {
		t.Errorf("%d puts made %d keys", f.saw("put"), len(f.keys()))
	}
	var all []byte
	for key, kv := range f.keys() {
		if len(key) != small.KeyBytes || len(kv.Value) != small.ValueBytes {
			t.Fatalf("key %q has a value of %d bytes", key, len(kv.Value))
		}
		all = append(all, kv.Value...)
	}
	var packed bytes.Buffer
	w, _ := flate.NewWriter(&packed, flate.BestCompression)
	if _, err := w.Write(all); err != nil || w.Close() != nil || packed.Len() < len(all) {
		t.Errorf("%d bytes of values were packed into %d (%v)", len(all), packed.Len(), err)
	}
	// Values of another size, or more keys, are another key space.
	fill.space.ValueBytes++
	if err := fill.ensure(t.Context()); err != nil || f.saw("put") != 2*small.Keys {
		t.Errorf("%d puts, %v", f.saw("put"), err)
	}
	fill.space.Keys++
	if err := fill.ensure(t.Context()); err != nil || len(f.keys()) != small.Keys+1 {
		t.Errorf("%d keys, %v", len(f.keys()), err)
	}
}

func TestFillTriesAgainWhenTheServerIsBusyAndGivesUpOnOtherErrors(t *testing.T) {
	f := newFake()
	s := f.serve(t)
	fill := filler{server: s, space: small, seed: 1, progress: io.Discard}
	f.refusing(func(puts int) error {
		switch puts % 5 {
		case 0:
			return status.Error(codes.ResourceExhausted, "etcdserver: too many requests")
		case 1:
			return status.Error(codes.Unknown, "context deadline exceeded")
		}
		return nil
	})
	if err := fill.ensure(t.Context()); err != nil || len(f.keys()) != small.Keys {
		t.Errorf("%d keys, %v", len(f.keys()), err)
	}
	f.refusing(func(int) error {
		return status.Error(codes.FailedPrecondition, "etcdserver: mvcc: database space exceeded")
	})
	if _, err := fill.put(t.Context(), 10); err == nil || !strings.Contains(err.Error(), "space exceeded") {
		t.Errorf("%v", err)
	}
}

func TestTheShuffledOrderHasEachKeyOnce(t *testing.T) {
	for _, keys := range []int{1, 2, 3, 7, 10, 64, 100, 101, 1000, 4096, 99_999, 100_000} {
		s := Space{Keys: keys}
		seen := make([]bool, keys)
		for i := range keys {
			seen[s.shuffled(i)] = true
		}
		for k, ok := range seen {
			if !ok {
				t.Fatalf("of %d keys, %d is never put", keys, k)
			}
		}
		if s.shuffled(keys) != s.shuffled(0) {
			t.Errorf("the second pass over %d keys does not begin as the first", keys)
		}
	}
}

func TestEqualSeedsDrawEquallyAndClientsDoNot(t *testing.T) {
	draw := func(seed uint64, client int) string {
		b := make([]byte, 32)
		newSource(seed, client).fill(b)
		return string(b)
	}
	first, again := draw(1, 2), draw(1, 2)
	if first != again || first == draw(1, 3) || first == draw(2, 2) {
		t.Error("seeds and clients do not decide what is drawn")
	}
}

// Without a terminal a line is printed every few seconds, and nothing for a short fill.
func TestProgressIsALineEveryFewSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			out  bytes.Buffer
			done atomic.Int64
		)
		p := startProgress(&out, "server", &done, 1000)
		time.Sleep(3 * time.Second)
		p.end()
		if out.Len() != 0 {
			t.Errorf("a short fill says %q", out.String())
		}
		p = startProgress(&out, "server", &done, 1000)
		done.Store(500)
		time.Sleep(11 * time.Second)
		p.end()
		if want := "server: 500 of 1000 keys, 100/s\nserver: 500 of 1000 keys, 50/s\n"; out.String() != want {
			t.Errorf("%q", out.String())
		}
	})
}
