package simenv_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
)

func TestClocksDriftAndWakeOnTime(t *testing.T) {
	seeds(t, 30, func(t *testing.T, seed uint64) {
		w := simenv.New(seed, simenv.Options{MaxDriftPPM: 500, MaxWallOffset: time.Hour})
		draw := w.Rand("test")
		w.AdvanceTo(env.Instant(draw.Int64N(int64(time.Hour))))
		clock := w.Machine("a").Start().Clock
		last := clock.Now()
		for range 200 {
			asked := last.Add(time.Duration(draw.Int64N(int64(2 * time.Second))))
			at := clock.WorldTime(asked)
			w.AdvanceTo(at)
			now := clock.Now()
			if late := now.Sub(asked); late < 0 || late > 10 {
				t.Fatalf("woke %d ns late", late)
			}
			last = now
		}
		if clock.WorldTime(env.Never) != env.Never || clock.WorldTime(0) != w.Now() {
			t.Fatal("Never must stay Never, the past must be now")
		}
		day := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(w.Now()))
		if off := clock.Wall().Sub(day).Abs(); off > time.Hour+time.Second {
			t.Fatalf("the calendar is off by %v", off)
		}
	})
}

func TestARunEndsWithItsTasks(t *testing.T) {
	w := simenv.New(1, simenv.Options{})
	m := w.Machine("a")
	first := m.Start()
	var told []string
	first.Tasks.Go("twice", func() bool {
		told = append(told, "step")
		if len(told) == 1 {
			first.Tasks.Go("child", func() bool { told = append(told, "child"); return true })
		}
		return len(told) > 1
	})
	if len(told) != 0 || first.Tasks.Pending() != 1 || first.Tasks.Name(0) != "twice" {
		t.Fatal("a task ran before its turn")
	}
	first.Tasks.RunOne(0)
	if first.Tasks.Pending() != 2 {
		t.Fatalf("%d tasks are pending", first.Tasks.Pending())
	}
	first.Tasks.RunOne(0)
	first.Tasks.RunOne(0)
	if got := fmt.Sprint(told); got != "[step step child]" || first.Tasks.Pending() != 0 {
		t.Fatalf("ran %v", told)
	}

	first.Tasks.Go("suicide", func() bool { m.Crash(simenv.PowerCrash); return true })
	first.Tasks.Go("never", func() bool { t.Fatal("a task of the dead ran"); return true })
	first.Tasks.RunOne(0)
	first.Tasks.Go("too late", func() bool { return true })
	if first.Tasks.Pending() != 0 || m.Process() != nil {
		t.Fatal("something of the run survived")
	}
	second := m.Start()
	if second.World().Rand.Uint64() == first.World().Rand.Uint64() {
		t.Fatal("two runs drew the same nonce")
	}
}

func TestRandIsUnbiasedAndStreamsAreApart(t *testing.T) {
	r := simenv.NewRand(1, "a")
	const bound = int64(1)<<62 + int64(1)<<61
	low := 0
	for range 10_000 {
		n := r.Int64N(bound)
		if n < 0 || n >= bound {
			t.Fatalf("drew %d", n)
		}
		if n < bound/2 {
			low++
		}
	}
	if low < 4700 || low > 5300 {
		t.Fatalf("%d of 10,000 draws are in the lower half", low)
	}
	first := map[uint64]string{}
	for seed := range uint64(100) {
		for _, stream := range []string{"a", "b", "disk a", "disk b"} {
			n := simenv.NewRand(seed, stream).Uint64()
			if before := first[n]; before != "" {
				t.Fatalf("seed %d stream %s begins as %s", seed, stream, before)
			}
			first[n] = fmt.Sprint(seed, stream)
		}
	}
}

// life is a random machine's life: writes, syncs, tasks, faults and crashes.
func life(seed uint64) uint64 {
	w := simenv.New(seed, simenv.Options{MaxDriftPPM: 100})
	draw := w.Rand("life")
	machines := []*simenv.Machine{w.Machine("a"), w.Machine("b")}
	var open [2]env.File
	for range 400 {
		i := draw.Intn(2)
		m := machines[i]
		if m.Process() == nil {
			m.Start()
			open[i] = nil
		}
		run := m.Process().World()
		if open[i] == nil {
			name := fmt.Sprintf("f%d", draw.Intn(5))
			open[i], _ = run.FS.OpenReadWrite(name, env.Other)
		}
		switch draw.Intn(8) {
		case 0:
			env.StartSync(open[i], false, func(err error) {
				open[i].Write([]byte(fmt.Sprint(err, run.Clock.Now(), run.Rand.Uint64())))
			})
		case 1:
			w.AdvanceTo(min(w.NextDue(), w.Now().Add(time.Second)))
			m.Disk().CompleteDue(w.Now())
		case 2:
			if draw.OneIn(4) {
				m.Crash(simenv.Crash(draw.Intn(2)))
			}
		case 3:
			run.FS.Rename(fmt.Sprintf("f%d", draw.Intn(5)), fmt.Sprintf("f%d", draw.Intn(5)))
		default:
			open[i].WriteAt(make([]byte, 1+draw.Intn(10_000)), draw.Int64N(20_000))
			open[i].Write([]byte{byte(draw.Uint64())})
		}
	}
	return w.Trace()
}

func TestOneSeedOneTrace(t *testing.T) {
	traces := map[uint64]uint64{}
	for seed := range uint64(30) {
		trace := life(seed)
		for range 3 {
			if again := life(seed); again != trace {
				t.Fatalf("seed %d: traces %x and %x", seed, trace, again)
			}
		}
		if other, seen := traces[trace]; seen {
			t.Fatalf("seeds %d and %d have one trace", seed, other)
		}
		traces[trace] = seed
	}
}
