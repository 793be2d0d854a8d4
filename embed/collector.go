package embed

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// collectorRoom is how much garbage there may be beside what lives, in bytes, once
// more than this lives: Go's own rule is as much again as what lives. Most of what
// lives here are caches of a fixed size, blocks and rows without a pointer in them,
// which cost the collector nothing to keep and would cost as much again in memory.
const collectorRoom = 24 << 20

// leastCollectorPercent bounds how often the collector runs where much lives that it
// has to walk.
const leastCollectorPercent = 12

// paceCollector keeps the heap at what lives and collectorRoom from now on. GOGC, if
// the environment has it, stands instead. It is the process's, so only Main's.
func paceCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	p := &collectorPace{percent: 100}
	p.sample[0].Name = "/gc/heap/live:bytes"
	p.await()
}

type collectorPace struct {
	sample  [1]metrics.Sample
	percent int
}

// await has the percentage chosen anew after the next collection, which is what
// finds an object that nobody refers to.
func (p *collectorPace) await() {
	type found struct{ _ *collectorPace }
	runtime.AddCleanup(new(found), func(p *collectorPace) {
		p.choose()
		p.await()
	}, p)
}

func (p *collectorPace) choose() {
	metrics.Read(p.sample[:])
	percent := collectorPercent(p.sample[0].Value.Uint64())
	// Changing it stops the world for a moment: small steps are not worth one.
	if percent > p.percent+p.percent/10 || percent < p.percent-p.percent/10 {
		p.percent = percent
		debug.SetGCPercent(percent)
	}
}

// collectorPercent is GOGC for so many live bytes.
func collectorPercent(live uint64) int {
	if live <= collectorRoom {
		return 100
	}
	return max(int(collectorRoom*100/live), leastCollectorPercent)
}
