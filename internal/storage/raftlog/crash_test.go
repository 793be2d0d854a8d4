package raftlog_test

import (
	"flag"
	"fmt"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
)

var lives = flag.Uint64("lives", 60, "how many seeded histories of crashes to run")

// TestACrashAfterEveryOperation stops one history after each of its operations on
// the disk, by kill -9 and by a power loss, recovers, goes on for a while, loses
// the power again, and recovers again.
func TestACrashAfterEveryOperation(t *testing.T) {
	const steps = 250
	stride := uint64(1)
	if testing.Short() {
		stride = 5
	}
	for n := uint64(1); ; n += stride {
		finished := false
		for i, first := range []simenv.Crash{simenv.ProcessCrash, simenv.PowerCrash} {
			m := newMachine(n, simenv.Options{Disk: simenv.DiskOptions{ReorderDirOps: n%3 == 0}})
			m.first, m.most = 16<<10, 64<<10
			h := newHistory(t, m, 77)
			m.Disk().CrashAfter(n)
			h.live(steps)
			finished = !m.Disk().Down()
			h.end(first)
			h.live(20 + i*10)
			h.end(simenv.PowerCrash)
			h.live(0)
			if t.Failed() {
				t.Fatalf("crash after operation %d by a %v", n, first)
			}
		}
		if finished {
			if n < 150 {
				t.Fatalf("the history has only %d operations", n)
			}
			return
		}
	}
}

// TestManyLives runs seeded histories through many crashes, of recoveries too.
func TestManyLives(t *testing.T) {
	seeds := *lives
	if testing.Short() {
		seeds /= 3
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			manyLives(t, seed)
		})
		if !ok {
			return
		}
	}
}

// manyLives is one seeded history. It fails t where the log breaks its promise.
func manyLives(t failer, seed uint64) {
	m := newMachine(seed, simenv.Options{Disk: simenv.DiskOptions{ReorderDirOps: seed%3 == 0, WholeBlocks: seed%5 == 0}})
	m.first, m.most = 16<<10, 32<<10<<(seed%3)
	h := newHistory(t, m, seed)
	for range 12 {
		if h.r.IntN(4) > 0 {
			m.Disk().CrashAfter(1 + h.r.Uint64N(1+h.r.Uint64N(300)))
		}
		h.live(h.r.IntN(400))
		if h.r.IntN(5) == 0 && !h.died && h.s != nil && m.Disk().PendingSyncs() == 0 {
			h.frames = append(h.frames, h.now) // Close writes what is staged
			if err := h.s.Close(); err != nil && !m.Disk().Down() {
				t.Fatalf("close: %v", err)
			}
		}
		h.end([]simenv.Crash{simenv.ProcessCrash, simenv.PowerCrash}[h.r.IntN(2)])
	}
}
