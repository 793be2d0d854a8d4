package simenv_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"testing"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
)

// must ends the test on an error of the story's stage setting.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put makes a file with a content, unsynced.
func put(t *testing.T, fs env.FS, name string, content []byte) env.File {
	t.Helper()
	f := must[env.File](t)(fs.Create(name, env.Other))
	must[int](t)(f.Write(content))
	return f
}

func syncDir(t *testing.T, fs env.FS, name string) {
	t.Helper()
	dir := must[env.File](t)(fs.OpenDir(name))
	ok(t, dir.Sync())
	ok(t, dir.Close())
}

// content reads a whole file; ok is false if there is none.
func content(t *testing.T, fsys env.FS, name string) (data []byte, there bool) {
	t.Helper()
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false
	}
	ok(t, err)
	data, err = io.ReadAll(f)
	ok(t, err)
	ok(t, f.Close())
	return data, true
}

// seeds runs a story under many seeds.
func seeds(t *testing.T, n int, story func(t *testing.T, seed uint64)) {
	for seed := range uint64(n) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { story(t, seed) })
	}
}

func TestProcessCrashKeepsBytesButNotTheirDurability(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		run := d.Mount()
		f := put(t, run, "log", []byte("promise"))
		d.Crash(simenv.ProcessCrash)

		if _, err := f.Write([]byte("x")); !errors.Is(err, simenv.ErrCrashed) {
			t.Fatalf("a handle of the dead run wrote: %v", err)
		}
		if _, err := run.Open("log"); !errors.Is(err, simenv.ErrCrashed) {
			t.Fatalf("the dead run opened a file: %v", err)
		}
		if data, there := content(t, d.Mount(), "log"); !there || string(data) != "promise" {
			t.Fatalf("kill -9 lost written bytes: %q, %v", data, there)
		}
		d.Crash(simenv.PowerCrash)
		if data, _ := content(t, d.Mount(), "log"); string(data) != "promise" {
			lost++
		}
	}
	if lost == 0 || lost == 50 {
		t.Fatalf("unsynced bytes that a run merely read again were lost in %d of 50 power losses", lost)
	}
}

func TestSyncedSurvivesPowerLoss(t *testing.T) {
	seeds(t, 50, func(t *testing.T, seed uint64) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{ReorderDirOps: seed%2 == 0})
		run := d.Mount()
		ok(t, run.MkdirAll("a/b", 0o755))
		f := put(t, run, "/a/b/log", bytes.Repeat([]byte("kvorum"), 3000))
		ok(t, f.SyncData())
		syncDir(t, run, "a/b")
		syncDir(t, run, "a/")
		syncDir(t, run, "/")
		must[int](t)(f.Write([]byte("and more")))
		d.Crash(simenv.PowerCrash)
		data, there := content(t, d.Mount(), "a/b/log")
		if want := bytes.Repeat([]byte("kvorum"), 3000); !there || !bytes.HasPrefix(data, want) {
			t.Fatalf("a synced file came back with %d bytes", len(data))
		}
	})
}

func TestFileSyncDoesNotKeepItsName(t *testing.T) {
	gone := 0
	for seed := range uint64(40) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		ok(t, put(t, d.Mount(), "log", []byte("x")).Sync())
		d.Crash(simenv.PowerCrash)
		if _, there := content(t, d.Mount(), "log"); !there {
			gone++
		}
	}
	if gone == 0 || gone == 40 {
		t.Fatalf("the name was lost %d times in 40", gone)
	}
}

// Every power loss leaves each 4 KiB block old, new or torn at a sector; all of
// these must be seen, and nothing else.
func TestUnsyncedBlocksAreKeptLostOrTorn(t *testing.T) {
	const blocks = 16
	old, new := bytes.Repeat([]byte{'o'}, 512), bytes.Repeat([]byte{'n'}, 512)
	kept, lost, torn, mixedFile := 0, 0, 0, 0
	for seed := range uint64(60) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		run := d.Mount()
		f := put(t, run, "f", bytes.Repeat(old, 8*blocks))
		ok(t, f.Sync())
		syncDir(t, run, "")
		must[int](t)(f.WriteAt(bytes.Repeat(new, 8*blocks), 0))
		d.Crash(simenv.PowerCrash)
		data, _ := content(t, d.Mount(), "f")
		if len(data) != blocks*4096 {
			t.Fatalf("the synced size changed to %d", len(data))
		}
		wholeNew := 0
		for block := range slices.Chunk(data, 4096) {
			newSectors := 0
			for sector := range slices.Chunk(block, 512) {
				switch {
				case bytes.Equal(sector, new):
					newSectors++
				case !bytes.Equal(sector, old):
					t.Fatal("a sector was torn")
				}
			}
			switch newSectors {
			case 0:
				lost++
			case 8:
				kept++
				wholeNew++
			default:
				torn++
			}
		}
		if wholeNew > 0 && wholeNew < blocks {
			mixedFile++
		}
	}
	if kept == 0 || lost == 0 || torn == 0 || mixedFile == 0 {
		t.Fatalf("kept %d, lost %d, torn %d blocks, %d mixed files: some outcome was never seen", kept, lost, torn, mixedFile)
	}
}

func TestWholeBlocksNeverTear(t *testing.T) {
	for seed := range uint64(40) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{WholeBlocks: true})
		run := d.Mount()
		f := put(t, run, "f", bytes.Repeat([]byte{1}, 8*4096))
		ok(t, f.Sync())
		syncDir(t, run, "")
		must[int](t)(f.WriteAt(bytes.Repeat([]byte{2}, 8*4096), 0))
		d.Crash(simenv.PowerCrash)
		data, _ := content(t, d.Mount(), "f")
		for block := range slices.Chunk(data, 4096) {
			if bytes.Count(block, block[:1]) != len(block) {
				t.Fatal("a block was torn")
			}
		}
	}
}

// A growing file may come back shorter, or as long as it was with zeros where
// the blocks did not make it.
func TestUnsyncedGrowth(t *testing.T) {
	shorter, between, holes := 0, 0, 0
	for seed := range uint64(80) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		run := d.Mount()
		f := put(t, run, "f", []byte("head"))
		ok(t, f.Sync())
		syncDir(t, run, "")
		for range 3 {
			must[int](t)(f.Write(bytes.Repeat([]byte{'x'}, 4096)))
		}
		d.Crash(simenv.PowerCrash)
		data, _ := content(t, d.Mount(), "f")
		if !bytes.HasPrefix(data, []byte("head")) {
			t.Fatalf("the synced head became %q", data[:4])
		}
		if bytes.Trim(data[4:], "x\x00") != nil && len(bytes.Trim(data[4:], "x\x00")) > 0 {
			t.Fatal("bytes that nobody wrote")
		}
		switch n := len(data); {
		case n == 4:
			shorter++
		case n == 4+4096 || n == 4+2*4096:
			between++
		case n != 4+3*4096:
			t.Fatalf("%d bytes is no size that the file ever had", n)
		}
		if bytes.IndexByte(data, 0) >= 0 {
			holes++
		}
	}
	if shorter == 0 || between == 0 || holes == 0 {
		t.Fatalf("shorter %d, between %d, holes %d: some outcome was never seen", shorter, between, holes)
	}
}

func TestStartSyncCoversWhatCameBefore(t *testing.T) {
	afterLost := 0
	for seed := range uint64(60) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		run := d.Mount()
		f := must[env.File](t)(run.Create("log", env.WAL))
		syncDir(t, run, "")
		must[int](t)(f.WriteAt(bytes.Repeat([]byte{1}, 512), 0))
		var reports []error
		env.StartSync(f, false, func(err error) { reports = append(reports, err) })
		// The next frame shares the block with the first.
		must[int](t)(f.WriteAt(bytes.Repeat([]byte{2}, 512), 512))
		env.StartSync(f, false, func(err error) { reports = append(reports, err) })
		must[int](t)(f.WriteAt(bytes.Repeat([]byte{3}, 512), 1024))

		if d.PendingSyncs() != 2 || len(reports) != 0 {
			t.Fatalf("%d syncs under way, %d reported", d.PendingSyncs(), len(reports))
		}
		d.CompleteSync(0)
		if len(reports) != 1 || reports[0] != nil {
			t.Fatalf("reports after the first sync: %v", reports)
		}
		d.Crash(simenv.PowerCrash)
		if d.PendingSyncs() != 0 || len(reports) != 1 {
			t.Fatal("a sync under way was reported to the dead")
		}
		data, _ := content(t, d.Mount(), "log")
		if len(data) < 512 || bytes.Count(data[:512], []byte{1}) != 512 {
			t.Fatalf("what the completed sync covered is lost: %d bytes", len(data))
		}
		if len(data) < 1024 || data[512] != 2 {
			afterLost++
		}
	}
	if afterLost == 0 {
		t.Fatal("a write after StartSync was always durable with it")
	}
}

func TestWritesAfterStartSyncAreNotCovered(t *testing.T) {
	lost := 0
	for seed := range uint64(40) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		run := d.Mount()
		f := put(t, run, "log", bytes.Repeat([]byte{1}, 2*4096))
		syncDir(t, run, "")
		env.StartSync(f, false, func(err error) { ok(t, err) })
		must[int](t)(f.WriteAt(bytes.Repeat([]byte{2}, 4096), 4096))
		d.CompleteSync(0)
		d.Crash(simenv.PowerCrash)
		data, _ := content(t, d.Mount(), "log")
		if len(data) != 2*4096 || data[0] != 1 || data[4096] == 0 {
			t.Fatalf("what the sync covered is lost: %d bytes", len(data))
		}
		if data[4096] == 1 {
			lost++
		}
	}
	if lost == 0 {
		t.Fatal("a write after StartSync was always durable with it")
	}
}

func TestSyncsCompleteOutOfOrder(t *testing.T) {
	d := simenv.NewDisk(1, simenv.DiskOptions{})
	run := d.Mount()
	f := must[env.File](t)(run.Create("log", env.WAL))
	syncDir(t, run, "")
	var order []int
	for i := range 3 {
		must[int](t)(f.Write(bytes.Repeat([]byte{byte(i + 1)}, 4096)))
		env.StartSync(f, false, func(err error) { ok(t, err); order = append(order, i) })
	}
	d.CompleteSync(2)
	crashed := d.CrashClone(simenv.PowerCrash, "after the last")
	if data, _ := content(t, crashed.Mount(), "log"); len(data) != 3*4096 {
		t.Fatalf("the last sync left %d bytes durable", len(data))
	}
	if n := d.CompleteDue(0); n != 0 && len(order) == 1 {
		t.Fatal("a sync was counted but not reported")
	}
	d.CompleteDue(env.Never)
	if len(order) != 3 || order[0] != 2 {
		t.Fatalf("reported in the order %v", order)
	}
}

func TestRenameIsAtomic(t *testing.T) {
	for _, reorder := range []bool{false, true} {
		was, is := 0, 0
		for seed := range uint64(60) {
			d := simenv.NewDisk(seed, simenv.DiskOptions{ReorderDirOps: reorder})
			run := d.Mount()
			ok(t, run.MkdirAll("from", 0o755))
			ok(t, run.MkdirAll("to", 0o755))
			ok(t, put(t, run, "from/x", []byte("x")).Sync())
			for _, dir := range []string{"from", "to", ""} {
				syncDir(t, run, dir)
			}
			put(t, run, "to/before", nil)
			ok(t, run.Rename("from/x", "to/y"))
			d.Crash(simenv.PowerCrash)
			next := d.Mount()
			_, old := content(t, next, "from/x")
			data, renamed := content(t, next, "to/y")
			_, before := content(t, next, "to/before")
			switch {
			case old == renamed:
				t.Fatalf("after the rename: old name %v, new name %v", old, renamed)
			case renamed && string(data) != "x":
				t.Fatalf("the rename changed the content to %q", data)
			case renamed && !before && !reorder:
				t.Fatal("the rename is there, but not what was done to its directory before")
			case renamed:
				is++
			default:
				was++
			}
		}
		if was == 0 || is == 0 {
			t.Fatalf("reorder %v: lost %d, kept %d renames", reorder, was, is)
		}
	}
}

func TestSyncingOneEndOfARenameKeepsBoth(t *testing.T) {
	for _, synced := range []string{"from", "to"} {
		seeds(t, 20, func(t *testing.T, seed uint64) {
			d := simenv.NewDisk(seed, simenv.DiskOptions{})
			run := d.Mount()
			ok(t, run.MkdirAll("from", 0o755))
			ok(t, run.MkdirAll("to", 0o755))
			put(t, run, "from/x", nil)
			for _, dir := range []string{"from", ""} {
				syncDir(t, run, dir)
			}
			ok(t, run.Rename("from/x", "to/x"))
			syncDir(t, run, synced)
			d.Crash(simenv.PowerCrash)
			if files := d.Files(); !slices.Equal(files, []string{"to/x"}) {
				t.Fatalf("files %v", files)
			}
		})
	}
}

func TestHolesReadAsZeros(t *testing.T) {
	f := put(t, simenv.NewDisk(1, simenv.DiskOptions{}).Mount(), "f", make([]byte, 2*4096))
	must[int](t)(f.WriteAt([]byte{1}, 5*4096+10))
	p := bytes.Repeat([]byte{0xff}, 5*4096+11)
	must[int](t)(f.ReadAt(p, 0))
	if i := bytes.IndexFunc(p[:5*4096+10], func(r rune) bool { return r != 0 }); i >= 0 || p[5*4096+10] != 1 {
		t.Fatalf("byte %d of a hole is not zero", i)
	}
}

func TestRemovedFileMayComeBack(t *testing.T) {
	back := 0
	for seed := range uint64(40) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		run := d.Mount()
		ok(t, put(t, run, "f", []byte("synced")).Sync())
		syncDir(t, run, "")
		ok(t, run.Remove("f"))
		if d.Used() != 0 {
			t.Fatalf("a removed file takes %d bytes", d.Used())
		}
		d.Crash(simenv.PowerCrash)
		if data, there := content(t, d.Mount(), "f"); there {
			back++
			if string(data) != "synced" || d.Used() != 4096 {
				t.Fatalf("it came back with %q, taking %d bytes", data, d.Used())
			}
		}
	}
	if back == 0 || back == 40 {
		t.Fatalf("it came back %d times in 40", back)
	}
}

func TestLocksEndWithTheRun(t *testing.T) {
	d := simenv.NewDisk(1, simenv.DiskOptions{})
	first := d.Mount()
	held := must[io.Closer](t)(first.Lock("LOCK"))
	if _, err := d.Mount().Lock("/LOCK"); !errors.Is(err, env.ErrLocked) {
		t.Fatalf("a second process took the lock: %v", err)
	}
	ok(t, held.Close())
	must[io.Closer](t)(first.Lock("LOCK"))
	d.Crash(simenv.ProcessCrash)
	must[io.Closer](t)(d.Mount().Lock("LOCK"))
}

func TestNames(t *testing.T) {
	run := simenv.NewDisk(1, simenv.DiskOptions{}).Mount()
	ok(t, run.MkdirAll("d/e", 0o755))
	for _, name := range []string{"d/z", "d/a", "d/m"} {
		ok(t, put(t, run, name, []byte(name)).Close())
	}
	if names := must[[]string](t)(run.List("d")); !slices.Equal(names, []string{"a", "e", "m", "z"}) {
		t.Fatalf("listed %v", names)
	}
	for what, test := range map[string]struct{ err, want error }{
		"create without a directory": {second(run.Create("no/f", env.Other)), fs.ErrNotExist},
		"open what is not there":     {second(run.Open("d/no")), fs.ErrNotExist},
		"remove what is not there":   {run.Remove("d/no"), fs.ErrNotExist},
		"remove a full directory":    {run.Remove("d"), syscall.ENOTEMPTY},
		"create over a directory":    {second(run.Create("d/e", env.Other)), syscall.EISDIR},
		"link over a file":           {run.Link("d/a", "d/m"), fs.ErrExist},
		"rename what is not there":   {run.Rename("d/no", "d/x"), fs.ErrNotExist},
		"rename file over directory": {run.Rename("d/a", "d/e"), syscall.EISDIR},
		"rename below itself":        {run.Rename("d", "d/e/f"), fs.ErrInvalid},
		"make a directory of a file": {run.MkdirAll("d/a/b", 0o755), syscall.ENOTDIR},
		"list a file":                {second(run.List("d/a")), syscall.ENOTDIR},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v", what, test.err)
		}
	}
	ok(t, run.Link("d/a", "d/b"))
	ok(t, run.Rename("d/a", "d/z"))
	if data, _ := content(t, run, "d/z"); string(data) != "d/a" {
		t.Fatalf("after the rename: %q", data)
	}
	reused := must[env.File](t)(run.ReuseForWrite("d/m", "d/n", env.WAL))
	must[int](t)(reused.Write([]byte("D")))
	if data, _ := content(t, run, "d/n"); string(data) != "D/m" {
		t.Fatalf("a reused file reads %q", data)
	}
	if info := must[interface{ Size() int64 }](t)(run.Stat("d/b")); info.Size() != 3 {
		t.Fatalf("size %d", info.Size())
	}
	ok(t, run.RemoveAll("d"))
	ok(t, run.RemoveAll("d"))
	if names := must[[]string](t)(run.List("")); len(names) != 0 {
		t.Fatalf("after RemoveAll: %v", names)
	}
}

func second[T any](_ T, err error) error { return err }
