package auth

import (
	"bytes"
	"slices"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/state/command"
)

// span is the keys from low up to, not including, high; all from low on if open.
type span struct {
	low, high []byte
	open      bool
}

// spanOf is the keys that a range means (spec 1.6). A range whose end is not behind
// its key holds none, and stays what it is for covers.
func spanOf(key, end []byte) span {
	switch {
	case len(end) == 0:
		return span{low: key, high: append(key[:len(key):len(key)], 0)}
	case openEnd(end):
		return span{low: key, open: true}
	}
	return span{low: key, high: end}
}

// spans are what somebody may read or write: sorted, none touching the next.
type spans []span

// joined makes spans of any list; it changes the list.
func joined(list []span) spans {
	slices.SortFunc(list, func(a, b span) int { return bytes.Compare(a.low, b.low) })
	out := list[:0]
	for _, s := range list {
		if !s.open && bytes.Compare(s.low, s.high) >= 0 {
			continue // holds no key
		}
		last := len(out) - 1
		switch {
		case last < 0 || !out[last].open && bytes.Compare(out[last].high, s.low) < 0 && !defect.On(defect.GapCovered):
			out = append(out, s)
		case out[last].open:
		case s.open || bytes.Compare(out[last].high, s.high) < 0:
			out[last].high, out[last].open = s.high, s.open
		}
	}
	return slices.Clip(out)
}

// at finds the only span that can hold key: the last one that begins at it or before.
func (l spans) at(key []byte) *span {
	i, found := slices.BinarySearchFunc(l, key, func(s span, key []byte) int { return bytes.Compare(s.low, key) })
	if !found {
		i--
	}
	if i < 0 || !l[i].open && bytes.Compare(key, l[i].high) >= 0 {
		return nil
	}
	return &l[i]
}

// covers says whether all keys of a range are allowed. A range that holds no key is
// judged like etcd does: something that is allowed must reach over it.
func (l spans) covers(key, end []byte) bool {
	over := l.at(key)
	switch {
	case over == nil:
		return false
	case len(end) == 0:
		return true
	case backward(key, end):
		return bytes.Compare(over.low, end) < 0
	case over.open:
		return true
	case openEnd(end):
		return false
	}
	return bytes.Compare(end, over.high) <= 0
}

// openEnd says whether a range goes on to the last key.
func openEnd(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// backward says whether a range holds no key.
func backward(key, end []byte) bool {
	return len(end) > 0 && !openEnd(end) && bytes.Compare(end, key) <= 0
}

// everything says whether all keys are allowed.
func (l spans) everything() bool {
	return len(l) == 1 && l[0].open && bytes.Compare(l[0].low, []byte{0}) <= 0
}

// grants is what the roles of a user come to: the union of their permissions.
type grants struct {
	root        bool
	read, write spans
}

// grantsOf unites the permissions of roles.
func (t *Table) grantsOf(roles []string) (g grants) {
	for _, name := range roles {
		if name == Root {
			g.root = true
		}
		role := t.Role(name)
		if role == nil {
			continue // root need not have been made
		}
		for i := range role.Permissions {
			p := &role.Permissions[i]
			s := spanOf(p.Key, p.End)
			if p.Type == command.PermitRead || p.Type == command.PermitReadWrite {
				g.read = append(g.read, s)
			}
			if p.Type == command.PermitWrite || p.Type == command.PermitReadWrite {
				g.write = append(g.write, s)
			}
		}
	}
	g.read, g.write = joined(g.read), joined(g.write)
	return g
}

// compareRanges orders permissions by key, then end.
func compareRanges(a, b *command.Permission) int {
	if c := bytes.Compare(a.Key, b.Key); c != 0 {
		return c
	}
	return bytes.Compare(a.End, b.End)
}
