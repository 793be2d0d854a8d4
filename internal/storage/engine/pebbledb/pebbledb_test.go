package pebbledb

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// The conformance, crash, damage and failure tests of both bodies are in
// internal/storage/engine; here are those of what is Pebble's alone.

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func meta(name string) []byte { return keys.AppendMeta(nil, 1, name) }

func open(t testing.TB, fs vfs.FS) *DB {
	t.Helper()
	db, err := Open(Options{FS: fs, Dir: "store", MemtableBytes: 1 << 20, CacheBytes: 1 << 20,
		Misuse: func(text string) { t.Error("misuse of Pebble:", text) }})
	must(t, err)
	return db
}

func put(t testing.TB, db *DB, name string, value []byte) {
	t.Helper()
	b := db.NewBatch()
	defer b.Close()
	b.Set(meta(name), value)
	must(t, db.Commit(b))
}

// Who looks for one row after the other among many that were deleted does not walk over
// those between them: leases that end together leave one beside each that is left.
func TestDeletedRowsBehindABoundAreNotWalkedOver(t *testing.T) {
	const rows = 2000
	db := open(t, vfs.NewMem())
	defer func() { must(t, db.Close()) }()
	name := func(i int) []byte { return meta(fmt.Sprintf("%05d", i)) }
	b := db.NewBatch()
	for i := range rows {
		b.Set(name(i), nil)
	}
	must(t, db.Commit(b))
	b.Reset()
	for i := 1; i < rows; i++ {
		b.Delete(name(i))
	}
	must(t, db.Commit(b))
	b.Close()
	walked := func(look func(it *iterator)) int {
		opened, err := db.Iter(nil, nil)
		must(t, err)
		it := opened.(*iterator)
		look(it)
		stats := it.it.Stats()
		must(t, it.Close())
		return stats.ForwardStepCount[pebble.InternalIterCall]
	}
	if n := walked(func(it *iterator) { it.SeekGE(name(0)); it.Next() }); n < rows {
		t.Errorf("without a bound %d steps: this test shows nothing", n)
	}
	n := walked(func(it *iterator) {
		for _, i := range []int{0, rows / 2, rows - 1} {
			it.Bound(name(i), name(i+1))
			if found := it.SeekGE(name(i)); found != (i == 0) || found && it.Next() {
				t.Errorf("row %d: found %v", i, found)
			}
		}
	})
	if n > 20 {
		t.Errorf("%d steps to one row, and to two that are gone", n)
	}
}

// TestComparerIsLawful is rule 19: Pebble's own check, over generated keys of all
// kinds and over what the bounds are made of.
// Rows of the history come in the order of their keys: in tables of their own they lie
// beside those that are there, and no compaction merges them anew.
func TestTheHistoryHasTablesOfItsOwn(t *testing.T) {
	db := open(t, vfs.NewMem())
	defer func() { must(t, db.Close()) }()
	draw := rand.New(rand.NewPCG(1, 2))
	b := db.NewBatch()
	defer b.Close()
	const flushes = 12
	for rev := id.Revision(2); rev < flushes*100; rev++ {
		for group := id.Group(1); group <= 2; group++ {
			user := fmt.Appendf(nil, "key-%d", draw.IntN(1000))
			b.Set(keys.AppendVersion(nil, group, user, rev, 0), user)
			b.Set(keys.AppendHistory(nil, group, rev, 0), user)
			b.Set(keys.AppendMeta(nil, group, "applied"), user)
		}
		must(t, db.Commit(b))
		if rev%100 == 99 {
			must(t, db.flushNow())
		}
	}
	must(t, db.p.Compact(t.Context(), keys.AppendGroupStart(nil, 1), keys.AppendGroupEnd(nil, 2), false))
	levels, err := db.p.SSTables()
	must(t, err)
	histories := map[id.Group]int{}
	for _, tables := range levels {
		for _, table := range tables {
			low, high := table.Smallest.UserKey, table.Largest.UserKey
			group, _ := keys.GroupOf(low)
			if other, _ := keys.GroupOf(high); other != group {
				t.Errorf("table %d has %s and %s", table.FileNum, keys.Text(low), keys.Text(high))
			}
			switch first, last := keys.KindOf(low), keys.KindOf(high); {
			case first == keys.History && last == keys.History:
				histories[group]++
			case first == keys.History || last == keys.History:
				t.Errorf("table %d has %s and %s", table.FileNum, keys.Text(low), keys.Text(high))
			}
		}
	}
	if histories[1] == 0 || histories[2] == 0 {
		t.Errorf("tables of the history, by group: %v", histories)
	}
}

func TestComparerIsLawful(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		var prefixes, suffixes [][]byte
		for range 5 {
			user := make([]byte, r.IntN(6))
			for i := range user {
				user[i] = []byte{0, 1, 13, 'a', 0xfe, 0xff}[r.IntN(6)]
			}
			group := id.Group(r.Uint32N(3))
			main, sub := id.Revision(r.Uint64()>>1), r.Uint32()
			version := keys.AppendVersion(nil, group, user, main, sub)
			suffixes = append(suffixes, version[keys.Split(version):])
			prefixes = append(prefixes, [][]byte{
				version[:keys.Split(version)],
				keys.AppendAfterUserKey(nil, group, user),
				keys.AppendHistory(nil, group, main, sub),
				keys.AppendMeta(nil, group, string(user)),
				keys.AppendDataEnd(nil, group),
				keys.AppendHistoryEnd(nil, group),
				keys.AppendGroupStart(nil, group),
				keys.AppendGroupEnd(nil, group),
			}[r.IntN(8)])
		}
		must(t, pebble.CheckComparer(comparer, prefixes, suffixes))
	}
	if comparer.Name != "kvorum.v1" {
		t.Errorf("the comparer's name is in every store and cannot become %q", comparer.Name)
	}
	if comparer.ValidateKey([]byte("raw")) == nil {
		t.Error("Pebble takes bytes for a key that are none")
	}
	if got := fmt.Sprint(comparer.FormatKey(meta("applied"))); got != "1/m/applied" {
		t.Errorf("Pebble prints a key as %s", got)
	}
}

// TestManifestDamageThatPebbleOverlooks is why MANIFESTs have marks. A bit flips
// in the last edit, the one that says that the last flush is done. Pebble takes
// it for an edit that a crash cut short, opens the store without the flush, and
// deletes its table. We refuse, and say where.
func TestManifestDamageThatPebbleOverlooks(t *testing.T) {
	disk := simenv.NewDisk(1, simenv.DiskOptions{})
	fs := disk.Mount()
	db := &DB{opts: Options{FS: fs, Dir: "store"}.withDefaults(), disk: newDisk(fs, nil, nil)}
	o := db.pebbleOptions()
	o.DisableAutomaticCompactions = true // they append edits when they like
	var err error
	must(t, engine.MakeDir(fs, "store"))
	db.p, err = db.openIn("store", o)
	must(t, err)
	put(t, db, "a", []byte("flushed"))
	must(t, db.flushNow())
	crashed := disk.CrashClone(simenv.PowerCrash, "clean")
	must(t, db.Close())
	desc, err := pebble.Peek("store", crashed.Mount())
	must(t, err)
	info, err := crashed.Mount().Stat(desc.ManifestFilename)
	must(t, err)
	must(t, crashed.Flip(desc.ManifestFilename, info.Size()-3, 0))

	stock := crashed.CrashClone(simenv.ProcessCrash, "stock")
	p, err := pebble.Open("store", &pebble.Options{FS: stock.Mount(), Comparer: comparer, FormatMajorVersion: format, Logger: logger{db}})
	must(t, err)
	if _, _, err := p.Get(meta("a")); !errors.Is(err, pebble.ErrNotFound) {
		t.Fatalf("Pebble no longer overlooks it (%v): the mark may go", err)
	}
	must(t, p.Close())

	_, err = Open(Options{FS: crashed.Mount(), Dir: "store"})
	var damage *engine.CorruptionError
	if !errors.As(err, &damage) || path.Base(damage.File) != path.Base(desc.ManifestFilename) || damage.Offset <= 0 {
		t.Errorf("a damaged MANIFEST: %v", err)
	}
}

// TestCheckpointAfterRestartIsNotEmpty is a trap of Pebble's: before the first
// edit after a restart it copies none of the MANIFEST.
func TestCheckpointAfterRestartIsNotEmpty(t *testing.T) {
	fs := vfs.NewMem()
	db := open(t, fs)
	put(t, db, "a", []byte("1"))
	must(t, db.Close())
	db = open(t, fs)
	cp, err := db.Checkpoint("copy")
	must(t, err)
	if value, err := cp.Get(meta("a"), nil); err != nil || string(value) != "1" {
		t.Errorf("the checkpoint has a=%s (%v)", value, err)
	}
	must(t, cp.Close())
	if _, err := fs.Stat("copy"); err == nil {
		t.Error("the checkpoint's directory is still there")
	}
	must(t, db.Close())
}

// TestInstallOfManyTables gives an installation more rows than fit one table.
func TestInstallOfManyTables(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 80 MB")
	}
	db := open(t, vfs.NewMem())
	put(t, db, "old", []byte("row"))
	value, n, total := make([]byte, 1<<16), 0, 80<<20>>16
	noise := rand.New(rand.NewPCG(1, 2))
	in := db.Prepare(keys.AppendGroupStart(nil, 1), keys.AppendGroupEnd(nil, 1))
	for n = 1; n <= total; n++ {
		for i := range value {
			value[i] = byte(noise.Uint32())
		}
		must(t, in.Add(meta(fmt.Sprintf("%06d", n)), value))
	}
	must(t, in.Seal())
	must(t, in.Commit())
	must(t, in.Close())
	if tables := db.p.Metrics().Total().TablesCount; tables < 3 {
		t.Errorf("80 MB went into %d tables", tables)
	}
	it, err := db.Iter(nil, nil)
	must(t, err)
	for n = 0; it.Next(); n++ {
	}
	if n != total {
		t.Errorf("%d rows, want %d", n, total)
	}
	must(t, it.Close())
	must(t, db.Close())
}

// slowDisk holds every flush until it is let go.
type slowDisk struct {
	vfs.FS
	gate chan struct{}
}

func (d *slowDisk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasSuffix(name, ".sst") {
		<-d.gate
	}
	return d.FS.Create(name, category)
}

func (d *slowDisk) Unwrap() vfs.FS { return d.FS }

// TestCommitWaitsForASlowDiskNotForADeadOne: while a flush does not get on,
// commits fill the memtables and then wait; they go on when it is done, and end
// with an error when the disk fails instead.
func TestCommitWaitsForASlowDiskNotForADeadOne(t *testing.T) {
	for _, dead := range []bool{false, true} {
		slow := &slowDisk{FS: vfs.NewMem(), gate: make(chan struct{})}
		waits := 0
		var db *DB
		db, err := Open(Options{FS: slow, Dir: "store", MemtableBytes: 1 << 20, Trouble: func(text string) {
			if !strings.Contains(text, "a commit waits") {
				return
			}
			waits++
			if waits > 1 {
				return
			}
			if got := db.Metrics(); got.MemtableBytes > 4<<20 || got.StallBytes == 0 {
				t.Errorf("a commit waits at %+v", got)
			}
			if dead {
				_ = db.disk.fail(errors.New("the cable is out"))
			}
			close(slow.gate)
		}})
		must(t, err)
		value := make([]byte, 32<<10)
		var end error
		for i := 0; i < 400 && end == nil; i++ {
			b := db.NewBatch()
			b.Set(meta(fmt.Sprint(i)), value)
			end = db.Commit(b)
			b.Close()
		}
		if waits == 0 {
			t.Error("12 MB went into two memtables of 1 MB")
		}
		if dead != errors.Is(end, engine.ErrFailed) {
			t.Errorf("dead disk %v: commits end with %v", dead, end)
		}
		if err := db.Close(); dead != errors.Is(err, engine.ErrFailed) {
			t.Errorf("dead disk %v: Close says %v", dead, err)
		}
	}
}

// TestCommitsDoNotWaitForFlushesThatNobodyMakes: after a start Pebble's memtables
// are small, many of them wait until together they are worth a flush, and a
// commit must not wait for one then.
func TestCommitsDoNotWaitForFlushesThatNobodyMakes(t *testing.T) {
	db, err := Open(Options{FS: vfs.NewMem(), Dir: "store", Trouble: func(text string) { t.Error(text) }})
	must(t, err)
	for i := range (12 << 20) / (64 << 10) {
		put(t, db, fmt.Sprint(i), make([]byte, 64<<10))
	}
	must(t, db.Close())
}

// TestFatalIsHeard: Pebble's last words become a violation, unless they are
// about a disk that has failed, which commits tell.
func TestFatalIsHeard(t *testing.T) {
	var heard []string
	db := &DB{opts: Options{Trouble: func(text string) { heard = append(heard, text) }}.withDefaults(), disk: newDisk(vfs.NewMem(), nil, nil)}
	l := logger{db}
	l.Infof("nothing %d", 1)
	l.Errorf("trouble %d", 2)
	func() {
		defer func() {
			if v, ok := recover().(invariant.Violation); !ok || !strings.Contains(v.Message, "fatal 3") {
				t.Errorf("Fatalf ends in %v", v)
			}
		}()
		l.Fatalf("fatal %d", 3)
	}()
	_ = db.disk.fail(errors.New("no"))
	l.Fatalf("fatal %d", 4)
	if got := strings.Join(heard, ", "); got != "trouble 2, fatal 3, fatal 4" {
		t.Errorf("heard: %s", got)
	}
	db.listener().PossibleAPIMisuse(pebble.PossibleAPIMisuseInfo{})
	db.listener().DataCorruption(pebble.DataCorruptionInfo{Path: "x", Details: errors.New("y")})
}

// TestDamageIsNamed gives the errors of Pebble's that carry a file in their text
// only.
func TestDamageIsNamed(t *testing.T) {
	db := &DB{opts: Options{FS: vfs.NewMem(), Dir: "store"}.withDefaults()}
	for text, want := range map[string]string{
		"pebble: corrupt wal 000012.log (offset 7)":   "store/000012.log",
		"malformed manifest file \"MANIFEST-000003\"": "store/MANIFEST-000003",
		"L6: 000075: object size mismatch":            "store/000075.sst",
		"no name at all":                              "store",
	} {
		if got := db.fileOf(errors.New(text)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	err := errors.New("of another kind")
	if db.named(err) != err || db.named(nil) != nil {
		t.Error("an error that is no damage is changed")
	}
	var damage *engine.CorruptionError
	if !errors.As(db.named(fmt.Errorf("x: %w", pebble.ErrCorruption)), &damage) || damage.File != "store" {
		t.Error("damage is not named")
	}
	if again := db.named(damage); again != damage {
		t.Error("named damage is named again")
	}
}

// TestBackgroundDamageFailsTheStore: a compaction that meets damage cannot go on,
// and nobody reads by it.
func TestBackgroundDamageFailsTheStore(t *testing.T) {
	disk := simenv.NewDisk(1, simenv.DiskOptions{})
	db := open(t, disk.Mount())
	put(t, db, "a", make([]byte, 100))
	must(t, db.flushNow())
	db.listener().BackgroundError(fmt.Errorf("in 000004.sst: %w", pebble.ErrCorruption))
	b := db.NewBatch()
	b.Set(meta("b"), nil)
	err := db.Commit(b)
	var damage *engine.CorruptionError
	if !errors.Is(err, engine.ErrFailed) || !errors.As(err, &damage) || damage.File != "store/000004.sst" {
		t.Errorf("after damage met in the background a commit says %v", err)
	}
	_ = db.Close()
}
