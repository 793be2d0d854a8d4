package server

import (
	"errors"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// List answers a range in key order in the form of the wire, slice by slice, all at
// the revision that its first slice pins (rule 33). Its pairs may be appended from
// the start on; meanwhile, or before, what is left may be measured, so that the length
// of the answer is known before the answer is there. Between two slices nothing is
// open; a compaction that passes the revision ends the list with
// command.ErrCompacted.
type List struct {
	to  Session
	req command.RangeRequest
	// revision is what is read, now what the header shows; both are 0 before the
	// first slice.
	revision, now id.Revision
	made          mvcc.Place
	seen          mvcc.Place // ahead of made, if measuring
	measuring     bool
}

var errLength = errors.New("server: a list is not as long as it was measured")

// List begins the answer to a range (command.RangeRequest.KeyOrder), whose key and end
// must stay as they are; the barrier comes before, as for Range.
func (s Session) List(req *command.RangeRequest) *List {
	return &List{to: s, req: *req, made: mvcc.StartAt(req)}
}

// Append appends the next pairs: as many as dst has room for, one at least if any is
// left, and no more than the limits say. Errors, which leave dst as it was: as of
// Range.
func (l *List) Append(dst []byte, most mvcc.PageLimits) ([]byte, error) {
	err := l.slice(func(view *state.View) (err error) {
		dst, err = view.AppendSlice(dst, &l.req, l.revision, &l.made, most)
		return err
	})
	if err == nil && l.made.Over && l.measuring && l.made.Bytes != l.seen.Bytes {
		err = errLength
	}
	return dst, err
}

// Measure goes on to measure what is left, until Left knows it. Errors: as of Range.
func (l *List) Measure() error {
	if !l.measuring {
		l.measuring, l.seen = true, l.made.Clone()
	}
	err := l.slice(func(view *state.View) error {
		return view.MeasureSlice(&l.req, l.revision, &l.seen)
	})
	if err == nil && l.seen.Over {
		l.made.Last = l.seen.Pairs
		l.made.Over = l.made.Pairs == l.seen.Pairs
	}
	return err
}

// Left is how many bytes are still to be appended; negative while that is not known.
func (l *List) Left() int64 {
	switch {
	case l.made.Over:
		return 0
	case l.measuring && l.seen.Over:
		return l.seen.Bytes - l.made.Bytes
	}
	return -1
}

// Size is how many bytes all pairs have, once Left is known.
func (l *List) Size() int64 { return l.made.Bytes + l.Left() }

// Pairs is how many there are, once Left is known.
func (l *List) Pairs() int64 {
	if l.measuring {
		return l.seen.Pairs
	}
	return l.made.Pairs
}

// Now is the revision that the header of the answer shows, once there was a slice.
func (l *List) Now() id.Revision { return l.now }

// Told is what the answer says behind its pairs, once Left is known.
func (l *List) Told() mvcc.Appended {
	if l.measuring {
		return l.seen.Appended
	}
	return l.made.Appended
}

// slice runs one slice on the newest view, which also judges it. The first one pins the revision; it, and
// one whose view a snapshot has replaced, is begun again.
func (l *List) slice(walk func(*state.View) error) error {
	for {
		view := l.to.m.opts.State.View()
		if err := l.to.mayRange(view, &l.req); err != nil {
			return err
		}
		first := l.revision == 0
		if first {
			l.now = view.State().Revision
			if l.revision = l.req.Revision; l.revision <= 0 {
				l.revision = l.now
			}
		}
		err := walk(view)
		if err == nil {
			if first {
				view.CountRange()
			}
			return nil
		}
		if first {
			l.revision = 0
		}
		if !errors.Is(err, mvcc.ErrReplaced) && !(errors.Is(err, command.ErrCompacted) && first && l.req.Revision <= 0) {
			return err
		}
	}
}

// pieceBytes is what a piece of a stream weighs at most, but for its last pair: it is
// made in one go, and is in memory as a whole (rule 32).
const pieceBytes = 224 << 10

// RangePieces is RangeStream in the form of the wire, on a List.
type RangePieces struct {
	*List
	keys int64 // of the next piece; it grows until pieces weigh half of what they may
}

// RangePieces begins the answer to a range whose limit is not negative; see List.
func (s Session) RangePieces(req *command.RangeRequest) *RangePieces {
	return &RangePieces{s.List(req), firstPiece}
}

// Next appends the pairs of the next piece. Behind the last one Now and Told are what
// it says besides. Errors: as of List.Append.
func (p *RangePieces) Next(dst []byte) (out []byte, last bool, err error) {
	start := len(dst)
	dst, err = p.Append(dst, mvcc.PageLimits{Keys: p.keys, Bytes: pieceBytes})
	for err == nil && !p.made.Over && p.limited() { // what is behind the limit is counted
		dst, err = p.Append(dst, mvcc.PageLimits{})
	}
	if err != nil {
		return dst[:start], false, err
	}
	if p.made.Weight < pieceBytes/2 {
		p.keys *= 2
	}
	return dst, p.made.Over, nil
}

// limited says that all pairs there may be were appended.
func (p *RangePieces) limited() bool {
	return p.req.CountOnly || p.req.Limit > 0 && p.made.Pairs >= p.req.Limit
}
