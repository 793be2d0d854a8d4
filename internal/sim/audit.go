package sim

import (
	"fmt"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// auditor asks now and then, at the moment at which a member relies on its disk,
// what a power loss at this moment would leave: it recovers the log from a copy of
// the disk that has just crashed. It sees at once what would otherwise need a
// crash at the right moment.
type auditor struct {
	w    *world
	rand *simenv.Rand
	done uint64
}

func newAuditor(w *world) *auditor { return &auditor{w: w, rand: w.env.Rand("audit")} }

// due draws whether to look this time.
func (a *auditor) due(r *replica) bool {
	permille := a.w.swarm.auditPermille
	return permille > 0 && a.rand.Int64N(1000) < permille && r.flipped == nil && a.w.failure == nil
}

// said audits a message that promises something.
func (a *auditor) said(r *replica, m raft.Message) {
	switch b := m.Body.(type) {
	case *raft.VoteReply:
		if b.Granted && !b.Pre && a.due(r) {
			a.w.check(r, a.vote(r, m))
		}
	case *raft.AppendReply:
		if !b.Reject && a.due(r) {
			a.w.check(r, a.entry(r, raft.Position{Index: b.Match}, "acknowledges"))
		}
	}
}

// applied audits the application of an entry (rule 12).
func (a *auditor) applied(r *replica, at raft.Position) {
	if a.due(r) {
		a.w.check(r, a.entry(r, at, "applies"))
	}
}

// vote: a vote that was given is remembered.
func (a *auditor) vote(r *replica, m raft.Message) error {
	start, err := a.recover(r, a.crash(r))
	if err != nil || start.Hard.Term > m.Term || start.Hard.Term == m.Term && start.Hard.Vote == m.To {
		return err
	}
	return fmt.Errorf("votes for %v in term %d, and after a power loss would remember term %d, vote %v",
		m.To, m.Term, start.Hard.Term, start.Hard.Vote)
}

// entry: what is acknowledged or applied is in the log, or in a state that was brought
// and that the log has not heard of: a start goes on from there. A term of 0 is any.
func (a *auditor) entry(r *replica, at raft.Position, does string) error {
	disk := a.crash(r)
	start, err := a.recover(r, disk)
	if err != nil {
		return err
	}
	if start.Last < at.Index {
		if brought, err := a.brought(disk); err != nil || brought >= at.Index {
			return err
		}
		return fmt.Errorf("%s entry %v, and after a power loss its log would end at %d", does, at, start.Last)
	}
	if term := termAt(start, at.Index); at.Term != 0 && term != at.Term && at.Index > start.Base.Index {
		return fmt.Errorf("%s entry %v, and after a power loss would have one of term %d there", does, at, term)
	}
	return nil
}

func termAt(start raft.Start, index id.Index) id.Term {
	term := start.Base.Term
	for _, run := range start.Terms {
		if run.First <= index {
			term = run.Term
		}
	}
	return term
}

// crash is a copy of the disk that loses its power now.
func (a *auditor) crash(r *replica) *simenv.Disk {
	a.done++
	a.w.trace.mark(markAudit)
	return r.machine.Disk().CrashClone(simenv.PowerCrash, fmt.Sprintf("audit %d", a.done))
}

// recover reads the log of a disk.
func (a *auditor) recover(r *replica, disk *simenv.Disk) (raft.Start, error) {
	log, err := raftlog.Open(raftlog.Options{
		FS: disk.Mount(), Dir: logDir, Rand: simenv.NewRand(a.done, "audit"), Tasks: &simenv.Tasks{}, Clock: r.process.Clock,
		FirstSegmentBytes: a.w.swarm.segmentBytes, MaxSegmentBytes: a.w.swarm.maxSegmentBytes,
	})
	if err != nil {
		return raft.Start{}, fmt.Errorf("after a power loss its log would not open: %w", err)
	}
	if damage := log.Damage(); damage != nil {
		return raft.Start{}, fmt.Errorf("after a power loss its log would be damaged: %w", damage)
	}
	for _, g := range log.Groups() {
		if g.Group == id.DefaultGroup {
			return g.Start, nil
		}
	}
	return raft.Start{}, fmt.Errorf("after a power loss its log would not know the group")
}

// brought is the position of the state of a disk, if a snapshot brought it and nothing
// was added; 0 if not.
func (a *auditor) brought(disk *simenv.Disk) (id.Index, error) {
	db, err := memdb.Open(memdb.Options{FS: disk.Mount(), Dir: storeDir, FlushBytes: a.w.swarm.memtableBytes})
	if err != nil {
		return 0, fmt.Errorf("after a power loss its store would not open: %w", err)
	}
	machine, err := state.Open(id.DefaultGroup, db, savesDir)
	if err != nil {
		return 0, fmt.Errorf("after a power loss its state would not open: %w", err)
	}
	if _, brought := machine.Loaded(); !brought {
		return 0, nil
	}
	return machine.Mark().Index, nil
}
