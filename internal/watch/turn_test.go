package watch_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/watch"
)

// farWorld is a store of so many revisions that nobody has in memory, of a few keys that
// come and go, and a hub that turns history round in small piles.
func farWorld(t *testing.T, puts int, far watch.Far) *world {
	w := newWorld(t, 1000, func(o watch.Options) *watch.Hub {
		o.Far = far
		return watch.NewSmall(o, 100, 500, 1000, 1000, 80_000)
	})
	for i := range puts {
		switch i % 7 {
		case 3:
			w.apply(del(fmt.Sprintf("k%d", (i-1)%13), ""))
		case 5:
			w.apply(txn(put("many", fmt.Sprint(i)), put(fmt.Sprintf("k%d", i%13), fmt.Sprint(i)), put("more", "1")))
		default:
			w.apply(put(fmt.Sprintf("k%d", i%13), strings.Repeat("v", i%90)))
		}
	}
	w.run()
	return w
}

// spread turns round what does not fit into memory.
var spread = watch.Far{Revisions: 100, Pile: 2000, Memory: 10_000}

// follow reads a watch that begins in the past up to the end, and judges each event by
// the oracle; between is called before each response.
func follow(w *world, r *watch.Request, between func(n int)) {
	w.t.Helper()
	a := &audience{client: w.client(), promises: make(map[int64]*promise)}
	p := &promise{request: *r}
	a.asked = append(a.asked, p)
	a.stream.Create(r)
	for n := 0; ; n++ {
		between(n)
		if !a.read() {
			break
		}
	}
	w.bookmark(p, w.hi())
	a.stream.Close()
}

func files(w *world) (list []string) {
	for _, file := range w.disk.Files() {
		if strings.HasPrefix(file, "saves/") {
			list = append(list, file)
		}
	}
	return list
}

// Who is far behind has history turned round once, piles in a file, and sees what
// everybody sees; a narrow range, previous values and filters are no different. The file
// goes when nobody needs it any more.
func TestWhoIsFarBehindReadsPiles(t *testing.T) {
	w := farWorld(t, 900, spread)
	some := &watch.Request{Key: []byte("k2"), End: []byte("k7"), Start: 2}
	all := everything()
	all.Start = 2
	with := everything()
	with.Start, with.PrevKV = 5, true
	removed := everything()
	removed.Start, removed.NoPuts = 2, true
	for n, r := range []*watch.Request{all, some, with, removed, {Key: []byte("many"), Start: 3, PrevKV: true}} {
		most := 0
		follow(w, r, func(int) { most = max(most, len(files(w))) })
		if made, _ := w.hub.Turned(); made != n+1 {
			t.Errorf("watch %d: %d stretches were turned round", n, made)
		}
		if wide := n < 3; wide != (most == 1) {
			t.Errorf("watch %d: %d files at a time", n, most)
		}
		w.run()
		if left := files(w); len(left) > 0 {
			t.Errorf("watch %d has left %q", n, left)
		}
	}
}

// Several of one group share what was turned round, wherever they are in it, and it goes
// with the last one that leaves.
func TestAGroupThatIsFarBehindSharesItsPiles(t *testing.T) {
	w := farWorld(t, 900, spread)
	var all []*audience
	for i := range 3 {
		a := &audience{client: w.client(), promises: make(map[int64]*promise)}
		r := everything()
		r.Start = id.Revision(2 + 100*i)
		a.asked = append(a.asked, &promise{request: *r})
		a.stream.Create(r)
		all = append(all, a)
	}
	for range 10 {
		for _, a := range all {
			a.read()
		}
	}
	if made, kept := w.hub.Turned(); made != 1 || kept != 1 || len(files(w)) != 1 {
		t.Errorf("%d stretches were turned round, %d are kept, in %q", made, kept, files(w))
	}
	for _, a := range all {
		a.stream.Close()
		w.run()
	}
	if _, kept := w.hub.Turned(); kept != 0 || len(files(w)) != 0 {
		t.Errorf("%d stretches are left, in %q", kept, files(w))
	}
}

// A disk that refuses the file, at whatever step, or gives back other bytes than were
// written, costs the watch nothing but time.
func TestADiskThatRefusesPilesLosesNoEvent(t *testing.T) {
	r := everything()
	r.Start = 2
	mine := func(path string) bool { return strings.HasPrefix(path, "saves") }
	for name, fault := range map[string]simenv.Fault{
		"no folder":  {Ops: simenv.OpMkdir, Err: syscall.EIO},
		"no file":    {Ops: simenv.OpCreate, Err: syscall.ENOSPC},
		"no write":   {Ops: simenv.OpWrite, Err: syscall.ENOSPC, Nth: 3},
		"no opening": {Ops: simenv.OpOpen, Err: syscall.EIO},
		"no read":    {Ops: simenv.OpRead, Err: syscall.EIO, Nth: 5},
		"other bits": {Ops: simenv.OpRead, FlipBit: true, Nth: 7},
	} {
		t.Run(name, func(t *testing.T) {
			w := farWorld(t, 900, spread)
			fault.Match = mine
			w.disk.Inject(fault)
			made := 0
			follow(w, r, func(int) { made, _ = w.hub.Turned() })
			follow(w, r, func(int) {})
			if len(w.unturned) != 1 {
				t.Errorf("told %v", w.unturned)
			}
			if again, _ := w.hub.Turned(); again != made || made > 1 {
				t.Errorf("turned round %d, then %d times", made, again)
			}
			w.run()
			if left := files(w); len(left) > 0 {
				t.Errorf("left %q", left)
			}
		})
	}
}

// Compaction overtakes who reads piles as it does everybody else, in the middle of the
// turning too.
func TestCompactionOvertakesPiles(t *testing.T) {
	for _, after := range []int{1, 5} {
		w := farWorld(t, 900, spread)
		c := w.client()
		r := everything()
		r.Start = 2
		c.stream.Create(r)
		for range after {
			c.next()
		}
		w.apply(compact(800))
		w.remove()
		if m, ok := c.next(); !ok || m.CompactRevision != 800 {
			if ok { // what was read ahead before
				for ok && m.CompactRevision == 0 {
					m, ok = c.next()
				}
			}
			if !ok || m.CompactRevision != 800 {
				t.Fatalf("after %d: %v, %v", after, m, ok)
			}
		}
		w.run()
		if left := files(w); len(left) > 0 {
			t.Errorf("after %d: left %q", after, left)
		}
	}
}

// Without room on the disk above its reserve nothing is turned round.
func TestPilesLeaveTheDiskItsReserve(t *testing.T) {
	r := everything()
	r.Start = 2
	for room, want := range map[int64]int{0: 0, 1 << 30: 1} {
		w := newWorld(t, 1000, func(o watch.Options) *watch.Hub {
			o.Far, o.Room = spread, func() int64 { return room }
			return watch.NewSmall(o, 100, 500, 1000, 1000, 80_000)
		})
		for i := range 600 {
			w.apply(put("a", fmt.Sprint(i)))
		}
		follow(w, r, func(int) {})
		if made, _ := w.hub.Turned(); made != want {
			t.Errorf("with room for %d: %d stretches", room, made)
		}
	}
}

// One revision that is larger than a pile may be is read by seeks, with all that is
// around it.
func TestAPileThatIsFarTooLargeIsNotRead(t *testing.T) {
	w := farWorld(t, 400, spread)
	var large []any
	for i := range 10 {
		large = append(large, put(fmt.Sprintf("l%d", i), strings.Repeat("v", 15_000)))
	}
	w.apply(txn(large...))
	for i := range 100 {
		w.apply(put("a", fmt.Sprint(i)))
	}
	for range 2 {
		r := everything()
		r.Start = 2
		follow(w, r, func(int) {})
	}
	if made, _ := w.hub.Turned(); made != 1 {
		t.Errorf("%d stretches were turned round", made)
	}
}
