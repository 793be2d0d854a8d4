package mvcc

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Page is the next piece of a range that is read in pieces.
type Page struct {
	KVs []command.KeyValue
	// Next is the key that the next page begins with; nil when the range has ended.
	Next []byte
	// Bytes is what KVs weigh: keys, values and something for each.
	Bytes int
}

// PageLimits end a page, whichever is met first; one with a limit also ends after a
// megabyte of rows. A page has at least one key if the range has. Zero is no limit.
type PageLimits struct {
	Keys  int64
	Bytes int
}

// Page reads the first keys of a range in key order, at a revision that the view
// still has. Of the request it obeys key, end and keys-only. Errors: as of Range.
func (v *View) Page(r *command.RangeRequest, rev id.Revision, most PageLimits) (Page, error) {
	if err := v.readable(rev); err != nil {
		return Page{}, err
	}
	s, err := v.scan(r.Key, r.End, rev)
	if err != nil {
		return Page{}, err
	}
	defer s.close()
	var page Page
	var copies arena
	walk := 0
	for {
		key, ver, err := s.next()
		if err != nil || ver == nil {
			return page, err
		}
		if (PageLimits{int64(len(page.KVs)), page.Bytes}).met(most) || walk >= walkBytes && len(page.KVs) > 0 && most != (PageLimits{}) {
			page.Next = append([]byte{}, key...)
			return page, nil
		}
		walk += len(key) + len(ver.value) + pairBytes
		if r.KeysOnly {
			ver.value = nil
		}
		page.Bytes += pairWeight(r, key, ver)
		page.KVs = append(page.KVs, answer(key, ver, copies.copy))
	}
}
