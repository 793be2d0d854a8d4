package mvcc_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// hashOf is the hash as spec 6.2 tells it: one pass over every version in the
// order of revisions.
func hashOf(t *testing.T, oracle *model.Store, rev id.Revision) uint32 {
	t.Helper()
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	h.Write([]byte("key"))
	all, compacted := oracle.At(oracle.Revision()).Versions(), oracle.Compacted()
	sub, last := uint64(0), id.Revision(0)
	for i, v := range all {
		if sub++; v.ModRevision != last {
			sub, last = 0, v.ModRevision
		}
		superseded := slices.ContainsFunc(all[i+1:], func(later model.Version) bool {
			return bytes.Equal(later.Key, v.Key) && later.ModRevision <= compacted
		})
		if v.ModRevision > rev || v.ModRevision <= compacted && (superseded || v.Deleted) {
			continue
		}
		key := binary.BigEndian.AppendUint64(nil, uint64(v.ModRevision))
		key = binary.BigEndian.AppendUint64(append(key, '_'), sub)
		kv := mvccpb.KeyValue{Key: v.Key}
		if v.Deleted {
			key = append(key, 't')
		} else {
			kv.Value, kv.Lease, kv.Version = v.Value, int64(v.Lease), v.Version
			kv.CreateRevision, kv.ModRevision = int64(v.CreateRevision), int64(v.ModRevision)
		}
		row, err := proto.Marshal(&kv)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(key)
		h.Write(row)
	}
	return h.Sum32()
}

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
		want := mvcc.KVHash{Sum: hashOf(t, oracle, rev), At: rev, Compacted: oracle.Compacted(), Now: oracle.Revision()}
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
	if h, err := v.HashKV(0); err != nil || h.At != 2 || h.Compacted != -1 {
		t.Errorf("at 0: %+v, %v", h, err)
	}
	if h, err := v.HashKV(-1); err != nil || h.Sum != crc32.Checksum([]byte("key"), crc32.MakeTable(crc32.Castagnoli)) {
		t.Errorf("at -1: %+v, %v", h, err)
	}
	if _, err := v.HashKV(3); !errors.Is(err, command.ErrFutureRevision) {
		t.Errorf("at 3: %v", err)
	}
	k.must(put("a", "2"))
	k.must(compact(3))
	if _, err := v.HashKV(2); !errors.Is(err, command.ErrCompacted) {
		t.Errorf("on a view that a compaction has overtaken: %v", err)
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
	want := hashOf(t, oracle, oracle.Revision())
	for _, atOnce := range []int{1, 7, 100, 200, 1000} {
		if got, err := k.view.Load().HashKVIn(0, atOnce); err != nil || got.Sum != want {
			t.Errorf("%d at once: %+v, %v, want %08x", atOnce, got, err, want)
		}
	}
}
