package server

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Peers is what a member knows of its connections to the others, and how it asks
// them something. The body is embed's, on package peer.
type Peers interface {
	// ConnectedSince is since when this member has been connected to another
	// without a break; ok is false if it is not.
	ConnectedSince(member id.Member) (since env.Instant, ok bool)
	// Ask sends a question to a member; done is called once, with its answer or
	// with why there is none, at the deadline at the latest.
	Ask(member id.Member, kind AskKind, body []byte, deadline env.Instant, done func(answer []byte, err error))
}

// AskKind says what is asked. The numbers are on the wire between members.
type AskKind uint8

// AskChange asks the leader to change the membership: command.EncodeChange.
const AskChange AskKind = 1

// AskRenew asks the leader to renew leases, AskTimeToLive what time one has left.
const (
	AskRenew      AskKind = 3
	AskTimeToLive AskKind = 4
)

// AskSum asks what a member holds up to a revision. It takes as long as reading all
// keys does, and is answered by the assembler, who may wait.
const AskSum AskKind = 5

// ErrUnstarted and ErrUnhealthy refuse a change that could cost the cluster its
// quorum; the texts are etcd's (spec 5, strict reconfiguration check).
var (
	ErrUnstarted = errors.New("etcdserver: re-configuration failed due to not enough started members")
	ErrUnhealthy = errors.New("etcdserver: unhealthy cluster")
)

const (
	// healthyFor is how long a connection must have lasted to count for the strict
	// check.
	healthyFor = 5 * time.Second
	// inSyncPercent of the leader's log a learner must have to be promoted.
	inSyncPercent = 90
)

// Change changes the membership (spec 5): on the leader by an entry of its own
// (rule 10), elsewhere by asking the leader. Results: those of member.Table.Judge,
// command.ErrLearnerNotReady, ErrUnstarted, ErrUnhealthy; host.ErrNoLeader,
// raft.ErrNotLeader, raft.ErrChangePending and raft.ErrTransferring, after which
// nothing has happened and the caller may try again; those of the judgement, the host's.
func (s Session) Change(call host.Call, c *command.MemberChange) {
	s.permitted(call, s.admin, func() { s.m.change(call, c) })
}

// change makes a change that somebody may make.
func (m *Member) change(call host.Call, c *command.MemberChange) {
	if c.Change == command.PromoteMember {
		asked := call
		call.To = completion(func(r host.Result) {
			m.measured.promoted(r.Err)
			asked.To.Push(r)
		})
	}
	leader := m.opts.Group.Leader()
	switch leader {
	case 0:
		m.end(call, host.ErrNoLeader)
	case m.opts.Member:
		m.changeHere(call, c)
	default:
		m.opts.Peers.Ask(leader, AskChange, command.EncodeChange(c), call.Deadline, func(answer []byte, err error) {
			call.To.Push(answerOf(call.Tag, answer, err))
		})
	}
}

func (m *Member) end(call host.Call, err error) { call.To.Push(host.Result{Tag: call.Tag, Err: err}) }

// changeHere checks a change against what this leader has applied, up to the
// configuration in effect, and proposes it.
func (m *Member) changeHere(call host.Call, c *command.MemberChange) {
	status := m.opts.Group.Status()
	if status.Applied < status.ConfIndex {
		m.end(call, raft.ErrChangePending)
		return
	}
	if err := m.refuse(c, &status); err != nil {
		m.end(call, err)
		return
	}
	m.opts.Group.ProposeConf(call, status.ConfIndex, confAfter(status.Conf, c), command.EncodeChange(c))
}

// refuse says why a change may not be, in the order of spec 5: an addition is looked
// at by the strict check first, other changes once it is known whom they are about.
func (m *Member) refuse(c *command.MemberChange, s *host.Status) error {
	adds := c.Change == command.AddMember || c.Change == command.AddLearner
	if adds && m.opts.StrictReconfig {
		if err := m.strict(c, s); err != nil {
			return err
		}
	}
	if err := m.opts.State.View().JudgeChange(c, m.opts.MaxLearners); err != nil {
		return err
	}
	if c.Change == command.PromoteMember && !inSync(s, c.Member) {
		return command.ErrLearnerNotReady
	}
	if !adds && m.opts.StrictReconfig {
		return m.strict(c, s)
	}
	return nil
}

// confAfter is the configuration that a change leads to. Beside a lone voter a new
// one follows at first: if it counted before it has started, nothing could be
// decided any more, not even who may start. See Raise.
func confAfter(conf raft.Conf, c *command.MemberChange) raft.Conf {
	next := raft.Conf{Voters: without(conf.Voters, c.Member), Learners: without(conf.Learners, c.Member)}
	switch {
	case c.Change == command.AddLearner, c.Change == command.AddMember && len(conf.Voters) == 1:
		next.Learners = with(next.Learners, c.Member)
	case c.Change == command.AddMember, c.Change == command.PromoteMember:
		next.Voters = with(next.Voters, c.Member)
	}
	return next
}

// Raise gives the vote to a member that has one by the table and only follows so
// far, once it has most of the log, if this member leads. It returns at once; it is
// to be called again and again.
func (m *Member) Raise() {
	if m.opts.Group.Leader() != m.opts.Member {
		return
	}
	s := m.opts.Group.Status()
	if s.Applied < s.ConfIndex {
		return
	}
	for _, member := range m.waiting(s.Conf) {
		if inSync(&s, member) && m.raise.begin() {
			c := command.MemberChange{Change: command.PromoteMember, Member: member}
			m.opts.Group.ProposeConf(host.Call{To: &m.raise, Deadline: m.Deadline()}, s.ConfIndex, confAfter(s.Conf, &c), command.EncodeChange(&c))
			return
		}
	}
}

// waiting are the members that Raise is for.
func (m *Member) waiting(conf raft.Conf) (list []id.Member) {
	view := m.opts.State.View()
	for _, learner := range conf.Learners {
		if facts, known := view.Member(learner); known && !facts.Learner {
			list = append(list, learner)
		}
	}
	return list
}

func without(list []id.Member, member id.Member) []id.Member {
	return slices.DeleteFunc(slices.Clone(list), func(m id.Member) bool { return m == member })
}

func with(list []id.Member, member id.Member) []id.Member {
	at, _ := slices.BinarySearch(list, member)
	return slices.Insert(list, at, member)
}

// inSync says whether a learner has most of the log.
func inSync(s *host.Status, member id.Member) bool {
	for i := range s.Progress {
		if p := &s.Progress[i]; p.Member == member {
			return uint64(p.Match)*100 >= uint64(s.Last.Index)*inSyncPercent
		}
	}
	return false
}

// strict refuses a change after which, or for want of members that are really
// there, the cluster could not go on.
func (m *Member) strict(c *command.MemberChange, s *host.Status) error {
	all := append(m.waiting(s.Conf), s.Conf.Voters...)
	voters := len(all)
	started, connected := m.standing(all, 0)
	switch c.Change {
	case command.AddMember, command.AddLearner:
		if c.Change == command.AddMember && started < quorum(voters+1) && (voters > 1 || started < 1) {
			return ErrUnstarted
		}
		if voters > 1 && connected < quorum(voters+1) {
			return ErrUnhealthy
		}
	case command.PromoteMember:
		if started+1 < quorum(voters+1) {
			return ErrUnstarted
		}
	case command.RemoveMember:
		if !slices.Contains(s.Conf.Voters, c.Member) {
			return nil // no vote is lost with it
		}
		others, _ := m.standing(all, c.Member)
		if voters == 1 || others < quorum(voters-1) {
			return ErrUnstarted
		}
		if !m.connected(c.Member) {
			return nil // nothing is lost with it
		}
		if connected-1 < quorum(voters-1) {
			return ErrUnhealthy
		}
	}
	return nil
}

// standing counts the voters, but for one, that have published their names, and
// those that have been connected for a while; this member is.
func (m *Member) standing(voters []id.Member, but id.Member) (started, connected int) {
	view, now := m.opts.State.View(), m.opts.Clock.Now()
	for _, voter := range voters {
		if voter == but {
			continue
		}
		if facts, known := view.Member(voter); known && facts.Name != "" {
			started++
		}
		since, ok := m.opts.Peers.ConnectedSince(voter)
		if voter == m.opts.Member || ok && now.Sub(since) >= healthyFor {
			connected++
		}
	}
	return started, connected
}

func (m *Member) connected(member id.Member) bool {
	_, ok := m.opts.Peers.ConnectedSince(member)
	return ok || member == m.opts.Member
}

func quorum(voters int) int { return voters/2 + 1 }

// Update gives a member other peer URLs. Results: command.ErrMemberNotFound,
// command.ErrPeerURLExists, the host's.
func (s Session) Update(call host.Call, u *command.MemberUpdate) { s.propose(call, nil, 0, u) }

// refusals are the ends of a change that have a number on the wire between
// members: it is their place here, from 1. Only the end of the list may grow.
var refusals = []error{
	command.ErrMemberNotFound, command.ErrMemberExists, command.ErrPeerURLExists, command.ErrTooManyLearners,
	command.ErrNotLearner, command.ErrLearnerNotReady, ErrUnstarted, ErrUnhealthy,
	raft.ErrNotLeader, raft.ErrChangePending, raft.ErrTransferring, raft.ErrBadChange,
	host.ErrLeaderChanged, host.ErrTimeout, host.ErrTimeoutLeader, host.ErrStopped, host.ErrNoLeader,
	raft.ErrBadTransferee, command.ErrLeaseNotFound, host.ErrTooManyRequests, host.ErrStalled,
}

// Answer answers a question that another member asks this one, within this member's time-out: the number of a
// refusal, 0 for none, and the index that came of it. answer is called once.
func (m *Member) Answer(kind AskKind, body []byte, answer func([]byte, error)) {
	switch kind {
	case AskChange:
	case AskNewTerm:
		m.end(host.Call{To: answerer(answer)}, m.newTerm(body))
		return
	case AskRenew:
		m.answerRenew(body, answer)
		return
	case AskTimeToLive:
		m.answerLeft(body, answer)
		return
	default:
		answer(nil, &command.UnknownError{What: "question", Number: uint64(kind)})
		return
	}
	c, err := command.DecodeChange(body)
	if err != nil {
		answer(nil, err)
		return
	}
	call := host.Call{To: answerer(answer), Deadline: m.Deadline()}
	if m.opts.Group.Leader() != m.opts.Member {
		m.end(call, raft.ErrNotLeader)
		return
	}
	m.changeHere(call, c)
}

// answerer is the Completions of a question.
type answerer func([]byte, error)

// Push sends the answer.
func (a answerer) Push(r host.Result) {
	if r.Err == nil {
		a(binary.AppendUvarint([]byte{0}, uint64(r.Index)), nil)
		return
	}
	for i := range refusals {
		if errors.Is(r.Err, refusals[i]) {
			a([]byte{byte(i + 1)}, nil)
			return
		}
	}
	a(nil, r.Err)
}

// errAnswer is a question or an answer that no member of this version gives.
var errAnswer = errors.New("server: a member said what makes no sense")

// answerOf is what an answer tells the call that asked.
func answerOf(tag uint64, answer []byte, err error) host.Result {
	rest, result := refusalOf(tag, answer, err)
	if result.Err != nil {
		return result
	}
	index, n := binary.Uvarint(rest)
	if n <= 0 {
		return host.Result{Tag: tag, Err: errAnswer}
	}
	return host.Result{Tag: tag, Index: id.Index(index)}
}

// refusalOf is the refusal that an answer is, or what follows if it is none.
func refusalOf(tag uint64, answer []byte, err error) (rest []byte, result host.Result) {
	switch {
	case err != nil:
		return nil, host.Result{Tag: tag, Err: err}
	case len(answer) == 0 || int(answer[0]) > len(refusals):
		return nil, host.Result{Tag: tag, Err: errAnswer}
	case answer[0] > 0:
		return nil, host.Result{Tag: tag, Err: refusals[answer[0]-1]}
	}
	return answer[1:], host.Result{Tag: tag}
}
