package mvcc_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// rowBudget is the smallest cache there can be, and a little more: entries are
// written over all the time.
const rowBudget = 1 << 20

// A cache of rows changes no answer: not of the newest view, not of views that are
// older than what is in it, not when keys are deleted and made again.
func TestCachedRowsAreTheRows(t *testing.T) {
	k := newStore(t)
	k.s.KeepRows(rowBudget)
	k.publish()
	g := &model.Generator{Rand: rand.New(rand.NewPCG(3, 11)), Keys: 12}
	var views []*mvcc.View
	for range 4000 {
		switch g.Rand.Int64N(8) {
		case 0:
			_, _ = k.do(g.Put())
		case 1:
			_, _ = k.do(g.DeleteRange())
		case 2:
			_, _ = k.do(g.Txn(k.view.Load().Revision))
		case 3:
			views = append(views, k.view.Load())
		}
		v := k.view.Load()
		if len(views) > 0 && g.Rand.Int64N(3) == 0 {
			v = views[max(0, len(views)-1-int(g.Rand.Int64N(4)))]
		}
		r := g.Range(v.Revision)
		r.End, r.Revision = nil, 0
		if r.Validate() != nil || !r.KeyOrder() {
			continue
		}
		for range 2 {
			want, refused := v.Range(r)
			out, got, err := v.AppendRange(nil, r, mvcc.AppendLimits{})
			if !errors.Is(err, refused) || err != nil {
				t.Fatalf("%s: %v, want %v", model.Text(r), err, refused)
			}
			if a, b := model.Text(appended(t, out, got, v.Revision)), model.Text(want); a != b {
				t.Fatalf("%s at %d of %d:\n%s\n%s", model.Text(r), v.Revision, k.view.Load().Revision, a, b)
			}
		}
	}
}

// Who reads what was written, finds it, if it had been read before: with another length,
// too, but not when it was deleted, and not when the command that put it deleted it.
func TestCachedRowsAreBroughtUpToDate(t *testing.T) {
	k := newStore(t)
	k.s.KeepRows(rowBudget)
	k.publish()
	read := func(want string) {
		t.Helper()
		v := k.view.Load()
		out, got, err := v.AppendRange(nil, get("k", ""), mvcc.AppendLimits{})
		if err != nil {
			t.Fatal(err)
		}
		kvs := appended(t, out, got, v.Revision).KVs
		if want == "" && len(kvs) == 0 || len(kvs) == 1 && string(kvs[0].Value) == want {
			return
		}
		t.Errorf("%+v, want %q", kvs, want)
	}
	known := func(want bool) {
		t.Helper()
		if k.view.Load().RowKnown("k") != want {
			t.Errorf("known: %v", !want)
		}
	}
	k.must(put("k", "one"))
	known(false)
	read("one")
	for _, value := range []string{"two", "three and longer", "4"} {
		k.must(put("k", value))
		known(true)
		read(value)
	}
	k.must(del("k", ""))
	known(false)
	read("")
	k.must(put("k", "again"))
	read("again")
	inner := &command.TxnRequest{Success: []command.Op{{Delete: del("k", "")}}}
	k.must(&command.TxnRequest{Success: []command.Op{{Put: put("k", "gone")}, {Txn: inner}}})
	known(false)
	read("")
}

// More keys than the cache holds, long and short ones, also some that are too long
// for it.
func TestMoreRowsThanTheCacheHolds(t *testing.T) {
	k := newStore(t)
	k.s.KeepRows(rowBudget)
	k.publish()
	random := rand.New(rand.NewPCG(3, 12))
	value := func(i int) string { return fmt.Sprintf("%0*d", i%7*i%9000, i) }
	const most = 3000
	for i := range most {
		k.must(put(fmt.Sprint("k", i), value(i)))
	}
	v := k.view.Load()
	for range 4 * most {
		i := random.IntN(most)
		out, got, err := v.AppendRange(nil, get(fmt.Sprint("k", i), ""), mvcc.AppendLimits{})
		if err != nil {
			t.Fatal(err)
		}
		if kvs := appended(t, out, got, v.Revision).KVs; len(kvs) != 1 || string(kvs[0].Value) != value(i) {
			t.Fatalf("k%d: %+v, want %s", i, kvs, value(i))
		}
	}
}

// Readers see what was published before they looked, while a writer goes on.
func TestCachedRowsUnderWrites(t *testing.T) {
	k := newStore(t)
	k.s.KeepRows(rowBudget)
	k.publish()
	k.must(put("k", "0"))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			r := &command.RangeRequest{Key: b("k")}
			var last, lastVersion int64
			for {
				select {
				case <-done:
					return
				default:
				}
				v := k.view.Load()
				out, got, err := v.AppendRange(nil, r, mvcc.AppendLimits{})
				if err != nil || got.Count != 1 {
					t.Errorf("%+v, %v", got, err)
					return
				}
				kv := appended(t, out, got, v.Revision).KVs[0]
				// Every revision puts the key: its own is that of the view.
				if int64(kv.ModRevision) != int64(v.Revision) || int64(v.Revision) < last || kv.Version < lastVersion {
					t.Errorf("at %d after %d: %+v", v.Revision, last, kv)
					return
				}
				last, lastVersion = int64(v.Revision), kv.Version
			}
		})
	}
	for i := range 3000 {
		k.must(put("k", fmt.Sprint(i)))
	}
	close(done)
	readers.Wait()
}
