package syncmark

import (
	"errors"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/storage/engine"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// load reads the promise about "file" with a mark of its own.
func load(t *testing.T, fs env.FS) (Promise, error) {
	t.Helper()
	m, err := Open(fs, "file")
	must(t, err)
	p, err := m.Load("file")
	must(t, m.Close())
	return p, err
}

func TestPromisesFollowEachOther(t *testing.T) {
	fs := vfs.NewMem()
	if _, err := load(t, fs); !errors.Is(err, ErrBroken) {
		t.Errorf("a mark that was never written says %v", err)
	}
	for i := range int64(7) {
		m, err := Open(fs, "file")
		must(t, err)
		if i > 0 {
			_, err := m.Load("file")
			must(t, err)
		}
		want := Promise{Length: 100 + i, Sum: uint32(i)}
		must(t, m.Write(want))
		must(t, m.Sync())
		must(t, m.Close())
		if got, err := load(t, fs); err != nil || got != want {
			t.Errorf("promise %d reads %+v (%v)", i, got, err)
		}
	}
}

// TestPromiseSurvivesTheNextOne loses power at every change of the disk while
// promises are made: the last one whose sync was done holds, or a later one.
func TestPromiseSurvivesTheNextOne(t *testing.T) {
	for at := uint64(1); at < 40; at++ {
		disk := simenv.NewDisk(at, simenv.DiskOptions{})
		clone := disk.CrashCloneAt(at, simenv.PowerCrash, "at")
		fs := disk.Mount()
		m, err := Open(fs, "file")
		must(t, err)
		dir, err := fs.OpenDir("")
		must(t, err)
		must(t, dir.Sync())
		held := int64(-1)
		for i := int64(0); clone() == nil; i++ {
			must(t, m.Write(Promise{Length: i, Sum: uint32(i)}))
			must(t, m.Sync())
			if clone() == nil {
				held = i
			}
		}
		if held < 0 {
			continue
		}
		if p, err := load(t, clone().Mount()); err != nil || p.Length < held || p.Sum != uint32(p.Length) {
			t.Errorf("crash at %d: promise %d was synced, %+v is there (%v)", at, held, p, err)
		}
	}
}

// TestOneFlipCostsAtMostOnePromise flips every bit of a mark file.
func TestOneFlipCostsAtMostOnePromise(t *testing.T) {
	disk := simenv.NewDisk(1, simenv.DiskOptions{})
	m, err := Open(disk.Mount(), "file")
	must(t, err)
	older, newer := Promise{Length: 10, Sum: 1}, Promise{Length: 20, Sum: 2}
	must(t, m.Write(older))
	must(t, m.Write(newer))
	must(t, m.Sync())
	for at := range int64(slotGap + slotBytes) {
		if at >= slotBytes && at < slotGap {
			continue
		}
		for bit := range 8 {
			clone := disk.CrashClone(simenv.ProcessCrash, fmt.Sprint(at, bit))
			must(t, clone.Flip("file"+Suffix, at, bit))
			p, err := load(t, clone.Mount())
			if want := newer; at < slotBytes && p != want {
				t.Fatalf("byte %d bit %d: %+v (%v), want %+v", at, bit, p, err, want)
			} else if at >= slotGap && p != older {
				t.Fatalf("byte %d bit %d: %+v (%v), want %+v", at, bit, p, err, older)
			}
		}
	}
	must(t, disk.Flip("file"+Suffix, 0, 0))
	must(t, disk.Flip("file"+Suffix, slotGap, 0))
	var damage *engine.CorruptionError
	if _, err := load(t, disk.Mount()); !errors.As(err, &damage) || damage.File != "file"+Suffix {
		t.Errorf("a mark without a good slot says %v", err)
	}
}

func TestCheck(t *testing.T) {
	data := []byte("written and synced")
	p := Promise{Length: 7, Sum: crc32.Checksum(data[:7], Table)}
	if !p.Check(data) || !p.Check(data[:7]) {
		t.Error("a kept promise is called broken")
	}
	if p.Check(data[:6]) || p.Check([]byte("writtem and synced")) {
		t.Error("a broken promise is called kept")
	}
}

func TestUnreadableMarkIsAnError(t *testing.T) {
	disk := simenv.NewDisk(1, simenv.DiskOptions{})
	m, err := Open(disk.Mount(), "file")
	must(t, err)
	must(t, m.Write(Promise{}))
	synced := false
	m.StartSync(func(err error) { synced = err == nil })
	disk.CompleteDue(env.Never)
	if !synced {
		t.Error("StartSync does not say that it is done")
	}
	disk.Inject(simenv.EIO(simenv.OpRead))
	var damage *engine.CorruptionError
	if _, err := m.Load("file"); err == nil || errors.As(err, &damage) {
		t.Errorf("an unreadable mark says %v", err)
	}
}

// FuzzSlot gives any bytes as a slot: what is accepted is what Write makes.
func FuzzSlot(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x4b, 0x56, 0x73, 0x6d, 0x10, 0, 0, 0, 0, 0, 0, 0, 0xdf, 0xf0, 0xbc, 0x64, 0xa5, 0x58, 0x00, 0xef})
	f.Fuzz(func(t *testing.T, slot []byte) {
		p, ok := decodeSlot(slot)
		if !ok {
			return
		}
		fs := vfs.NewMem()
		m, err := Open(fs, "file")
		must(t, err)
		must(t, m.Write(p))
		must(t, m.Close())
		file, err := fs.Open("file" + Suffix)
		must(t, err)
		again := make([]byte, slotBytes)
		if n, _ := file.Read(again); string(again[:n]) != string(slot[:slotBytes]) {
			t.Fatalf("slot %x is written as %x", slot, again)
		}
	})
}
