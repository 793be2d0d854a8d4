package mvcc

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// A long answer is made slice by slice at one revision, with nothing open between
// two (rules 23, 33): first it is measured, then, at its reader's pace, appended. A
// walk of either kind goes on where its Place says.

// Place is how far a walk over an answer in key order has got.
type Place struct {
	// From is the key that the next slice begins with; its memory is the Place's.
	From []byte
	// Pairs have gone by, which are Bytes in the form of the wire.
	Pairs, Bytes int64
	// Weight is what those of the last slice count where answers are cut by their size.
	Weight int
	// Last, unless negative, is how many pairs there are: the walk is over behind
	// them, and what is behind a limit is not counted once more.
	Last int64
	// Appended is what is known so far.
	Appended
	Over bool
	// walked: the fences do not know what is behind the limit.
	walked bool
}

// StartAt is the beginning of the answer to a request.
func StartAt(r *command.RangeRequest) Place {
	return Place{From: append([]byte(nil), r.Key...), Last: -1}
}

// Clone is a place with memory of its own, for another walk to go on from.
func (p *Place) Clone() Place {
	own := *p
	own.From = append([]byte(nil), p.From...)
	return own
}

const (
	// pairBytes is what a pair is taken to weigh beside its key and value, where
	// answers are cut by their size: more than it does on the wire.
	pairBytes = 32
	// walkBytes of rows are walked over in one slice: what one iterator is for.
	walkBytes = sliceBytes
)

// AppendSlice appends the next pairs of the answer in the form of AppendRange, one at
// least if there is one: no more than the limits say or, if they do not bound the
// bytes, as many as dst has room for.
// With an error dst comes back, perhaps in another place, and at is as it was.
// Errors: as of Range.
func (v *View) AppendSlice(dst []byte, r *command.RangeRequest, rev id.Revision, at *Place, most PageLimits) ([]byte, error) {
	start := len(dst)
	err := v.slice(r, rev, at, most, func(key, row []byte) bool {
		if most.Bytes == 0 && len(dst) > start && len(dst)+itemSize(key, row, r.KeysOnly) > cap(dst) {
			return false
		}
		before := len(dst)
		dst = appendItem(dst, key, row, r.KeysOnly)
		at.Bytes += int64(len(dst) - before)
		return true
	})
	if err != nil {
		return dst[:start], err
	}
	return dst, nil
}

// MeasureSlice goes on by a megabyte of rows and appends nothing. Errors: as of
// Range.
func (v *View) MeasureSlice(r *command.RangeRequest, rev id.Revision, at *Place) error {
	return v.slice(r, rev, at, PageLimits{}, func(key, row []byte) bool {
		at.Bytes += int64(itemSize(key, row, r.KeysOnly))
		return true
	})
}

// slice walks on until the limits are met, take wants no more, or enough was walked
// over.
func (v *View) slice(r *command.RangeRequest, rev id.Revision, at *Place, most PageLimits, take func(key, row []byte) bool) error {
	if err := v.readable(rev); err != nil {
		return err
	}
	if at.Over = at.Over || at.Last >= 0 && at.Pairs >= at.Last; at.Over {
		return nil
	}
	s, err := v.scan(at.From, r.End, rev)
	defer s.close()
	if err != nil {
		return err
	}
	s.rows = !r.Filtered()
	was := *at
	if err := s.slice(r, at, most, take); err != nil {
		*at = was
		return err
	}
	return nil
}

// slice is View.slice on the scan of what is left.
func (s *scan) slice(r *command.RangeRequest, at *Place, most PageLimits, take func(key, row []byte) bool) error {
	walk, page := 0, PageLimits{}
	at.Weight = 0
	for {
		full := r.CountOnly || r.Limit > 0 && at.Pairs >= r.Limit && !r.Filtered()
		if full && !at.walked && s.countable() {
			n, err := s.rest()
			at.Count, at.More, at.Over = at.Count+n, at.More || n > 0 && !r.CountOnly, true
			return err
		}
		at.walked = full
		key, ver, err := s.next()
		if err != nil || ver == nil {
			at.Over = err == nil
			return err
		}
		if page.met(most) || walk >= walkBytes {
			at.From = append(at.From[:0], key...)
			return nil
		}
		walk += len(key) + len(ver.value) + pairBytes
		switch {
		case r.CountOnly || at.More || !passes(r, ver):
		case r.Limit > 0 && at.Pairs >= r.Limit:
			at.More = true
		default:
			if !take(key, s.row) { // a view has no overlay: what was found is a row
				at.From = append(at.From[:0], key...)
				return nil
			}
			at.Pairs++
			page.Keys++
			page.Bytes += pairWeight(r, key, ver)
			at.Weight = page.Bytes
		}
		at.Count++
		if at.Over = at.Pairs == at.Last; at.Over {
			return nil
		}
	}
}

// met says whether a page has reached its limits.
func (p PageLimits) met(most PageLimits) bool {
	return p.Keys > 0 && (most.Keys > 0 && p.Keys >= most.Keys || most.Bytes > 0 && p.Bytes >= most.Bytes)
}

// pairWeight is what a pair counts where answers are cut by their size.
func pairWeight(r *command.RangeRequest, key []byte, ver *version) int {
	weight := len(key) + pairBytes
	if !r.KeysOnly {
		weight += len(ver.value)
	}
	return weight
}
