package raft

import (
	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
)

// Output returns the next thing to do; ok is false when there is nothing.
func (n *Node) Output() (out Output, ok bool) {
	if !n.dirty {
		return Output{}, false
	}
	n.dirty = false
	if n.role == Leader {
		n.endJoint()
	}
	if n.role == Leader {
		n.replicate()
	}
	n.settleRound()
	out.MustSync = n.hardDirty || n.urgent || n.install != nil || n.log.unsent <= n.log.last
	n.settleAck(out.MustSync)
	n.dirty = false // what the above made is taken along below
	out.Hard = n.hard
	if out.MustSync {
		n.takeDurable(&out)
	}
	n.takeApply(&out)
	out.Send, n.send = n.send, nil
	out.Reads, n.results = n.results, nil
	out.Loads, n.loads = n.loads, nil
	out.Saves, n.saves = n.saves, nil
	out.Events, n.events = n.events, nil
	if !out.MustSync && len(out.Send) == 0 && len(out.Apply) == 0 && len(out.Reads) == 0 &&
		len(out.Loads) == 0 && len(out.Saves) == 0 && len(out.Events) == 0 {
		return Output{}, false
	}
	n.number++
	out.Number = n.number
	if out.MustSync {
		n.claim(&out)
	}
	return out, true
}

// takeDurable moves what must be on stable storage into an Output.
func (n *Node) takeDurable(out *Output) {
	out.Install, n.install = n.install, nil
	if l := &n.log; l.unsent <= l.last {
		out.Entries = l.entries[len(l.entries)-int(l.last-l.unsent+1):]
		out.Entries = out.Entries[:len(out.Entries):len(out.Entries)]
	}
	out.After, n.after = n.after, nil
	n.urgent = false
}

// claim notes what the Output will make durable once it is persisted.
func (n *Node) claim(out *Output) {
	n.log.claim(out.Number)
	if n.hardDirty {
		n.hardDirty, n.hardNumber = false, out.Number
	}
}

// applyLimit is the last index that may be applied: committed, and durable here
// (rule 12).
func (n *Node) applyLimit() id.Index {
	if defect.On(defect.ApplyBeforeDurable) {
		return n.hard.Commit
	}
	return min(n.hard.Commit, n.log.durable)
}

func (n *Node) takeApply(out *Output) {
	limit := n.applyLimit()
	if limit <= n.applying {
		return
	}
	first := n.log.first()
	if first > n.applying+1 {
		violated("entry %d is to be applied, memory begins at %d", n.applying+1, first)
	}
	from, to := n.applying+1-first, limit+1-first
	out.Apply = n.log.entries[from:to:to]
	n.applying = limit
}
