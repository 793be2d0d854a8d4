package server

import (
	"errors"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// RangeStream answers a range in pieces, all at the revision that the first piece
// pins. Between two pieces it holds nothing open, so a reader may take its time;
// if a compaction passes the revision meanwhile, the next piece is
// command.ErrCompacted.
type RangeStream struct {
	to     Session
	member *Member
	req    command.RangeRequest // Key is where the next piece begins
	// revision is what is read, now what the last piece's header says; both are 0
	// before the first.
	revision, now id.Revision
	left          int64 // keys that the limit still allows; negative is no bound
	sent          int64
	keys          int64 // of the next piece
}

// firstPiece is how many keys the first piece has; later ones grow until they
// weigh about half of the largest request, and shrink above twice that.
const firstPiece = 10

// RangeStream begins the answer to a range; the barrier comes before, as for
// Range. The order must be by key (command.RangeRequest.ValidateStream).
func (as Session) RangeStream(req *command.RangeRequest) *RangeStream {
	s := &RangeStream{to: as, member: as.m, req: *req, left: -1, keys: firstPiece}
	if req.Limit > 0 {
		s.left = req.Limit
	}
	return s
}

// Next returns the next piece. In the last one, and only there, Revision, More
// and Count are set. Errors: as of Range.
func (s *RangeStream) Next() (piece *command.RangeResponse, last bool, err error) {
	if s.req.CountOnly {
		piece, err := s.to.Range(&s.req)
		return piece, true, err
	}
	page, err := s.page()
	if err != nil {
		return nil, false, err
	}
	s.sent += int64(len(page.KVs))
	piece = &command.RangeResponse{KVs: page.KVs}
	if s.left >= 0 {
		s.left -= int64(len(page.KVs))
	}
	s.resize(page.Bytes)
	if page.Next != nil {
		s.req.Key = page.Next
		if s.left != 0 {
			return piece, false, nil
		}
		rest, err := s.count()
		if err != nil {
			return nil, false, err
		}
		s.sent += rest
		piece.More = true
	}
	piece.Revision, piece.Count = s.now, s.sent
	return piece, true, nil
}

// page reads the next piece. The first one pins the revision; it, and one whose
// view a snapshot has replaced, is read again from the newest view.
func (s *RangeStream) page() (mvcc.Page, error) {
	for {
		view := s.member.opts.State.View()
		if err := s.to.mayRange(view, &s.req); err != nil {
			return mvcc.Page{}, err
		}
		first, rev := s.revision == 0, s.revision
		if first {
			if rev = s.req.Revision; rev <= 0 {
				rev = view.State().Revision
			}
		}
		page, err := view.Page(&s.req, rev, s.most())
		switch {
		case s.member.opts.State.View().Auth() != view.Auth(): // judged by what is no more
		case err == nil && first:
			view.CountRange()
			s.revision, s.now = rev, view.State().Revision
			return page, nil
		case errors.Is(err, mvcc.ErrReplaced),
			errors.Is(err, command.ErrCompacted) && first && s.req.Revision <= 0:
		default:
			return page, err
		}
	}
}

// most bounds the next piece. A negative limit asks for everything at once (spec
// 2.2).
func (s *RangeStream) most() mvcc.PageLimits {
	if s.req.Limit < 0 {
		return mvcc.PageLimits{}
	}
	most := mvcc.PageLimits{Keys: s.keys, Bytes: 2 * s.member.opts.MaxRequestBytes}
	if s.left >= 0 {
		most.Keys = min(most.Keys, s.left)
	}
	return most
}

func (s *RangeStream) resize(bytes int) {
	switch {
	case bytes < s.member.opts.MaxRequestBytes/2:
		s.keys *= 2
	case bytes > 2*s.member.opts.MaxRequestBytes:
		s.keys = max(s.keys/2, 1)
	}
}

// count counts the keys behind the last one sent.
func (s *RangeStream) count() (int64, error) {
	rest := s.req
	rest.CountOnly, rest.Revision = true, s.revision
	for {
		got, err := s.to.Range(&rest)
		if errors.Is(err, mvcc.ErrReplaced) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return got.Count, nil
	}
}
