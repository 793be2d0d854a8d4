package mvcc_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// appended reads what was appended back.
func appended(t testing.TB, wire []byte, got mvcc.Appended, now id.Revision) *command.RangeResponse {
	t.Helper()
	m := new(pb.RangeResponse)
	if err := proto.Unmarshal(wire, m); err != nil {
		t.Fatalf("%x: %v", wire, err)
	}
	out := &command.RangeResponse{Revision: now, More: got.More, Count: got.Count}
	for _, kv := range m.Kvs {
		out.KVs = append(out.KVs, command.KeyValue{
			Key: kv.Key, Value: kv.Value, CreateRevision: id.Revision(kv.CreateRevision), ModRevision: id.Revision(kv.ModRevision),
			Version: kv.Version, Lease: id.Lease(kv.Lease),
		})
	}
	return out
}

// A range that is appended is the range, whatever is asked and at every revision,
// also when what is behind a limit is counted by fences.
func TestAppendedRangesAreTheRange(t *testing.T) {
	for _, leaf := range []int{0, 16} {
		t.Run(fmt.Sprint("leaves of ", leaf), func(t *testing.T) { appendRanges(t, leaf) })
	}
}

// counted is a store that has seen puts, deletions and a compaction, all of its keys
// counted in leaves of so many rows, and the generator that filled it.
func counted(t *testing.T, seed uint64, leaf int) (*store, *model.Generator) {
	k := newStore(t)
	g := &model.Generator{Rand: rand.New(rand.NewPCG(3, seed)), Keys: 40}
	for range 400 {
		_, _ = k.do(g.Put())
		_, _ = k.do(g.DeleteRange())
		_, _ = k.do(g.Put())
	}
	k.must(compact(200))
	k.s.KeepCounts(leaf)
	for worked := true; worked; k.publish() {
		var err error
		if worked, err = k.s.Tally(); err != nil {
			t.Fatal(err)
		}
	}
	return k, g
}

func appendRanges(t *testing.T, leaf int) {
	k, g := counted(t, 10, leaf)
	v := k.view.Load()
	before := []byte("before")
	seen, refusals, cut, counted := 0, 0, 0, 0
	for range 6000 {
		r := g.Range(v.Revision)
		if r.Validate() != nil || !r.KeyOrder() {
			continue
		}
		if g.Rand.Int64N(2) == 0 {
			r.Key, r.End = b("k"), b("l")
		}
		want, refused := v.Range(r)
		dst := append(make([]byte, 0, g.Rand.Int64N(400)+6), before...)
		out, got, err := v.AppendRange(dst, r, mvcc.AppendLimits{})
		if !errors.Is(err, refused) || !bytes.HasPrefix(out, before) {
			t.Fatalf("%s: %v, want %v; before it %q", model.Text(r), err, refused, out[:len(before)])
		}
		if err != nil {
			if refusals++; len(out) != len(before) {
				t.Fatalf("%s: %v, and %q", model.Text(r), err, out)
			}
			continue
		}
		wire := out[len(before):]
		if a, b := model.Text(appended(t, wire, got, v.Revision)), model.Text(want); a != b {
			t.Fatalf("%s:\n%s\n%s", model.Text(r), a, b)
		}
		seen += len(want.KVs)
		if want.Count == 0 {
			continue
		}
		most := mvcc.AppendLimits{Rows: want.Count}
		if out, _, err := v.AppendRange(dst, r, most); err != nil || !bytes.Equal(out[len(before):], wire) {
			t.Fatalf("%s within %+v: %v", model.Text(r), most, err)
		}
		if most.Rows--; most.Rows == 0 {
			continue
		}
		switch out, _, err := v.AppendRange(dst, r, most); {
		case errors.Is(err, mvcc.ErrLonger) && bytes.Equal(out, before):
			cut++
		case err == nil && leaf > 0 && bytes.Equal(out[len(before):], wire):
			counted++
		default:
			t.Fatalf("%s beyond %+v: %v, %q", model.Text(r), most, err, out)
		}
	}
	if seen < 1000 || refusals < 50 || cut < 50 || (counted > 20) != (leaf > 0) {
		t.Fatalf("%d pairs were seen, %d ranges refused, %d cut, %d counted by leaves of %d", seen, refusals, cut, counted, leaf)
	}
}

// Bytes are a limit too, so that a few large values do not hold up a connection.
func TestAppendedBytesAreLimited(t *testing.T) {
	k := newStore(t)
	for i := range 4 {
		k.must(put(fmt.Sprint("k", i), strings.Repeat("v", 1000)))
	}
	v := k.view.Load()
	if _, _, err := v.AppendRange(nil, get("k", "l"), mvcc.AppendLimits{Bytes: 2500}); !errors.Is(err, mvcc.ErrLonger) {
		t.Fatalf("four kilobytes within 2500: %v", err)
	}
	if out, got, err := v.AppendRange(nil, get("k", "l", keysOnly), mvcc.AppendLimits{Bytes: 2500}); err != nil || got.Count != 4 || len(out) > 100 {
		t.Fatalf("the keys alone: %d bytes, %+v, %v", len(out), got, err)
	}
}

func TestAnAppendedRangeNamesDamage(t *testing.T) {
	k := newStore(t)
	k.must(put("a", "1"))
	for _, f := range []failing{{open: true}, {move: true}, {}} {
		f.DB = k.db
		k.use(&f)
		if out, _, err := k.view.Load().AppendRange([]byte("before"), get("a", "b"), mvcc.AppendLimits{}); !errors.Is(err, errDisk) || string(out) != "before" {
			t.Errorf("%+v: %q, %v", f, out, err)
		}
		k.use(f.DB)
	}
}
