package simenv_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/bits"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
)

func TestTheNthWriteOfAKindOfFileFails(t *testing.T) {
	d := simenv.NewDisk(1, simenv.DiskOptions{})
	run := d.Mount()
	log, table := put(t, run, "1.log", nil), put(t, run, "1.sst", nil)
	fault := simenv.EIO(simenv.OpWrite)
	fault.Match = func(path string) bool { return strings.HasSuffix(path, ".log") }
	fault.Nth = 3
	d.Inject(fault)

	frame := bytes.Repeat([]byte("f"), 5000)
	for i := range 5 {
		n, err := log.Write(frame)
		if fails := i == 2; fails != errors.Is(err, syscall.EIO) || !fails && n != len(frame) {
			t.Fatalf("write %d of the log: %d bytes, %v", i+1, n, err)
		}
		must[int](t)(table.Write(frame))
	}
	// What the failed write left behind is a part of it, and it said how much.
	if info := must[interface{ Size() int64 }](t)(log.Stat()); info.Size() < 4*5000 || info.Size() > 5*5000 {
		t.Fatalf("the log has %d bytes", info.Size())
	}
}

func TestFaultsByChanceAndForSomeTime(t *testing.T) {
	d := simenv.NewDisk(1, simenv.DiskOptions{})
	f := put(t, d.Mount(), "f", []byte("content"))
	failed := 0
	count := func() {
		for range 1000 {
			if _, err := f.ReadAt(make([]byte, 7), 0); errors.Is(err, syscall.EIO) {
				failed++
			} else {
				ok(t, err)
			}
		}
	}
	remove := d.Inject(simenv.Fault{Ops: simenv.OpRead, OneIn: 10, Err: syscall.EIO})
	count()
	if failed < 50 || failed > 150 {
		t.Fatalf("%d of 1000 reads failed, of one in 10", failed)
	}
	remove()
	failed = 0
	d.Inject(simenv.Fault{Ops: simenv.OpRead, Times: 3, Err: syscall.EIO})
	count()
	if failed != 3 {
		t.Fatalf("%d reads failed of 3", failed)
	}
	d.Inject(simenv.EIO(simenv.OpAny))
	d.ClearFaults()
	count()
	if failed != 3 {
		t.Fatal("a cleared fault struck")
	}
}

// A failed sync leaves every block in doubt; a later one makes up for it unless
// the kernel has forgotten which blocks were dirty.
func TestFailedSyncLeavesTheDataInDoubt(t *testing.T) {
	const blocks = 8
	survivors := func(forgets, again bool) (all, some int) {
		for seed := range uint64(60) {
			d := simenv.NewDisk(seed, simenv.DiskOptions{FailedSyncCleans: forgets, WholeBlocks: true})
			run := d.Mount()
			f := put(t, run, "f", make([]byte, blocks*4096))
			ok(t, f.Sync())
			syncDir(t, run, "")
			must[int](t)(f.WriteAt(bytes.Repeat([]byte{'x'}, blocks*4096), 0))
			d.Inject(simenv.Fault{Ops: simenv.OpSync, Nth: 1, Err: syscall.EIO})
			if err := f.SyncData(); !errors.Is(err, syscall.EIO) {
				t.Fatalf("the sync ended with %v", err)
			}
			if again {
				ok(t, f.SyncData())
			}
			d.Crash(simenv.PowerCrash)
			data, _ := content(t, d.Mount(), "f")
			switch bytes.Count(data, []byte("x")) {
			case blocks * 4096:
				all++
			case 0:
			default:
				some++
			}
		}
		return all, some
	}
	if all, some := survivors(false, false); all == 60 || some == 0 {
		t.Fatalf("after a failed sync, everything was there %d times, a part %d times", all, some)
	}
	if all, _ := survivors(false, true); all != 60 {
		t.Fatalf("a good sync after a failed one kept everything %d times of 60", all)
	}
	if all, some := survivors(true, true); all == 60 || some == 0 {
		t.Fatalf("with a forgetful kernel everything was there %d times, a part %d times", all, some)
	}
}

func TestAStartedSyncFailsWhenItCompletes(t *testing.T) {
	d := simenv.NewDisk(1, simenv.DiskOptions{})
	f := put(t, d.Mount(), "f", []byte("x"))
	var reported error
	env.StartSync(f, false, func(err error) { reported = err })
	d.Inject(simenv.EIO(simenv.OpSync))
	d.CompleteSync(0)
	if !errors.Is(reported, syscall.EIO) {
		t.Fatalf("reported %v", reported)
	}
}

func TestFullDisk(t *testing.T) {
	d := simenv.NewDisk(1, simenv.DiskOptions{Capacity: 10 * 4096})
	run := d.Mount()
	f := put(t, run, "log", make([]byte, 4096))
	spare := put(t, run, "spare", nil)
	ok(t, spare.Preallocate(0, 4*4096))
	if err := spare.Preallocate(0, 40*4096); !errors.Is(err, syscall.ENOSPC) || d.Used() != 5*4096 {
		t.Fatalf("reserving too much: %v, %d bytes used", err, d.Used())
	}

	n, err := f.Write(bytes.Repeat([]byte("x"), 6*4096))
	if n != 5*4096 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("writing over the end: %d bytes, %v", n, err)
	}
	if n, err := f.Write([]byte("x")); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("writing to a full disk: %d bytes, %v", n, err)
	}
	if info := must[interface{ Size() int64 }](t)(f.Stat()); info.Size() != 6*4096 {
		t.Fatalf("the log has %d bytes", info.Size())
	}
	must[int](t)(f.WriteAt([]byte("over"), 0))      // nothing new is taken
	must[int](t)(spare.Write(make([]byte, 4*4096))) // reserved before
	usage, err := run.GetDiskUsage("")
	if err != nil || usage.AvailBytes != 0 || usage.TotalBytes != 10*4096 {
		t.Fatalf("usage %+v, %v", usage, err)
	}

	ok(t, run.Remove("spare"))
	must[int](t)(f.Write(make([]byte, 4*4096)))
	d.SetCapacity(0)
	must[int](t)(f.Write(make([]byte, 400*4096)))
	if want := int64(410 * 4096); d.Used() != want {
		t.Fatalf("used %d of %d", d.Used(), want)
	}
}

func TestFlippedBit(t *testing.T) {
	d := simenv.NewDisk(1, simenv.DiskOptions{})
	run := d.Mount()
	was := bytes.Repeat([]byte{0x55}, 10_000)
	f := put(t, run, "f", was)
	ok(t, f.Sync())
	syncDir(t, run, "")
	ok(t, d.Flip("/f", 5000, 7))
	offset, bit, err := d.FlipRandom("f", 8192, 10_000)
	ok(t, err)
	was[5000] ^= 0x80
	was[offset] ^= 1 << bit
	if data, _ := content(t, run, "f"); !bytes.Equal(data, was) {
		t.Fatal("the file differs by more or less than the flipped bits")
	}
	d.Crash(simenv.PowerCrash)
	if data, _ := content(t, d.Mount(), "f"); !bytes.Equal(data, was) {
		t.Fatal("a power loss healed the bits")
	}
	if err := d.Flip("no", 0, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("flipped a bit of nothing: %v", err)
	}
}

func TestAReadLiesOnce(t *testing.T) {
	d := simenv.NewDisk(1, simenv.DiskOptions{})
	f := put(t, d.Mount(), "f", make([]byte, 4096))
	d.Inject(simenv.Fault{Ops: simenv.OpRead, Nth: 2, FlipBit: true})
	for i, want := range []int{0, 1, 0} {
		p := make([]byte, 4096)
		must[int](t)(f.ReadAt(p, 0))
		wrong := 0
		for _, b := range p {
			wrong += bits.OnesCount8(b)
		}
		if wrong != want {
			t.Fatalf("read %d had %d wrong bits", i+1, wrong)
		}
	}
}

func TestStallKeepsTheMachineBusy(t *testing.T) {
	w := simenv.New(1, simenv.Options{})
	m := w.Machine("a")
	run := m.Start().World().FS
	w.AdvanceTo(env.Instant(time.Second))
	m.Disk().Inject(simenv.Fault{Ops: simenv.OpSync, Nth: 1, Stall: 300 * time.Millisecond})
	f := put(t, run, "f", []byte("x"))
	if m.BusyUntil() > w.Now() {
		t.Fatal("a write stalled")
	}
	ok(t, f.Sync())
	if m.BusyUntil() != env.Instant(1300*time.Millisecond) {
		t.Fatalf("busy until %d", m.BusyUntil())
	}
}

// Visiting every crash point of a small job: a file is written beside and then
// renamed. Whatever the moment, one whole version is there.
func TestEveryCrashPointOfAnAtomicReplace(t *testing.T) {
	replace := func(run env.FS) error {
		f, err := run.Create("new", env.Other)
		if err != nil {
			return err
		}
		if _, err := f.Write([]byte("second")); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if err := run.Rename("new", "f"); err != nil {
			return err
		}
		dir, err := run.OpenDir("")
		if err != nil {
			return err
		}
		return dir.Sync()
	}
	for _, kind := range []simenv.Crash{simenv.ProcessCrash, simenv.PowerCrash} {
		seen := map[string]int{}
		for seed := range uint64(20) {
			for point := uint64(1); ; point++ {
				d := simenv.NewDisk(seed, simenv.DiskOptions{})
				run := d.Mount()
				ok(t, put(t, run, "f", []byte("first")).Sync())
				syncDir(t, run, "")
				d.CrashAfter(point)
				err := replace(run)
				if (err != nil) != d.Down() || err != nil && !errors.Is(err, simenv.ErrCrashed) {
					t.Fatalf("point %d: down %v, error %v", point, d.Down(), err)
				}
				d.Crash(kind)
				data, _ := content(t, d.Mount(), "f")
				if got := string(data); got != "second" && (got != "first" || err == nil) {
					t.Fatalf("%v at point %d: %q", kind, point, got)
				}
				seen[string(data)]++
				if err == nil {
					if point != 6 {
						t.Fatalf("the job has %d operations, not 5", point-1)
					}
					break
				}
			}
		}
		if seen["first"] == 0 || seen["second"] == 0 {
			t.Fatalf("%v: saw %v", kind, seen)
		}
	}
}

func TestCrashCloneLeavesTheOriginalAlone(t *testing.T) {
	d := simenv.NewDisk(1, simenv.DiskOptions{})
	run := d.Mount()
	f := put(t, run, "f", []byte("one"))
	planned := d.CrashCloneAt(2, simenv.ProcessCrash, "between")
	must[int](t)(f.Write([]byte("two")))
	if planned() != nil {
		t.Fatal("cloned too early")
	}
	must[int](t)(f.Write([]byte("three")))
	between, now := planned(), d.CrashClone(simenv.ProcessCrash, "now")
	if data, _ := content(t, between.Mount(), "f"); string(data) != "onetwo" {
		t.Fatalf("the planned clone has %q", data)
	}
	must[int](t)(put(t, now.Mount(), "f", nil).Write([]byte("other")))
	must[int](t)(f.Write([]byte("four")))
	if data, _ := content(t, run, "f"); string(data) != "onetwothreefour" {
		t.Fatalf("the original has %q", data)
	}
	lost := map[int]bool{}
	for i := range 20 {
		clone := d.CrashClone(simenv.PowerCrash, strings.Repeat("i", i))
		data, _ := content(t, clone.Mount(), "f")
		lost[len(data)] = true
	}
	if len(lost) < 2 {
		t.Fatal("twenty power losses of one moment were all alike")
	}
}

func TestABitFlippedInAnUnsyncedBlockIsWrongInEveryOutcome(t *testing.T) {
	seen := map[byte]int{}
	for seed := range uint64(60) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		run := d.Mount()
		f := put(t, run, "f", bytes.Repeat([]byte{0x10}, 4096))
		ok(t, f.Sync())
		syncDir(t, run, "")
		must[int](t)(f.WriteAt(bytes.Repeat([]byte{0x20}, 4096), 0))
		env.StartSync(f, false, func(error) {})
		must[int](t)(f.WriteAt(bytes.Repeat([]byte{0x40}, 4096), 0))
		ok(t, d.Flip("f", 700, 0))
		d.Crash(simenv.PowerCrash)
		data, _ := content(t, d.Mount(), "f")
		seen[data[700]]++
	}
	if seen[0x11] == 0 || seen[0x21] == 0 || seen[0x41] == 0 || len(seen) != 3 {
		t.Fatalf("the byte came out as %v", seen)
	}
}

func TestAFailedDirectorySyncIsInDoubt(t *testing.T) {
	kept := 0
	for seed := range uint64(60) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		run := d.Mount()
		put(t, run, "f", nil)
		dir := must[env.File](t)(run.OpenDir(""))
		d.Inject(simenv.Fault{Ops: simenv.OpSync, Nth: 1, Err: syscall.EIO})
		if err := dir.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("the sync ended with %v", err)
		}
		d.Crash(simenv.PowerCrash)
		kept += len(d.Files())
	}
	if kept == 0 || kept == 60 {
		t.Fatalf("the name was kept %d times in 60", kept)
	}
}

func TestSyncToPromisesNothing(t *testing.T) {
	lost := 0
	for seed := range uint64(40) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		run := d.Mount()
		f := put(t, run, "f", bytes.Repeat([]byte{1}, 4096))
		syncDir(t, run, "")
		if full, err := f.SyncTo(4096); full || err != nil {
			t.Fatalf("claimed %v, %v", full, err)
		}
		d.Crash(simenv.PowerCrash)
		if data, _ := content(t, d.Mount(), "f"); bytes.Count(data, []byte{1}) < 4096 {
			lost++
		}
	}
	if lost == 0 {
		t.Fatal("what SyncTo queued was always durable")
	}
}

func TestADyingRunHearsOfItsSyncOnlyWhileItAsks(t *testing.T) {
	d := simenv.NewDisk(1, simenv.DiskOptions{})
	f := put(t, d.Mount(), "f", []byte("x"))
	env.StartSync(f, false, func(err error) { t.Fatalf("a sync under way at the crash reported %v", err) })
	d.CrashAfter(1)
	var refused error
	env.StartSync(f, false, func(err error) { refused = err })
	if !errors.Is(refused, simenv.ErrCrashed) {
		t.Fatalf("a sync begun in the crash reported %v", refused)
	}
	d.CompleteDue(env.Never)
	d.Crash(simenv.ProcessCrash)
	if n := d.CompleteDue(env.Never); n != 0 {
		t.Fatalf("%d syncs outlived the run", n)
	}
}
