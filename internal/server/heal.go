package server

import (
	"encoding/binary"
	"slices"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// AskNewTerm asks the leader to hand over to another voter than the one who asks:
// that is damaged, and votes again only in a later term (rule 5). Without that a
// well led cluster would have one vote less for as long as it is well led.
const AskNewTerm AskKind = 2

// Heal asks for the later term that this damaged member needs; done is called once,
// with nil when a transfer has begun. Errors: host.ErrNoLeader, raft.ErrNotLeader,
// raft.ErrBadTransferee (there is no other voter to lead), the connection's.
func (m *Member) Heal(done func(error)) {
	leader := m.opts.Group.Leader()
	if leader == 0 || leader == m.opts.Member {
		done(host.ErrNoLeader)
		return
	}
	m.opts.Peers.Ask(leader, AskNewTerm, binary.AppendUvarint(nil, uint64(m.opts.Member)), m.Deadline(), func(answer []byte, err error) {
		done(answerOf(0, answer, err).Err)
	})
}

// newTerm hands the leadership to the voter with the longest log, but not to the one
// who asks, whom the question names.
func (m *Member) newTerm(question []byte) error {
	number, n := binary.Uvarint(question)
	if n <= 0 {
		return errAnswer
	}
	from := id.Member(number)
	status := m.opts.Group.Status()
	if status.Role != raft.Leader {
		return raft.ErrNotLeader
	}
	var heir raft.Progress
	for _, p := range status.Progress {
		other := p.Member != from && p.Member != m.opts.Member
		if other && p.Active && p.Match >= max(1, heir.Match) && slices.Contains(status.Conf.Voters, p.Member) {
			heir = p
		}
	}
	if heir.Member == 0 {
		return raft.ErrBadTransferee
	}
	return m.opts.Group.Transfer(heir.Member)
}
