package mvcc_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// counting counts what readers do to the engine, and can strike between.
type counting struct {
	engine.DB
	opened int
	strike func(opened int)
}

func (c *counting) Iter(low, high []byte) (engine.Iterator, error) {
	it, err := c.DB.Iter(low, high)
	c.opened++
	if c.strike != nil {
		c.strike(c.opened)
	}
	return it, err
}

// Three megabytes in one range: no iterator is held over more than one.
func TestLongWalksAreCutIntoSlices(t *testing.T) {
	k := newStore(t)
	c := &counting{DB: k.db}
	k.use(c)
	value := strings.Repeat("v", 10_000)
	for i := range 300 {
		k.must(put(fmt.Sprintf("k%04d", i), value))
	}
	v := k.view.Load()
	c.opened = 0
	// Writes between the slices are not seen: the revision stays.
	c.strike = func(opened int) {
		if c.strike = nil; opened == 1 {
			k.must(put("k0299", "new"))
			k.must(put("k0298\x00", "new"))
			k.must(del("k0297", ""))
		}
	}
	resp, err := v.Range(get("\x00", "\x00"))
	if err != nil || resp.Count != 300 || resp.Revision != 301 {
		t.Fatalf("%d keys at %d: %v", resp.Count, resp.Revision, err)
	}
	for i, kv := range resp.KVs {
		if string(kv.Key) != fmt.Sprintf("k%04d", i) || string(kv.Value) != value {
			t.Fatalf("row %d is %q", i, kv.Key)
		}
	}
	if c.opened-3 < 3 { // three were opened by the writes
		t.Errorf("only %d iterators for 3 MB", c.opened)
	}
}

// A compaction that passes the view between two slices of one read ends it.
func TestCompactionBetweenSlices(t *testing.T) {
	k := newStore(t)
	c := &counting{DB: k.db}
	k.use(c)
	for i := range 300 {
		k.must(put(fmt.Sprintf("k%04d", i), strings.Repeat("v", 10_000)))
	}
	v := k.view.Load()
	c.opened = 0
	c.strike = func(opened int) {
		if opened == 2 {
			c.strike = nil
			k.must(put("k0000", ""))
			k.must(compact(302))
			for k.remove() {
			}
		}
	}
	if resp, err := v.Range(get("\x00", "\x00", at(301))); !errors.Is(err, command.ErrCompacted) {
		t.Fatalf("%v, %v", resp, err)
	}
	// Compaction to exactly the revision does not end it.
	v = k.view.Load()
	c.opened = 0
	c.strike = func(opened int) {
		if opened == 2 {
			c.strike = nil
			k.must(put("k0001", ""))
		}
	}
	if resp, err := v.Range(get("\x00", "\x00")); err != nil || resp.Count != 300 {
		t.Fatal(err)
	}
}

// Keys with many versions, many of them too new, and runs of deleted keys are
// passed by seeking; the answer is the same.
func TestManyVersionsAreSkipped(t *testing.T) {
	k, oracle := newStore(t), model.New()
	for round := range 12 {
		for i := range 10 {
			q := put(fmt.Sprintf("k%d", i), fmt.Sprint(round))
			k.must(q)
			oracle.Apply(q)
		}
		q := del(fmt.Sprintf("k%d", round%10), "")
		k.must(q)
		oracle.Apply(q)
	}
	for rev := range id.Revision(136) {
		q := get("k", "l", at(rev))
		got, err := k.do(q)
		want, wantErr := untyped(oracle.Range(q))
		if model.Text(got) != model.Text(want) || !errors.Is(err, wantErr) {
			t.Fatalf("at %d\ngot  %s %v\nwant %s %v", rev, model.Text(got), err, model.Text(want), wantErr)
		}
	}
}

func TestReadOnlyTxnsOfAView(t *testing.T) {
	k := newStore(t)
	k.must(put("a", "1"))
	k.must(put("a", "2"))
	k.must(compact(2))
	v := k.view.Load()
	k.must(put("a", "3"))
	for _, c := range []struct {
		txn  *command.TxnRequest
		want string
	}{
		{txn(get("a", ""), get("a", "", at(2)), get("b", "")), `txn@3 true {range@3 count=1 more=false ["a"="2"(c2 m3 v2)]; range@3 count=1 more=false ["a"="1"(c2 m2 v1)]; range@3 count=0 more=false []}`},
		{when(cmpValue("a", "", command.Equal, "3")), `txn@3 false {range@3 count=0 more=false []; range@3 count=0 more=false []}`},
		{txn(get("a", ""), get("a", "", at(4))), "error " + future},
		{txn(get("a", ""), get("a", "", at(1))), "error " + compacted},
		{txn(get("a", "", at(-1))), "error " + compacted},
		{txn(), `txn@3 true {}`},
	} {
		if !c.txn.ReadOnly() {
			t.Fatalf("%s is not read-only", model.Text(c.txn))
		}
		resp, err := untyped(v.Txn(c.txn))
		got := model.Text(resp)
		if err != nil {
			got = model.Text(err)
		}
		if got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", model.Text(c.txn), got, c.want)
		}
	}
}

func TestReadsOfAReplacedStateAreEnded(t *testing.T) {
	k := newStore(t)
	k.must(put("a", "1"))
	loads := uint64(0)
	v := k.s.View(0, func() mvcc.Horizon { return mvcc.Horizon{Compacted: -1, Loads: loads} })
	if _, err := v.Range(get("a", "")); err != nil {
		t.Fatal(err)
	}
	loads++
	if _, err := v.Range(get("a", "")); !errors.Is(err, mvcc.ErrReplaced) {
		t.Fatalf("%v", err)
	}
	if _, err := v.Txn(txn(get("a", ""))); !errors.Is(err, mvcc.ErrReplaced) {
		t.Fatalf("%v", err)
	}
}

// However many readers there are, the applier gets its iterators.
func TestReadersLeaveIteratorsForTheApplier(t *testing.T) {
	k := newStore(t)
	c := &counting{DB: k.db}
	k.use(c)
	k.must(put("a", "1"))
	// Each read starts another one before it ends, until one is refused.
	depth := 0
	read := func() error {
		_, err := k.view.Load().Range(get("a", ""))
		return err
	}
	var refused error
	c.strike = func(int) {
		if depth++; refused == nil && depth < 2000 {
			if err := read(); err != nil {
				refused = err
				c.strike = nil
				k.must(put("a", "2"))
			}
		}
	}
	if err := read(); err != nil || !errors.Is(refused, engine.ErrIterators) {
		t.Fatalf("%v; refused with %v after %d", err, refused, depth)
	}
	if err := read(); err != nil {
		t.Fatalf("afterwards: %v", err)
	}
}

// The hash sees every difference that a reader could see, and no other.
func TestHashIsThatOfTheLogicalState(t *testing.T) {
	hash := func(k *store) string {
		h := sha256.New()
		if err := k.s.Hash(h); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", h.Sum(nil))
	}
	k := newStore(t)
	seen := []string{hash(k)}
	for _, request := range []any{
		put("a", "1"), put("a", "1"), put("b", "2"), txn(put("c", "3"), put("d", "4")), del("a", ""), compact(3),
		txn(del("b", "\x00"), put("b", "5")), put("e", ""), compact(6), compact(7), compact(8),
	} {
		k.must(request)
		now := hash(k)
		if slices.Contains(seen, now) {
			t.Fatalf("%s: the same hash as before", model.Text(request))
		}
		for k.remove() {
			if hash(k) != now {
				t.Fatalf("%s: removal changes the hash", model.Text(request))
			}
		}
		seen = append(seen, now)
	}
}

// damage overwrites a row.
func (k *store) damage(key, value []byte) {
	k.t.Helper()
	batch := k.db.NewBatch()
	batch.Set(key, value)
	if err := k.db.Commit(batch); err != nil {
		k.t.Fatal(err)
	}
}

// Every kind of row, damaged in every byte: what is read is an error or the
// truth, and every command that meets it fails as damage.
func TestDamagedRowsAreNamedAndNeverServed(t *testing.T) {
	k := newStore(t)
	k.must(put("a", "1"))
	k.must(put("b", "2"))
	var named *mvcc.DamageError
	key := keys.AppendVersion(nil, group, b("a"), 2, 0)
	good, err := k.db.Get(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good[:len(good)-1] { // the last byte is the value itself: the engine's sums guard it
		bad := slices.Clone(good)
		bad[i] ^= 0x81
		k.damage(key, bad)
		for _, request := range []any{get("a", ""), get("a", "\x00"), put("a", "x"), del("a", ""), del("a", "\x00"), txn(get("a", "")), when(cmpValue("a", "c", command.Equal, "9"))} {
			resp, err := k.do(request)
			if errors.As(err, &named) {
				if !strings.Contains(err.Error(), `"a"@2.0`) {
					t.Fatalf("byte %d, %s: %v", i, model.Text(request), err)
				}
				k.use(k.db) // a store that met damage is not used again
				continue
			}
			t.Fatalf("byte %d, %s: %s, %v", i, model.Text(request), model.Text(resp), err)
		}
		if err := k.s.Hash(sha256.New()); !errors.As(err, &named) {
			t.Fatalf("byte %d: hash: %v", i, err)
		}
	}
	k.damage(key, good)
	k.damage(keys.AppendHistory(nil, group, 2, 0), []byte{9, 'a'})
	k.must(compact(3))
	if err := k.s.Remove(k.batch, false); !errors.As(err, &named) || !strings.Contains(err.Error(), "2.0") {
		t.Fatalf("removal over a damaged change: %v", err)
	}
	for _, name := range []string{"mvcc", "removal"} {
		k := newStore(t)
		k.must(put("a", "1"))
		for _, bad := range [][]byte{{}, {1}, {2, 0, 0, 0, 0, 0}, {1, 0x80, 0, 0, 0, 0}, slices.Repeat([]byte{1}, 30)} {
			k.damage(keys.AppendMeta(nil, group, name), bad)
			if _, err := mvcc.Open(group, k.db); !errors.As(err, &named) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s %x: %v", name, bad, err)
			}
		}
	}
}

var errDisk = errors.New("the disk says no")

// failing gives iterators whose values and moves fail.
type failing struct {
	engine.DB
	open, move bool
}

func (f *failing) Iter(low, high []byte) (engine.Iterator, error) {
	if f.open {
		return nil, errDisk
	}
	it, err := f.DB.Iter(low, high)
	return &failingIterator{it, f.move}, err
}

type failingIterator struct {
	engine.Iterator
	move bool
}

func (f *failingIterator) SeekGE(key []byte) bool { return !f.move && f.Iterator.SeekGE(key) }
func (f *failingIterator) Valid() bool            { return !f.move && f.Iterator.Valid() }
func (f *failingIterator) Value() ([]byte, error) { return nil, errDisk }
func (f *failingIterator) Err() error             { return errDisk }

func TestErrorsOfTheEngineReachTheCaller(t *testing.T) {
	for _, f := range []failing{{open: true}, {move: true}, {}} {
		k := newStore(t)
		k.must(put("a", "1"))
		k.must(put("a", "2"))
		f.DB = k.db
		k.use(&f)
		for _, request := range []any{get("a", ""), get("a", "b"), put("a", "3"), put("a", "", ignoreValue), del("a", ""), del("a", "b"), txn(put("a", "")), when(cmpValue("a", "", command.Equal, "2"))} {
			if resp, err := k.do(request); !errors.Is(err, errDisk) {
				t.Errorf("%+v: %s: %s, %v", f, model.Text(request), model.Text(resp), err)
			}
			k.use(&f)
		}
		k.must(compact(3))
		if err := k.s.Remove(k.batch, false); !errors.Is(err, errDisk) {
			t.Errorf("%+v: removal: %v", f, err)
		}
		if err := k.s.Hash(sha256.New()); !errors.Is(err, errDisk) {
			t.Errorf("%+v: hash: %v", f, err)
		}
	}
}
