package host

import (
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/measure"
	"github.com/kvorum/kvorum/internal/raft"
)

// Measured is what a host counts from its beginning on, over all groups. Any
// goroutine may read it.
type Measured struct {
	// Applies are the durations of the applier's turns with a machine, each with one
	// command or many. SlowApplies took longer than Options.SlowApply; SlowestApply is
	// that of the last second or two.
	Applies      *measure.Histogram
	SlowApplies  atomic.Uint64
	SlowestApply measure.Peak
	// FailedProposals ended without anybody knowing, or with the certainty that they
	// are lost; FailedReads were not confirmed in time, SlowReads were confirmed after
	// slowRead or later. Reads that wait together count as one.
	FailedProposals, FailedReads, SlowReads atomic.Uint64
}

func (m *Measured) init() { m.Applies = measure.NewDurations(100*time.Microsecond, 20) }

// slowRead is after how long without a word of the leader a read is a slow one.
const slowRead = 500 * time.Millisecond

// Measured is what the host has counted so far; it goes on counting.
func (h *Host) Measured() *Measured { return &h.measured }

// SlowApply is one turn of a group's applier that took long.
type SlowApply struct {
	Took time.Duration
	// First and Last are the entries applied, Commands how many commands were in them,
	// Bytes what those weigh.
	First, Last     id.Index
	Commands, Bytes int
}

// measureApply takes in how long a machine took.
func (a *applier) measureApply(g *Group, begun env.Instant, entries []raft.Entry, commands int) {
	now := a.h.opts.Clock.Now()
	took, m := now.Sub(begun), &a.h.measured
	m.Applies.Took(took)
	m.SlowestApply.Note(int64(now), int64(took))
	if a.h.opts.Applied != nil {
		a.h.opts.Applied(took)
	}
	if a.h.opts.SlowApply == 0 || took <= a.h.opts.SlowApply {
		return
	}
	m.SlowApplies.Add(1)
	if a.h.opts.Slow != nil {
		a.h.opts.Slow(g.id, SlowApply{
			Took: took, First: entries[0].Index, Last: entries[len(entries)-1].Index, Commands: commands, Bytes: weightOf(entries),
		})
	}
}
