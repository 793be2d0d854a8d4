package mvcc_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

func TestTheExampleOfThePackageComment(t *testing.T) {
	k := newStore(t)
	k.must(put("a", "1"))
	k.must(put("a", "2"))
	k.must(txn(del("a", "\x00"), put("b", "")))
	rows := func() []string { return slices.Concat(k.rows(keys.Data), k.rows(keys.History)) }
	want := func(what string, rows, want []string) {
		t.Helper()
		if !reflect.DeepEqual(rows, want) {
			t.Fatalf("%s:\ngot  %q\nwant %q", what, rows, want)
		}
	}
	want("before", rows(), []string{`1/d/"a"@4.0`, `1/d/"a"@3.0`, `1/d/"a"@2.0`, `1/d/"b"@4.1`, `1/r/2.0`, `1/r/3.0`, `1/r/4.0`, `1/r/4.1`})
	k.must(compact(4))
	want("compacted, nothing removed", rows(), []string{`1/d/"a"@4.0`, `1/d/"a"@3.0`, `1/d/"a"@2.0`, `1/d/"b"@4.1`, `1/r/2.0`, `1/r/3.0`, `1/r/4.0`, `1/r/4.1`})
	for k.remove() {
	}
	want("removed to 4", rows(), []string{`1/d/"a"@4.0`, `1/d/"b"@4.1`, `1/r/4.0`, `1/r/4.1`})
	k.must(put("c", ""))
	k.must(compact(5))
	for k.remove() {
	}
	want("removed to 5", rows(), []string{`1/d/"b"@4.1`, `1/d/"c"@5.0`, `1/r/5.0`})
	if st := k.s.State(); st.Bytes() != 2*257 {
		t.Errorf("holds %d bytes by rule 17, want %d: %+v", st.Bytes(), 2*257, st)
	}
}

// checkRows compares what is stored with what the oracle says must be.
func checkRows(t testing.TB, k *store, oracle *model.Store) {
	t.Helper()
	var want []string
	var bytes int64
	for _, v := range oracle.Versions() {
		want = append(want, fmt.Sprintf("%q@%d %v", v.Key, v.ModRevision, v.Deleted))
		bytes += command.VersionCost(len(v.Key), len(v.Value))
	}
	var got []string
	k.versions(func(key []byte, main id.Revision, dead bool) {
		got = append(got, fmt.Sprintf("%q@%d %v", key, main, dead))
	})
	slices.Sort(got)
	slices.Sort(want)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("compacted to %d, stored\n%q\nwant\n%q", oracle.Compacted(), got, want)
	}
	if got := k.s.State().Bytes(); got != bytes {
		t.Fatalf("%d bytes by rule 17, want %d", got, bytes)
	}
	for _, row := range k.rows(keys.History) {
		var main, sub int
		if _, err := fmt.Sscanf(row, "1/r/%d.%d", &main, &sub); err != nil || id.Revision(main) < oracle.Compacted() {
			t.Fatalf("change %s is still there after compaction to %d", row, oracle.Compacted())
		}
	}
}

func (k *store) versions(show func(key []byte, main id.Revision, dead bool)) {
	k.t.Helper()
	it, err := k.db.Iter(keys.AppendUserKey(nil, group, nil), keys.AppendDataEnd(nil, group))
	if err != nil {
		k.t.Fatal(err)
	}
	defer it.Close()
	for it.Next() {
		_, user, main, _, ok := keys.DecodeVersion(it.Key())
		row, err := it.Value()
		if !ok || err != nil {
			k.t.Fatal(keys.Text(it.Key()), err)
		}
		show(user, main, row[0] == 1)
	}
}

// Random histories with compactions and crashes: what stays stored is exactly
// what the oracle keeps, and every read that is allowed gives what it gave.
func TestRemovalKeepsExactlyWhatMustStay(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 15
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(uint64(seed), 2))
			gen := &model.Generator{Rand: rnd, Keys: 6}
			k, oracle := newStore(t), model.New()
			// since are the commands that a power loss may take back, for replay.
			var since []any
			for range 80 {
				for range 1 + rnd.IntN(12) {
					request := gen.Request(oracle.Revision())
					if _, read := request.(*command.RangeRequest); read || model.Validate(request) != nil {
						continue
					}
					got, gotErr := k.do(request)
					want, err := oracle.Apply(request)
					if model.Text(got) != model.Text(want) || !errors.Is(gotErr, err) {
						t.Fatalf("%s\ngot  %s %v\nwant %s %v", model.Text(request), model.Text(got), gotErr, model.Text(want), err)
					}
					since = append(since, request)
				}
				switch rnd.IntN(6) {
				case 0:
					k.flush()
					since = nil
				case 1:
					k.remove()
				case 2:
					k.crash(simenv.PowerCrash)
					replay(t, k, oracle, since)
				case 3:
					for k.remove() {
					}
					checkRows(t, k, oracle)
				}
				for range 4 {
					q := gen.Range(oracle.Revision())
					if q.Validate() != nil {
						continue
					}
					got, gotErr := k.do(q)
					want, err := untyped(oracle.Range(q))
					if model.Text(got) != model.Text(want) || !errors.Is(gotErr, err) {
						t.Fatalf("%s\ngot  %s %v\nwant %s %v", model.Text(q), model.Text(got), gotErr, model.Text(want), err)
					}
				}
			}
		})
	}
}

// replay applies what a power loss took back: everything since the last flush,
// for this engine flushes only when it is told to.
func replay(t testing.TB, k *store, oracle *model.Store, since []any) {
	t.Helper()
	for _, request := range since {
		k.do(request) // some were refused then, and are again
	}
	if st := k.s.State(); st.Revision != oracle.Revision() || st.Compacted != oracle.Compacted() {
		t.Fatalf("at %+v after replay, want revision %d, compacted %d", st, oracle.Revision(), oracle.Compacted())
	}
}

// A long history is removed slice by slice; a crash after any slice, with or
// without what was flushed before, loses no version that must stay, and the
// removal goes on where it was.
func TestCrashInTheMiddleOfRemoval(t *testing.T) {
	const versions = 1800 // several slices
	for crashAfter := range 5 {
		for _, kind := range []simenv.Crash{simenv.PowerCrash, simenv.ProcessCrash} {
			k := newStore(t)
			k.begin()
			for i := range versions {
				k.must(put(fmt.Sprintf("k%d", i%7), fmt.Sprint(i)))
			}
			k.must(del("k3", ""))
			k.must(put("end", "here"))
			k.commit()
			k.must(compact(versions))
			k.flush()
			all := len(k.rows(keys.Data))
			for range crashAfter {
				if !k.remove() {
					t.Fatal("too few slices")
				}
			}
			if crashAfter%2 == 1 {
				k.flush()
			}
			k.crash(kind)
			if left := len(k.rows(keys.Data)); crashAfter%2 == 1 && left >= all || crashAfter == 0 && left != all {
				t.Fatalf("%d of %d versions after the crash", left, all)
			}
			k.check(t, versions)
			k.must(compact(versions + 2)) // while the former is under way
			for k.remove() {
				k.check(t, versions+2)
			}
			left := slices.Concat(k.rows(keys.Data), k.rows(keys.History))
			if want := []string{
				`1/d/"end"@1803.0`, `1/d/"k0"@1801.0`, `1/d/"k1"@1795.0`, `1/d/"k2"@1796.0`, `1/d/"k3"@1802.0`,
				`1/d/"k4"@1798.0`, `1/d/"k5"@1799.0`, `1/d/"k6"@1800.0`, `1/r/1802.0`, `1/r/1803.0`,
			}; !reflect.DeepEqual(left, want) {
				t.Fatalf("left\n%q\nwant\n%q", left, want)
			}
		}
	}
}

// check reads all keys as of a revision.
func (k *store) check(t testing.TB, rev id.Revision) {
	t.Helper()
	resp := k.must(get("\x00", "\x00", at(rev))).(*command.RangeResponse)
	for _, kv := range resp.KVs {
		if kv.ModRevision > rev {
			t.Fatalf("%q is of revision %d, read at %d", kv.Key, kv.ModRevision, rev)
		}
	}
	if resp.Count < 6 {
		t.Fatalf("only %d keys at %d", resp.Count, rev)
	}
}

// A reader that holds an old view while compaction passes it gets either all of
// its revision or the refusal, never a part.
func TestReadersAgainstCompaction(t *testing.T) {
	k := newStore(t)
	const width, rounds = 60, 150
	keyOf := func(i int) string { return fmt.Sprintf("k%03d", i) }
	write := func(round int) {
		k.begin()
		defer k.commit()
		var ops []any
		for i := range width {
			ops = append(ops, put(keyOf(i), fmt.Sprint(round)))
		}
		k.must(txn(ops...))
	}
	write(0)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	reads, refusals := make([]int, 3), make([]int, 3)
	for n := range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v := k.view.Load()
				for range 3 {
					resp, err := v.Range(get("\x00", "\x00", at(v.Revision)))
					if errors.Is(err, command.ErrCompacted) {
						refusals[n]++
						continue
					}
					if err != nil || len(resp.KVs) != width {
						t.Errorf("%d keys at %d: %v", len(resp.KVs), v.Revision, err)
						return
					}
					for _, kv := range resp.KVs {
						if string(kv.Value) != string(resp.KVs[0].Value) {
							t.Errorf("%q and %q in one revision", kv.Value, resp.KVs[0].Value)
							return
						}
					}
					reads[n]++
				}
			}
		})
	}
	for round := 1; round < rounds; round++ {
		write(round)
		k.must(compact(k.s.State().Revision))
		for k.remove() {
		}
	}
	close(stop)
	readers.Wait()
	if reads[0]+reads[1]+reads[2] == 0 {
		t.Fatal("nothing was read")
	}
	t.Logf("%v reads, %v refusals", reads, refusals)
}
