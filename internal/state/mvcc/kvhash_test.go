package mvcc_test

import (
	"bytes"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

func TestHashKVIsThatOfEtcd(t *testing.T) {
	k, oracle := newStore(t), model.New()
	g := &model.Generator{Rand: rand.New(rand.NewPCG(7, 7))}
	compared := 0
	for i := range 1500 {
		request := g.Request(oracle.Revision())
		if i%100 == 50 { // else most compactions are near the end
			request = compact(oracle.Revision() - 20)
		}
		if model.Validate(request) != nil {
			continue
		}
		_, refused := oracle.Apply(request)
		if _, err := k.do(request); !errors.Is(err, refused) {
			t.Fatalf("%s: %v, want %v", model.Text(request), err, refused)
		}
		if i%3 == 0 {
			k.remove()
		}
		rev := max(oracle.Revision()-id.Revision(g.Rand.Int64N(8)), 1)
		got, err := k.view.Load().HashKVIn(rev, 1+int(g.Rand.Int64N(300)))
		switch {
		case rev < oracle.Compacted():
			if !errors.Is(err, command.ErrCompacted) {
				t.Fatalf("at %d, compacted at %d: %v", rev, oracle.Compacted(), err)
			}
			continue
		case err != nil:
			t.Fatal(err)
		}
		want := mvcc.KVHash{Sum: oracle.HashKV(rev, oracle.Compacted()), At: rev, Compacted: oracle.Compacted(), Now: oracle.Revision()}
		if got != want {
			t.Fatalf("after %d requests: %+v, want %+v", i, got, want)
		}
		compared++
	}
	if compared < 1000 || oracle.Compacted() < 100 {
		t.Fatalf("%d hashes were compared, compacted at %d", compared, oracle.Compacted())
	}
}

func TestHashKVAtTheEdges(t *testing.T) {
	k := newStore(t)
	k.must(put("a", "1"))
	v := k.view.Load()
	if h, err := v.HashKV(0, mvcc.GoOn); err != nil || h.At != 2 || h.Compacted != -1 {
		t.Errorf("at 0: %+v, %v", h, err)
	}
	if h, err := v.HashKV(-1, mvcc.GoOn); err != nil || h.Sum != crc32.Checksum([]byte("key"), crc32.MakeTable(crc32.Castagnoli)) {
		t.Errorf("at -1: %+v, %v", h, err)
	}
	if _, err := v.HashKV(3, mvcc.GoOn); !errors.Is(err, command.ErrFutureRevision) {
		t.Errorf("at 3: %v", err)
	}
	k.must(put("a", "2"))
	k.must(compact(3))
	if _, err := v.HashKV(2, mvcc.GoOn); !errors.Is(err, command.ErrCompacted) {
		t.Errorf("on a view that a compaction has overtaken: %v", err)
	}
}

// A walk that nobody waits for any more ends, with what it was told.
func TestHashKVIsGivenUp(t *testing.T) {
	k := newStore(t)
	for range 100 {
		k.must(put("a", string(make([]byte, 50<<10))))
	}
	enough, asked := errors.New("enough"), 0
	_, err := k.view.Load().HashKV(0, func() error {
		if asked++; asked == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || asked != 3 {
		t.Errorf("%v after %d questions", err, asked)
	}
}

// A store of many slices, walked many times.
func TestHashKVOfManySlices(t *testing.T) {
	k, oracle := newStore(t), model.New()
	value := string(bytes.Repeat([]byte("v"), 40<<10))
	for i := range 200 {
		request := put(string(rune('a'+i*7%20)), value[i:])
		k.must(request)
		if _, err := oracle.Apply(request); err != nil {
			t.Fatal(err)
		}
	}
	want := oracle.HashKV(oracle.Revision(), oracle.Compacted())
	for _, atOnce := range []int{1, 7, 100, 200, 1000} {
		if got, err := k.view.Load().HashKVIn(0, atOnce); err != nil || got.Sum != want {
			t.Errorf("%d at once: %+v, %v, want %08x", atOnce, got, err, want)
		}
	}
}
