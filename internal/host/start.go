package host

import (
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
	"github.com/kvorum/kvorum/internal/storage/wal"
)

// replayBytes is how much of the log is read and applied at a time at start.
const replayBytes = 1 << 20

// The windows of a node; see raft.Config.
const (
	maxInflightBytes    = 8 << 20
	maxInflightMessages = 256
)

// Open brings a group to life: one that the log knows is started by rule 12
// (state and log are reconciled, committed entries replayed); any other is
// created with conf as its first configuration. A conf without this member, or an
// empty one, is right for one that joins: it follows whoever leads, and stands only
// when the log that it is sent makes it a voter. Call Open before any turn. Nothing
// that depends on what it wrote is said before the first sync.
// Errors: *raftlog.DamageError for a lone voter with a damaged log (rule 5),
// *LostLogError, what Machine.Apply says, the file system's.
func (h *Host) Open(group id.Group, machine Machine, conf raft.Conf) (*Group, error) {
	return h.open(group, machine, conf, nil)
}

// open is Open, or OpenAlone if there is a seizure.
func (h *Host) open(group id.Group, machine Machine, conf raft.Conf, alone *seizure) (*Group, error) {
	invariant.Check(h.byID[group] == nil, "group %d is opened twice", group)
	g := &Group{h: h, id: group, machine: machine}
	g.pending.init()
	g.reads.init()
	start, err := h.recover(group, machine, conf, alone != nil)
	if err != nil {
		return nil, err
	}
	if err := g.replay(&start); err != nil {
		return nil, err
	}
	if alone != nil {
		if err := alone.seize(h, group, &start); err != nil {
			return nil, err
		}
	}
	h.bear(g, start)
	h.groups = append(h.groups, g)
	h.byID[group] = g
	return g, nil
}

// bear makes the node and what the stages know of a new group.
func (h *Host) bear(g *Group, start raft.Start) {
	now := h.opts.Clock.Now()
	g.now = now
	g.node = raft.New(raft.Config{
		ID: h.opts.Member, Group: g.id,
		Election: h.opts.Election, Heartbeat: h.opts.Heartbeat, NoPreVote: h.opts.NoPreVote,
		MaxAppendBytes: h.opts.Limits.AppendBytes, MaxInflightBytes: maxInflightBytes, MaxInflightMessages: maxInflightMessages,
		CacheBytes: h.opts.Limits.CacheBytes,
		Draw:       h.opts.Rand.Int64N,
		Sum: func(kind raft.Kind, term id.Term, index id.Index, data []byte) uint32 {
			return wal.Sum(g.id, uint8(kind), term, index, data)
		},
	}, start, now)
	g.term.Store(uint64(start.Hard.Term))
	g.lastDone.Store(uint64(start.Applied))
	g.step.bornTerm = start.Hard.Term
	g.step.logEnd = logEnd{commit: start.Applied, last: start.Last, moved: now}
	g.step.confs = []raft.PlacedConf{{Conf: start.Conf, Index: start.ConfIndex}}
	if start.ConfIndex > start.PreviousIndex {
		g.step.confs = slices.Insert(g.step.confs, 0, raft.PlacedConf{Conf: start.Previous, Index: start.PreviousIndex})
	}
	g.step.wake = now
	g.log.base = start.Base.Index
	g.log.durable = start.Base.Index
	g.log.pinned = env.Never
	if start.Last > start.Base.Index {
		g.log.pinned = now
	}
	// Have the durable mark looked at soon: what it covers of the log may go.
	g.apply.unseen = h.opts.Limits.FlushBytes
	g.damaged.Store(start.Damaged)
	g.setConf(start.Conf)
	if start.Conf.Alone(h.opts.Member) && !h.opts.LoneWaits {
		g.node.Campaign(now)
	}
}

// recover returns what the log knows of a group, reconciled with the state's mark
// (rule 12), or makes the group. One that is to be alone may not be damaged.
func (h *Host) recover(group id.Group, machine Machine, conf raft.Conf, lone bool) (raft.Start, error) {
	mark := machine.Mark()
	var start raft.Start
	known := false
	for _, r := range h.opts.Log.Groups() {
		if r.Group == group {
			start, known = r.Start, true
		}
	}
	if !known {
		return h.create(group, mark, conf, lone)
	}
	alone := lone || start.Conf.Alone(h.opts.Member)
	if alone && h.opts.Damaged {
		return raft.Start{}, ErrDamaged
	}
	start.Damaged = start.Damaged || h.opts.Damaged
	if damage := h.opts.Log.Damage(); damage != nil {
		if alone {
			return raft.Start{}, damage
		}
		if err := h.foundDamage(group, &start, damage); err != nil {
			return raft.Start{}, err
		}
	}
	fit := reconcile(&start, mark)
	if fit == fits {
		return start, nil
	}
	brought, loaded := broughtConf(machine)
	if unaware := fit == forked || fit == short && loaded && !defect.On(defect.InstallTakenForLoss); !unaware {
		// What is missing was promised: it is before the mark, or just after it.
		lost := &LostLogError{Group: group, Mark: mark, First: start.Base.Index + 1, Last: start.Last, Reason: fit.String()}
		if alone {
			return raft.Start{}, lost
		}
		if err := h.foundDamage(group, &start, lost); err != nil {
			return raft.Start{}, err
		}
	}
	if !loaded || len(brought.Conf.Voters) == 0 {
		brought = confBefore(&start, mark.Index)
	}
	h.restart(group, &start, mark, brought)
	return start, nil
}

// foundDamage makes a replica start damaged.
func (h *Host) foundDamage(group id.Group, start *raft.Start, why error) error {
	start.Damaged = true
	if h.opts.FoundDamage == nil {
		return nil
	}
	return h.opts.FoundDamage(group, why)
}

// create makes a group that the log does not know. If damage hides it, or it was
// lost with the log, conf stands in for what the log said, and the log begins anew at
// the state's mark.
func (h *Host) create(group id.Group, mark raft.Position, conf raft.Conf, lone bool) (raft.Start, error) {
	start := raft.Start{Conf: conf, Previous: conf, Damaged: h.opts.Damaged}
	var why error
	if damage := h.opts.Log.Damage(); damage != nil {
		why = damage
	} else if mark != (raft.Position{}) {
		why = &LostLogError{Group: group, Mark: mark, Reason: "the log does not know the group"}
	}
	if why != nil {
		if lone || !h.opts.Peers || conf.Alone(h.opts.Member) {
			return raft.Start{}, why
		}
		if err := h.foundDamage(group, &start, why); err != nil {
			return raft.Start{}, err
		}
	}
	h.opts.Log.Create(group, conf)
	if mark != (raft.Position{}) {
		h.restart(group, &start, mark, raft.PlacedConf{Conf: conf, Index: mark.Index})
	}
	return start, nil
}

// broughtConf is the configuration that came with the state, if it is that of a
// snapshot to which nothing was added. The log, when it has not heard of the
// snapshot, may know only older ones.
func broughtConf(machine Machine) (conf raft.PlacedConf, loaded bool) {
	if snapshots, ok := machine.(Snapshots); ok {
		return snapshots.Loaded()
	}
	return conf, false
}

// confBefore is the latest configuration that the log knows at an index.
func confBefore(start *raft.Start, index id.Index) raft.PlacedConf {
	if start.ConfIndex <= index {
		return raft.PlacedConf{Conf: start.Conf, Index: start.ConfIndex}
	}
	return raft.PlacedConf{Conf: start.Previous, Index: min(start.PreviousIndex, index)}
}

// fit says how a log and a state go together.
type fit int

const (
	// fits: the log has the entry at the mark, or begins just after it.
	fits fit = iota
	// forked: the log has another entry at the mark: a crash came between a
	// snapshot's installation and the reset of the log (rule 21).
	forked
	// short: the log ends before the mark. If a snapshot brought the mark, the log
	// had not heard of it. Else it has lost something: only what is durable in the
	// log is applied.
	short
	// late: the log begins after the mark.
	late
)

// String says what is wrong with the log.
func (f fit) String() string {
	return [...]string{"the log fits", "the log has another entry at the applied mark",
		"the log ends before the applied mark", "the log begins after the applied mark"}[f]
}

func reconcile(start *raft.Start, mark raft.Position) fit {
	switch {
	case start.Base.Index > mark.Index:
		return late
	case start.Last < mark.Index:
		return short
	case termAt(start, mark.Index) != mark.Term && !defect.On(defect.StartWithoutTermCheck):
		return forked
	}
	return fits
}

// termAt is the term of an entry of the log, or of its base.
func termAt(start *raft.Start, index id.Index) id.Term {
	term := start.Base.Term
	for _, r := range start.Terms {
		if r.First <= index {
			term = r.Term
		}
	}
	return term
}

// restart discards a group's log and lets it begin anew, empty, at the mark; the
// reset is a record of the log. Term and vote stay.
func (h *Host) restart(group id.Group, start *raft.Start, mark raft.Position, conf raft.PlacedConf) {
	hard := start.Hard
	if mark.Term > hard.Term {
		hard.Term, hard.Vote = mark.Term, 0
	}
	hard.Commit = mark.Index
	h.opts.Log.Append(raftlog.Save{Group: group, Hard: hard,
		Reset: &raftlog.Reset{At: mark, Conf: conf.Conf, ConfIndex: conf.Index}})
	*start = raft.Start{Hard: hard, Conf: conf.Conf, ConfIndex: conf.Index, Previous: conf.Conf,
		PreviousIndex: conf.Index, Base: mark, Last: mark.Index, Applied: mark.Index, Damaged: start.Damaged}
}

// replay applies the committed entries after the mark, and fills in what the node
// keeps in memory: every entry after that.
func (g *Group) replay(start *raft.Start) error {
	mark := g.machine.Mark().Index
	commit := max(mark, min(start.Hard.Commit, start.Last))
	start.Applied = mark
	for start.Applied < commit {
		entries, err := g.h.opts.Log.Entries(g.id, start.Applied+1, commit, replayBytes)
		if err != nil {
			return err
		}
		if _, err := g.machine.Apply(entries); err != nil {
			return err
		}
		g.apply.term = entries[len(entries)-1].Term
		start.Applied = entries[len(entries)-1].Index
		if told := g.h.opts.Replaying; told != nil {
			told(g.id, start.Applied, commit)
		}
	}
	for low := start.Applied + 1; low <= start.Last; {
		entries, err := g.h.opts.Log.Entries(g.id, low, start.Last, replayBytes)
		if err != nil {
			return err
		}
		start.Tail = append(start.Tail, entries...)
		low = entries[len(entries)-1].Index + 1
	}
	return nil
}

// LostLogError says that a state cannot go on because its log is not what it was
// when the state was written: files were lost, removed or exchanged.
type LostLogError struct {
	Group id.Group
	// Mark is the position up to which the state has applied.
	Mark raft.Position
	// First and Last bound what the log has; 0 when it has nothing.
	First, Last id.Index
	Reason      string
}

// Error says what is missing.
func (e *LostLogError) Error() string {
	return fmt.Sprintf("log of group %d is lost: the store has applied index %d of term %d, %s (it has entries %d to %d)",
		e.Group, e.Mark.Index, e.Mark.Term, e.Reason, e.First, e.Last)
}
