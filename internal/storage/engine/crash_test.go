package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// life is one run of a store whose every state is remembered: states[i] is the
// content after its i-th change. A crash must leave one of them.
type life struct {
	db     engine.DB
	disk   *simenv.Disk
	rand   *simenv.Rand
	states []model
	// durable is the last change that the store said to be durable.
	durable int
}

const changeKey = "change"

// change commits the next state: its number, and some rows.
func (l *life) change() error {
	b := l.db.NewBatch()
	defer b.Close()
	rows := l.states[len(l.states)-1]
	set := func(key, value []byte) {
		b.Set(key, value)
		rows = rows.set(key, value)
	}
	n := len(l.states)
	set(meta(changeKey), fmt.Appendf(nil, "%d", n))
	for range l.rand.Intn(6) {
		key := keys.AppendVersion(nil, 1, fmt.Appendf(nil, "k%d", l.rand.Intn(12)), 1, 0)
		if l.rand.OneIn(4) {
			b.Delete(key)
			rows = rows.remove(key)
		} else {
			set(key, bytes.Repeat([]byte{byte(n)}, l.rand.Intn(600)))
		}
	}
	if err := l.db.Commit(b); err != nil {
		return err
	}
	l.states = append(l.states, rows)
	return nil
}

// install replaces group 2 by rows of this change, the number among them.
func (l *life) install() error {
	lower, upper := keys.AppendGroupStart(nil, 2), keys.AppendGroupEnd(nil, 2)
	rows := l.states[len(l.states)-1]
	for _, r := range rows.within(lower, upper) {
		rows = rows.remove(r.key)
	}
	var fresh model
	for i := range l.rand.Intn(5) {
		r := row{keys.AppendMeta(nil, 2, fmt.Sprint(i, len(l.states))), bytes.Repeat([]byte{byte(i)}, l.rand.Intn(300))}
		fresh = fresh.set(r.key, r.value)
		rows = rows.set(r.key, r.value)
	}
	// A crash in the middle may leave the new state.
	l.states = append(l.states, rows)
	err := install(l.db, lower, upper, func() (key, value []byte, ok bool) {
		if len(fresh) == 0 {
			return nil, nil, false
		}
		r := fresh[0]
		fresh = fresh[1:]
		return r.key, r.value, true
	})
	return err
}

// run lives for some steps, or until the store fails or stop says so.
func (l *life) run(steps int, stop func() bool) error {
	for i := range steps {
		if err := l.step(i); err != nil {
			return err
		}
		l.db.Turn(0)
		if l.rand.OneIn(2) { // syncs begun take their time
			l.disk.CompleteDue(env.Never)
			l.db.Turn(0)
		}
		durable := l.durableChange()
		if stop() {
			return nil
		}
		l.durable = max(l.durable, durable)
	}
	return nil
}

func (l *life) step(i int) error {
	switch n := l.rand.Intn(20); {
	case n < 3:
		return l.db.StartFlush()
	case n == 3:
		return l.install()
	case n == 4:
		cp, err := l.db.Checkpoint(fmt.Sprintf("save-%d", i))
		if err != nil {
			return err
		}
		if err := sameRows(cp, l.states[len(l.states)-1]); err != nil {
			return err
		}
		return cp.Close()
	}
	return l.change()
}

// durableChange says up to which change the store calls itself durable.
func (l *life) durableChange() (n int) {
	value, err := l.db.Durable(meta(changeKey), nil)
	if err == nil {
		fmt.Sscan(string(value), &n)
	}
	return n
}

var errDiffers = errors.New("the content is not what it should be")

// rowsOf reads all that a reader has.
func rowsOf(r engine.Reader) (rows model, err error) {
	it, err := r.Iter(nil, nil)
	if err != nil {
		return nil, err
	}
	for it.Next() {
		value, err := it.Value()
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		rows = append(rows, row{bytes.Clone(it.Key()), bytes.Clone(value)})
	}
	return rows, errors.Join(it.Err(), it.Close())
}

// sameRows compares all that a reader has.
func sameRows(r engine.Reader, want model) error {
	got, err := rowsOf(r)
	if err != nil {
		return err
	}
	return got.differs(want)
}

func (m model) differs(want model) error {
	for i, r := range m {
		if i >= len(want) || !keys.Equal(r.key, want[i].key) || !bytes.Equal(r.value, want[i].value) {
			return fmt.Errorf("%w at %s", errDiffers, keys.Text(r.key))
		}
	}
	if len(m) < len(want) {
		return fmt.Errorf("%w: %s is missing", errDiffers, keys.Text(want[len(m)].key))
	}
	return nil
}

// findState says which state the store is in, at or after the least allowed.
func (l *life) findState(t *testing.T, db engine.DB, least int) int {
	t.Helper()
	rows, err := rowsOf(db)
	must(t, err)
	for n := len(l.states) - 1; n >= least; n-- {
		if rows.differs(l.states[n]) == nil {
			return n
		}
	}
	got, _ := db.Get(meta(changeKey), nil)
	t.Fatalf("after the crash the store says change %s, which is no state from %d (durable) to %d", got, least, len(l.states)-1)
	return 0
}

func newLife(t *testing.T, b body, seed uint64) *life {
	disk := simenv.NewDisk(seed, simenv.DiskOptions{})
	l := &life{disk: disk, rand: simenv.NewRand(seed, "life"), states: []model{nil}}
	var err error
	if l.db, err = b.open(disk.Mount(), "data/store"); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestPowerLossLeavesAPrefix crashes at every change of the disk that a life
// makes (every 29th with -short), in both ways, and once more right after
// the restart. Pebble's lives differ from run to run, so there a change of the
// disk is only about the same one each time.
func TestPowerLossLeavesAPrefix(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		whole := newLife(t, b, 1)
		steps := lifeSteps(b)
		must(t, whole.run(steps, func() bool { return false }))
		total := whole.disk.Ops()
		must(t, whole.db.Close())
		stride := uint64(1)
		if testing.Short() {
			stride = 29
		}
		lost, tried := 0, 0
		for at := uint64(1); at <= total; at += stride {
			for _, kind := range []simenv.Crash{simenv.PowerCrash, simenv.ProcessCrash} {
				tried++
				lost += crashAt(t, b, at, kind)
			}
		}
		t.Logf("%d crashes in a life of %d operations lost %d changes", tried, total, lost)
		if lost == 0 {
			t.Errorf("%d crashes lost nothing at all: they cannot have been real", tried)
		}
	})
}

// lifeSteps is long enough for the memory body to replace its file.
func lifeSteps(b body) int {
	if b.name == "pebble" {
		return 60
	}
	return 600
}

// crashAt lives until the at-th change of the disk and looks at what a crash
// there leaves. It returns how many changes that cost.
func crashAt(t *testing.T, b body, at uint64, kind simenv.Crash) (lost int) {
	t.Helper()
	// The disk begins before the store is made, so that making it is crashed too.
	disk := simenv.NewDisk(1, simenv.DiskOptions{})
	clone := disk.CrashCloneAt(at, kind, fmt.Sprint(at))
	l := &life{disk: disk, rand: simenv.NewRand(1, "life"), states: []model{nil}}
	var err error
	if l.db, err = b.open(disk.Mount(), "data/store"); err != nil {
		t.Fatal(err)
	}
	must(t, l.run(lifeSteps(b), func() bool { return clone() != nil }))
	made := len(l.states) - 1
	must(t, l.db.Close())
	crashed := clone()
	if crashed == nil {
		return 0 // Pebble came by with fewer changes this time
	}
	db := reopen(t, b, crashed.Mount(), at, kind)
	n := l.findState(t, db, l.durable)
	// What the restarted store calls durable must survive the next power loss
	// (rule 4), although a killed process may have left it unsynced.
	l.db = db
	durable := max(l.durable, l.durableChange())
	again := crashed.CrashClone(simenv.PowerCrash, "again")
	must(t, db.Close())
	db = reopen(t, b, again.Mount(), at, kind)
	l.findState(t, db, durable)
	must(t, db.Close())
	return made - n
}

func reopen(t *testing.T, b body, fs env.FS, at uint64, kind simenv.Crash) engine.DB {
	t.Helper()
	names, err := fs.List("")
	must(t, err)
	for _, name := range names {
		if strings.HasPrefix(name, "save-") {
			must(t, fs.RemoveAll(name))
		}
	}
	db, err := b.open(fs, "data/store")
	if err != nil {
		t.Fatalf("after a %v at operation %d: %v", kind, at, err)
	}
	return db
}

// TestManyLivesInARow crashes a store again and again, so that what one recovery
// leaves is what the next one finds.
func TestManyLivesInARow(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 5
	}
	eachBody(t, func(t *testing.T, b body) {
		for seed := range seeds {
			disk := simenv.NewDisk(seed, simenv.DiskOptions{})
			l := &life{disk: disk, rand: simenv.NewRand(seed, "lives"), states: []model{nil}}
			for range 6 {
				clone := l.disk.CrashCloneAt(1+uint64(l.rand.Intn(250)), simenv.Crash(l.rand.Intn(2)), "life")
				l.db = reopen(t, b, l.disk.Mount(), 0, simenv.PowerCrash)
				n := l.findState(t, l.db, l.durable)
				l.states = l.states[:n+1]
				if clone() == nil { // else the clone is of a moment in the restart
					l.durable = n
				}
				must(t, l.run(80, func() bool { return clone() != nil }))
				must(t, l.db.Close())
				if clone() != nil {
					l.disk = clone()
				} else {
					l.durable = len(l.states) - 1
				}
			}
		}
	})
}
