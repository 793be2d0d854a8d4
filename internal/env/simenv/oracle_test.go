package simenv_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
)

// oracle is what a disk of one directory may show, kept in the plainest way:
// whole copies of everything.
type oracle struct {
	t   *testing.T
	r   *simenv.Rand
	d   *simenv.Disk
	run env.FS
	// names[0] is durable; each unsynced operation adds what the directory is then.
	names []map[string]*modelFile
	made  int
}

// modelFile remembers every content since the last one that is durable.
type modelFile struct {
	states [][]byte // states[0] is durable, the last is current
	number int      // of states[0], so that a sync under way can name its state
	open   env.File
}

func (f *modelFile) current() []byte { return f.states[len(f.states)-1] }

func (f *modelFile) durable(state int) {
	if state > f.number {
		f.states = f.states[state-f.number:]
		f.number = state
	}
}

func (o *oracle) now() map[string]*modelFile { return o.names[len(o.names)-1] }

func (o *oracle) renamed(change func(map[string]*modelFile)) {
	next := maps.Clone(o.now())
	change(next)
	o.names = append(o.names, next)
}

// pick draws one of the names, or "" if there is none.
func (o *oracle) pick() string {
	names := slices.Sorted(maps.Keys(o.now()))
	if len(names) == 0 {
		return ""
	}
	return names[o.r.Intn(len(names))]
}

func (o *oracle) open(name string) *modelFile {
	f := o.now()[name]
	if f.open == nil {
		f.open = must[env.File](o.t)(o.run.OpenReadWrite(name, env.Other))
	}
	return f
}

func (o *oracle) create() {
	o.made++
	name := fmt.Sprintf("f%d", o.made)
	f := &modelFile{states: [][]byte{{}}}
	f.open = must[env.File](o.t)(o.run.Create(name, env.Other))
	o.renamed(func(m map[string]*modelFile) { m[name] = f })
}

func (o *oracle) write(name string) {
	f := o.open(name)
	off := o.r.Intn(len(f.current()) + 1)
	if o.r.OneIn(2) {
		off = len(f.current())
	}
	p := bytes.Repeat([]byte{byte(1 + o.r.Intn(255))}, 1+o.r.Intn(3*4096))
	n, err := f.open.WriteAt(p, int64(off))
	if (err != nil) != (n < len(p)) && err == nil {
		o.t.Fatalf("wrote %d of %d bytes without an error", n, len(p))
	}
	if n == 0 {
		return
	}
	next := slices.Clone(f.current())
	if grow := off + n - len(next); grow > 0 {
		next = append(next, make([]byte, grow)...)
	}
	copy(next[off:], p[:n])
	f.states = append(f.states, next)
}

// step does one random thing to the disk and to the model.
func (o *oracle) step() {
	name := o.pick()
	if name == "" || len(o.now()) < 3 && o.r.OneIn(4) {
		o.create()
		return
	}
	switch o.r.Intn(12) {
	case 0:
		ok(o.t, o.run.Remove(name))
		o.renamed(func(m map[string]*modelFile) { delete(m, name) })
	case 1:
		other := o.pick()
		ok(o.t, o.run.Rename(name, other))
		if name != other {
			o.renamed(func(m map[string]*modelFile) { m[other] = m[name]; delete(m, name) })
		}
	case 2:
		syncDir(o.t, o.run, "")
		o.names = o.names[len(o.names)-1:]
	case 3:
		f := o.open(name)
		if f.open.SyncData() == nil {
			f.durable(f.number + len(f.states) - 1)
		}
	case 4, 5:
		f := o.open(name)
		covered := f.number + len(f.states) - 1
		env.StartSync(f.open, false, func(err error) {
			if err == nil {
				f.durable(covered)
			}
		})
	case 6:
		if n := o.d.PendingSyncs(); n > 0 {
			o.d.CompleteSync(o.r.Intn(n))
		}
	default:
		o.write(name)
	}
}

// possible says whether data may be the file after a power loss: a size that it
// had, and every sector as it was at one moment.
func (f *modelFile) possible(data []byte) bool {
	sizes := func(s []byte) bool { return len(s) == len(data) }
	if !slices.ContainsFunc(f.states, sizes) {
		return false
	}
	for at := 0; at < len(data); at += 512 {
		sector := data[at:min(at+512, len(data))]
		was := func(s []byte) bool {
			var then [512]byte
			if at < len(s) {
				copy(then[:], s[at:])
			}
			return bytes.Equal(sector, then[:len(sector)])
		}
		if !slices.ContainsFunc(f.states, was) {
			return false
		}
	}
	return true
}

// read returns what the disk shows now.
func (o *oracle) read() map[string][]byte {
	shown := map[string][]byte{}
	for _, name := range o.d.Files() {
		shown[name], _ = content(o.t, o.run, name)
	}
	return shown
}

func matches(names map[string]*modelFile, shown map[string][]byte, fits func(*modelFile, []byte) bool) bool {
	if len(names) != len(shown) {
		return false
	}
	for name, data := range shown {
		if f := names[name]; f == nil || !fits(f, data) {
			return false
		}
	}
	return true
}

func (o *oracle) crash(kind simenv.Crash) {
	o.d.Crash(kind)
	o.run = o.d.Mount()
	shown := o.read()
	if kind == simenv.ProcessCrash {
		same := func(f *modelFile, data []byte) bool { return bytes.Equal(f.current(), data) }
		if !matches(o.now(), shown, same) {
			o.t.Fatal("a process crash changed what can be read")
		}
		for _, names := range o.names {
			for _, f := range names {
				f.open = nil
			}
		}
		return
	}
	one := func(names map[string]*modelFile) bool { return matches(names, shown, (*modelFile).possible) }
	if !slices.ContainsFunc(o.names, one) {
		o.t.Fatalf("the power loss left %v, none of %d possible directories", slices.Sorted(maps.Keys(shown)), len(o.names))
	}
	left := map[string]*modelFile{}
	for name, data := range shown {
		left[name] = &modelFile{states: [][]byte{data}}
	}
	o.names = []map[string]*modelFile{left}
}

// What a sync promised is there after a power loss, and what was never written
// is never there, whatever the order of writes, syncs, failures and crashes.
func TestDiskAgainstTheOracle(t *testing.T) {
	worlds := uint64(60)
	if testing.Short() {
		worlds = 15
	}
	seeds(t, int(worlds), func(t *testing.T, seed uint64) {
		d := simenv.NewDisk(seed, simenv.DiskOptions{})
		o := &oracle{t: t, r: simenv.NewRand(seed, "oracle"), d: d, run: d.Mount(), names: []map[string]*modelFile{{}}}
		// One write in 20 fails halfway and one file's sync in 10 leaves doubt.
		d.Inject(simenv.Fault{Ops: simenv.OpWrite, OneIn: 20, Err: syscall.EIO})
		d.Inject(simenv.Fault{
			Ops: simenv.OpSync, OneIn: 10, Err: syscall.EIO,
			Match: func(path string) bool { return path != "" },
		})
		for range 12 {
			for range 5 + o.r.Intn(40) {
				o.step()
			}
			o.crash(simenv.Crash(o.r.Intn(2)))
		}
	})
}
