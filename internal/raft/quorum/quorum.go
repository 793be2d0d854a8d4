// Package quorum is the mathematics of majorities: how far a majority has come,
// and whether an election is won, lost or still open. It knows nothing of logs,
// time or messages.
//
// Two majorities of one set of voters always share a voter; so do a majority of
// a set and a majority of the same set with one voter more or less (thesis 4.1).
// Everything that raft promises rests on that.
package quorum

import (
	"cmp"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
)

// Size is the least number of voters that is a majority of n; n at least 1.
func Size(n int) int { return n/2 + 1 }

// Reached returns the greatest value v such that a majority of the voters has a
// value of at least v: the committed index of a set of match indices, or the
// confirmed round of a set of acknowledged rounds. It orders values in place.
// Nobody is no majority: of no values it returns the zero value, which is the
// least one of every type that it is used with.
func Reached[T cmp.Ordered](values []T) T {
	if len(values) == 0 {
		var none T
		return none
	}
	slices.Sort(values)
	return values[len(values)-Size(len(values))]
}

// Outcome is where an election stands.
type Outcome uint8

// The outcomes of an election.
const (
	Open Outcome = iota
	Won
	Lost
)

// String names an outcome.
func (o Outcome) String() string { return [...]string{"open", "won", "lost"}[o] }

// Tally counts the answers of one election. The zero value is an election that
// nobody has answered.
type Tally struct{ answers []answer }

type answer struct {
	voter   id.Member
	granted bool
}

// Reset begins another election.
func (t *Tally) Reset() { t.answers = t.answers[:0] }

// Record notes an answer. The first answer of a voter is the one that counts:
// a voter has one vote, and a later message may be an old one that was late.
func (t *Tally) Record(voter id.Member, granted bool) {
	for _, a := range t.answers {
		if a.voter == voter {
			return
		}
	}
	t.answers = append(t.answers, answer{voter, granted})
}

// Both is where an election stands that must be won among two sets of voters.
func Both(a, b Outcome) Outcome {
	switch {
	case a == Lost || b == Lost:
		return Lost
	case a == Won && b == Won:
		return Won
	}
	return Open
}

// Outcome says where the election stands among these voters; answers of others
// do not count. Without voters no election is ever won.
func (t *Tally) Outcome(voters []id.Member) Outcome {
	if len(voters) == 0 {
		return Lost
	}
	granted, refused := 0, 0
	for _, a := range t.answers {
		switch {
		case !slices.Contains(voters, a.voter):
		case a.granted:
			granted++
		default:
			refused++
		}
	}
	switch need := Size(len(voters)); {
	case granted >= need:
		return Won
	case len(voters)-refused < need:
		return Lost
	default:
		return Open
	}
}
