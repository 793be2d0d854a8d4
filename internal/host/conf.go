package host

import (
	"sync"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
)

// confCall is a change of the configuration that a call waits for.
type confCall struct {
	call Call
	// after, conf and context as in raft.Node.ProposeConf.
	after   id.Index
	conf    raft.Conf
	context []byte
	index   id.Index
	term    id.Term
}

// ProposeConf changes the configuration; after, conf and context are those of
// raft.Node.ProposeConf, and the host owns them from now on. The call ends when the
// change is applied here: with its index, for a change of several voters that of
// the joint configuration. Results besides what the machine says of the change:
// raft.ErrNotLeader, raft.ErrTransferring, raft.ErrChangePending,
// raft.ErrBadChange, ErrLeaderChanged (the change was lost), ErrTimeout,
// ErrTimeoutLeader, ErrStopped. A change is never proposed again.
func (g *Group) ProposeConf(call Call, after id.Index, conf raft.Conf, context []byte) {
	c := &confCall{call: call, after: after, conf: conf, context: context}
	if !g.h.stepper.inbox.change(report{kind: reportChange, g: g, more: c}) {
		call.To.Push(Result{Tag: call.Tag, Err: ErrStopped})
		return
	}
	g.h.wake(stepStage)
}

func (s *stepper) proposeConf(g *Group, c *confCall) {
	index, err := g.node.ProposeConf(g.now, c.after, c.conf, c.context)
	if err != nil {
		s.results = append(s.results, ended{c.call.To, Result{Tag: c.call.Tag, Err: err}})
		return
	}
	c.index, c.term = index, g.node.Status().Hard.Term
	g.changes.add(c)
}

// confCalls are the changes of a group that calls wait for: at most a few.
type confCalls struct {
	mu   sync.Mutex
	list []*confCall
}

func (c *confCalls) add(x *confCall) {
	c.mu.Lock()
	c.list = append(c.list, x)
	c.mu.Unlock()
}

// end ends the calls that why says are over.
func (c *confCalls) end(to []ended, why func(*confCall) (over bool, err error)) []ended {
	return c.endWith(to, func(x *confCall) (bool, any, error) {
		over, err := why(x)
		return over, nil, err
	})
}

func (c *confCalls) endWith(to []ended, why func(*confCall) (over bool, response any, err error)) []ended {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) == 0 {
		return to
	}
	keep := c.list[:0]
	for _, x := range c.list {
		over, response, err := why(x)
		if !over {
			keep = append(keep, x)
			continue
		}
		to = append(to, ended{x.call.To, Result{Tag: x.call.Tag, Index: x.index, Response: response, Err: err}})
	}
	clear(c.list[len(keep):])
	c.list = keep
	return to
}

// settle ends the calls whose index was applied, with what the machine says of it.
func (c *confCalls) settle(to []ended, entries []raft.Entry, outcomes []command.Outcome) []ended {
	first := entries[0].Index
	return c.endWith(to, func(x *confCall) (bool, any, error) {
		switch at := int(x.index - first); {
		case x.index < first:
			return true, nil, ErrTimeoutLeader // a snapshot went over it
		case at >= len(entries):
			return false, nil, nil
		case entries[at].Term != x.term:
			return true, nil, ErrLeaderChanged
		}
		for i := range outcomes {
			if o := &outcomes[i]; o.Index == x.index && o.Origin == (command.Origin{}) {
				return true, o.Response, o.Err
			}
		}
		return true, nil, nil
	})
}

func (c *confCalls) expire(to []ended, now env.Instant) []ended {
	return c.end(to, func(x *confCall) (bool, error) { return deadlineOf(x.call) <= now, ErrTimeout })
}

func (c *confCalls) endAll(to []ended, err error) []ended {
	return c.end(to, func(*confCall) (bool, error) { return true, err })
}

func (c *confCalls) wake() env.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	wake := env.Never
	for _, x := range c.list {
		wake = min(wake, deadlineOf(x.call))
	}
	return wake
}

// followConfs keeps the configurations of the log that a snapshot may need: the
// one in effect at an applied index, and those after it (rule 10).
func (s *stepper) followConfs(g *Group, out *raft.Output) {
	st := &g.step
	if in := out.Install; in != nil {
		st.confs = append(st.confs[:0], raft.PlacedConf{Conf: in.Conf, Index: in.ConfIndex})
	}
	if len(out.Entries) == 0 {
		return
	}
	for n := len(st.confs); n > 1 && st.confs[n-1].Index >= out.Entries[0].Index; n-- {
		st.confs = st.confs[:n-1]
	}
	for i := range out.Entries {
		e := &out.Entries[i]
		if e.Kind != raft.Change {
			continue
		}
		conf, _, err := raft.DecodeChange(e.Data)
		invariant.Check(err == nil, "configuration at %d: %v", e.Index, err)
		st.confs = append(st.confs, raft.PlacedConf{Conf: conf, Index: e.Index})
	}
	if len(st.outgoing) > 0 {
		return // a state that is on its way was frozen at an index gone by
	}
	for len(st.confs) > 1 && st.confs[1].Index <= g.Applied() {
		st.confs = append(st.confs[:0], st.confs[1:]...)
	}
}

// confAt is the configuration in effect at an index that is applied.
func (g *Group) confAt(index id.Index) raft.PlacedConf {
	at := g.step.confs[0]
	for _, c := range g.step.confs {
		if c.Index <= index {
			at = c
		}
	}
	return at
}
