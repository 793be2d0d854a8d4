package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/member"
)

// operator changes the membership, one change at a time, through a member of its
// choice. It implements host.Completions.
type operator struct {
	w    *world
	rand *simenv.Rand
	id   int

	current *change
	tags    uint64
	wakeAt  env.Instant
}

// change is one change on its way.
type change struct {
	tag     uint64
	replica *replica
	run     int
	what    *command.MemberChange
	// swap is the voter that goes when a learner is promoted in its place: a joint
	// change, or nil.
	swap     *replica
	update   *command.MemberUpdate // instead of what
	giveUp   env.Instant
	answered bool
	result   host.Result
}

func newOperator(w *world, n int) *operator {
	return &operator{w: w, rand: w.env.Rand(fmt.Sprintf("operator %d", n)), id: n}
}

func (o *operator) String() string { return fmt.Sprintf("operator %d", o.id) }

func (c *change) String() string {
	if c.update != nil {
		return fmt.Sprintf("update %+v", *c.update)
	}
	kind := [...]string{command.AddMember: "add", command.AddLearner: "add learner", command.RemoveMember: "remove", command.PromoteMember: "promote"}
	text := fmt.Sprintf("%s m%d", kind[c.what.Change], c.what.Member)
	if c.swap != nil {
		text += fmt.Sprintf(" in the place of %v", c.swap)
	}
	return text
}

func (o *operator) due() env.Instant {
	switch c := o.current; {
	case c == nil && o.w.calm && o.w.lost == nil:
		return env.Never
	case c == nil:
		return o.wakeAt
	case c.answered || c.gone():
		return 0
	default:
		return max(c.giveUp, c.replica.machine.BusyUntil().Add(patience))
	}
}

// gone says that the member that was asked has died since.
func (c *change) gone() bool { return c.replica.host == nil || c.replica.runs != c.run }

func (o *operator) act() {
	switch c := o.current; {
	case c == nil:
		o.wakeAt = o.w.env.Now().Add(around(o.rand, o.w.swarm.members.pause))
		o.begin()
	case c.answered:
		o.end()
	case c.gone():
		o.w.trace.tell(o.w.env.Now(), "%v: connection lost", o)
		o.current = nil
	default:
		o.w.fail("%v: %v never ended", o, c)
	}
}

// begin makes a change through a member that serves, by the list of members that
// this one shows.
func (o *operator) begin() {
	r := o.w.pick(o.rand)
	if r == nil || r.host == nil || !r.published {
		return
	}
	c := o.draw(r)
	if c == nil || r.host == nil {
		return // nothing to do, or r is the one that was lost
	}
	o.tags++
	c.tag, c.replica, c.run = o.tags, r, r.runs
	timeout := o.w.swarm.load.timeout
	c.giveUp = o.w.env.Now().Add(timeout + patience)
	o.current = c
	o.w.leaving[c.leaver()]++
	o.w.trace.fold(eventCall, 1<<32|uint64(o.id), c.tag, uint64(r.member))
	o.w.trace.tell(o.w.env.Now(), "%v -> %v  %v", o, r, c)
	call := host.Call{To: o, Tag: c.tag, Deadline: r.process.Clock.Now().Add(timeout)}
	r.guard(func() {
		switch {
		case c.update != nil:
			r.services.As(o.w.master()).Update(call, c.update)
		case c.swap != nil:
			o.propose(call, r, c)
		default:
			r.services.As(o.w.master()).Change(call, c.what)
		}
	})
	r.wake()
}

// propose makes a joint change of two voters, as no call of etcd's API does.
func (o *operator) propose(call host.Call, r *replica, c *change) {
	status := r.group.Status()
	next := raft.Conf{Voters: slices.Clone(status.Conf.Voters), Learners: slices.Clone(status.Conf.Learners)}
	next.Learners = slices.DeleteFunc(next.Learners, is(c.what.Member))
	next.Voters = append(slices.DeleteFunc(next.Voters, is(c.swap.member)), c.what.Member)
	slices.Sort(next.Voters)
	if status.Applied < status.ConfIndex || status.Conf.Votes(c.what.Member) {
		call.To.Push(host.Result{Tag: call.Tag, Err: raft.ErrChangePending})
		return
	}
	r.group.ProposeConf(call, status.ConfIndex, next, command.EncodeChange(c.what))
}

// Push implements host.Completions.
func (o *operator) Push(result host.Result) {
	c := o.current
	if c == nil || c.tag != result.Tag || c.answered {
		o.w.fail("%v: a change has ended twice, or after its member did: %+v", o, result)
		return
	}
	c.answered, c.result = true, result
}

// end judges the answer.
func (o *operator) end() {
	c, w := o.current, o.w
	o.current = nil
	w.trace.fold(eventReturn, 1<<32|uint64(o.id), c.tag, uint64(c.result.Index), digestString(errorText(c.result.Err)))
	w.trace.tell(w.env.Now(), "%v <- %v  %v: index %d, %v", o, c.replica, c, c.result.Index, c.result.Err)
	if c.update != nil {
		return // the ledger's table has judged its outcome
	}
	if c.result.Err == nil {
		w.trace.mark(markChange[c.what.Change])
		if c.swap != nil {
			w.trace.mark(markJoint)
		}
		if got, want := w.ledger.changes[c.result.Index], string(command.EncodeChange(c.what)); got != want {
			w.fail("%v was told that %v is done at %d, where the log has %q", o, c, c.result.Index, got)
		}
		return
	}
	if nothingHappened(c.result.Err) {
		w.leaving[c.leaver()]--
	}
	for _, refusal := range []error{server.ErrUnhealthy, server.ErrUnstarted} {
		if errors.Is(c.result.Err, refusal) {
			w.trace.mark(markStrict)
		}
	}
	if r := w.replicaOf(c.what.Member); isAddition(c.what) && nothingHappened(c.result.Err) {
		r.asked = false
		if w.ledger.was(r.member) {
			w.fail("%v was refused %v with %v, and it has happened", o, c, c.result.Err)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// nothingHappened says whether an error promises that no change was proposed.
func nothingHappened(err error) bool {
	for _, refusal := range []error{
		command.ErrMemberNotFound, command.ErrMemberExists, command.ErrPeerURLExists, command.ErrTooManyLearners,
		command.ErrNotLearner, command.ErrLearnerNotReady, server.ErrUnhealthy, server.ErrUnstarted,
		host.ErrNoLeader, raft.ErrNotLeader, raft.ErrChangePending, raft.ErrTransferring, raft.ErrBadChange,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

func isAddition(c *command.MemberChange) bool {
	return c.Change == command.AddMember || c.Change == command.AddLearner
}

// draw decides what to change, as a careful operator: while a member is lost for
// good it is removed first.
func (o *operator) draw(r *replica) *change {
	w, list := o.w, r.services.Members()
	if len(list) == 0 {
		return nil
	}
	var voters, learners []member.Facts
	for _, f := range list {
		if f.Learner {
			learners = append(learners, f)
		} else {
			voters = append(voters, f)
		}
	}
	if w.lost != nil {
		return &change{what: &command.MemberChange{Change: command.RemoveMember, Member: w.lost.member}}
	}
	for range 4 { // much of what is drawn is not possible now
		if c := o.drawKind(list, voters, learners); c != nil {
			return c
		}
	}
	return nil
}

func (o *operator) drawKind(list, voters, learners []member.Facts) *change {
	w, s := o.w, &o.w.swarm.members
	n := o.rand.Int64N(s.total())
	for _, kind := range []struct {
		weight int64
		draw   func() *change
	}{
		{s.add, func() *change { return o.add(list, command.AddMember) }},
		{s.addLearner, func() *change { return o.add(list, command.AddLearner) }},
		{s.remove, func() *change {
			out := oneOf(o.rand, list...).ID
			if len(w.staying(out)) < s.least {
				return nil
			}
			return &change{what: &command.MemberChange{Change: command.RemoveMember, Member: out}}
		}},
		{s.replace, func() *change { return o.lose(voters) }},
		{s.promote, func() *change {
			if len(learners) == 0 {
				return nil
			}
			return &change{what: &command.MemberChange{Change: command.PromoteMember, Member: oneOf(o.rand, learners...).ID}}
		}},
		{s.swap, func() *change { return o.swap(voters, learners) }},
		{s.update, func() *change {
			m := oneOf(o.rand, list...).ID
			return &change{update: &command.MemberUpdate{Member: m, PeerURLs: []string{fmt.Sprintf("p%d.%d", m, o.rand.Int64N(3))}}}
		}},
	} {
		if n < kind.weight {
			return kind.draw()
		}
		n -= kind.weight
	}
	return nil
}

// add adds a machine that is not started yet.
func (o *operator) add(list []member.Facts, kind command.ChangeKind) *change {
	if len(list) >= o.w.swarm.members.most {
		return nil
	}
	r := o.w.spare()
	if r == nil {
		return nil
	}
	if kind == command.AddMember && len(o.w.staying(0)) < 2 {
		// A lone voter cannot take in another one: the change itself would need the
		// newcomer, which does not know of it yet.
		kind = command.AddLearner
	}
	r.asked = true
	return &change{what: &command.MemberChange{Change: kind, Member: r.member, PeerURLs: []string{fmt.Sprintf("p%d", r.member)}}}
}

// swap replaces a voter by a learner in one joint change.
func (o *operator) swap(voters, learners []member.Facts) *change {
	if len(voters) == 0 || len(learners) == 0 {
		return nil
	}
	out := o.w.replicaOf(oneOf(o.rand, voters...).ID)
	if len(o.w.staying(out.member)) == 0 || !slices.Contains(o.w.ledger.conf().Conf.Voters, out.member) {
		return nil
	}
	return &change{what: &command.MemberChange{Change: command.PromoteMember, Member: oneOf(o.rand, learners...).ID}, swap: out}
}

// lose loses a member's machine with its disk, and removes the member. It happens
// only where the others can do without it: three voters, no change under way.
func (o *operator) lose(voters []member.Facts) *change {
	w := o.w
	lost := w.replicaOf(oneOf(o.rand, voters...).ID)
	if len(w.staying(lost.member)) < max(2, w.swarm.members.least) || !w.membersAtRest() {
		return nil
	}
	if !slices.Contains(w.ledger.conf().Conf.Voters, lost.member) {
		return nil
	}
	w.trace.mark(markLost)
	w.lost = lost
	lost.retire(simenv.PowerCrash, "is lost with its disk")
	return &change{what: &command.MemberChange{Change: command.RemoveMember, Member: lost.member}}
}

// staying are the voters, but for one, that no change is about to take away.
func (w *world) staying(but id.Member) (voters []id.Member) {
	for _, m := range w.ledger.conf().Conf.Voters {
		if m != but && w.leaving[m] == 0 {
			voters = append(voters, m)
		}
	}
	return voters
}

// leaver is the voter that a change takes away, or 0.
func (c *change) leaver() id.Member {
	switch {
	case c.swap != nil:
		return c.swap.member
	case c.what != nil && c.what.Change == command.RemoveMember:
		return c.what.Member
	}
	return 0
}

// membersAtRest says that every member is up and knows of no change but those that
// are decided.
func (w *world) membersAtRest() bool {
	for _, o := range w.operators {
		if o.current != nil {
			return false
		}
	}
	conf := w.ledger.conf()
	for _, r := range w.replicas {
		switch {
		case r.gone:
		case !r.born:
			if r.asked {
				return false
			}
		case r.host == nil || r.group.Status().ConfIndex != conf.Index:
			return false
		}
	}
	return w.network.asked() == 0
}

// spare is a machine that nobody was ever told of, up to a number of machines.
func (w *world) spare() *replica {
	for _, r := range w.replicas {
		if !r.born && !r.gone && !r.asked {
			return r
		}
	}
	if len(w.replicas) >= maxMachines {
		return nil
	}
	return w.addReplica()
}

// maxMachines is how many machines a world has in all.
const maxMachines = 16

// shutdownAfter draws when an operator shuts down a member that was removed.
func (w *world) shutdownAfter() time.Duration {
	return around(w.overseer.rand, w.swarm.members.shutdown)
}
