package watch

import (
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// interest is what a subscription wants to see. Subscriptions of equal interest
// share a group.
type interest struct {
	key, end          string // end is empty for a single key
	open              bool   // from key on, without an end
	prev              bool   // with previous values
	noPuts, noDeletes bool
}

func (i *interest) single() bool { return i.end == "" && !i.open }

// covers says whether a key is in the range.
func (i *interest) covers(key []byte) bool {
	switch {
	case i.single():
		return string(key) == i.key
	case string(key) < i.key:
		return false
	}
	return i.open || string(key) < i.end
}

// takes says whether the filters let an event of the range through.
func (i *interest) takes(e *mvcc.Event) bool {
	if e.Deleted {
		return !i.noDeletes
	}
	return !i.noPuts
}

// index finds the groups whose range a key lies in: those of single keys by hash,
// those of ranges in a treap by their beginning, each node of which knows how far
// the ranges below it reach.
type index struct {
	points map[string]*group
	root   *span
	draw   uint64
	// groups are all of them, in no order that means anything.
	groups []*group
}

// span is a range of the treap and its groups.
type span struct {
	key, end    string
	open        bool
	groups      *group
	priority    uint64
	left, right *span
	// reach is the greatest end of this node and those below; endless if one of them
	// is open.
	reach   string
	endless bool
}

// firstDraw begins the sequence that shapes the treap: a constant, since the shape
// decides nothing but speed.
const firstDraw = 0x9e3779b97f4a7c15

// find returns the group of an interest, nil if there is none.
func (x *index) find(want *interest) *group {
	var g *group
	if want.single() {
		g = x.points[want.key]
	} else {
		n := x.root
		for n != nil {
			order := n.order(want)
			if order == 0 {
				g = n.groups
				break
			}
			if order > 0 {
				n = n.left
			} else {
				n = n.right
			}
		}
	}
	for g != nil && g.interest != *want {
		g = g.next
	}
	return g
}

// add takes a new group in.
func (x *index) add(g *group) {
	g.place = len(x.groups)
	x.groups = append(x.groups, g)
	if g.single() {
		if x.points == nil {
			x.points = make(map[string]*group)
		}
		g.next = x.points[g.key]
		x.points[g.key] = g
		return
	}
	x.root = x.insert(x.root, g)
}

// remove takes a group out.
func (x *index) remove(g *group) {
	last := len(x.groups) - 1
	x.groups[g.place] = x.groups[last]
	x.groups[g.place].place = g.place
	x.groups[last] = nil
	x.groups = x.groups[:last]
	if g.single() {
		if rest := without(x.points[g.key], g); rest != nil {
			x.points[g.key] = rest
		} else {
			delete(x.points, g.key)
		}
		return
	}
	x.root = x.cut(x.root, g)
}

// without returns a chain of groups less one.
func without(chain, g *group) *group {
	if chain == g {
		return g.next
	}
	for at := chain; at != nil; at = at.next {
		if at.next == g {
			at.next = g.next
			break
		}
	}
	return chain
}

// visit calls yield for every group whose range has the key.
func (x *index) visit(key []byte, yield func(*group)) {
	for g := x.points[string(key)]; g != nil; g = g.next {
		yield(g)
	}
	x.root.visit(key, yield)
}

// order compares a node with the range of an interest.
func (n *span) order(i *interest) int {
	switch {
	case n.key != i.key:
		return compare(n.key, i.key)
	case n.open != i.open:
		if n.open {
			return 1
		}
		return -1
	}
	return compare(n.end, i.end)
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (x *index) insert(n *span, g *group) *span {
	if n == nil {
		if x.draw == 0 {
			x.draw = firstDraw
		}
		x.draw ^= x.draw << 13
		x.draw ^= x.draw >> 7
		x.draw ^= x.draw << 17
		n = &span{key: g.key, end: g.end, open: g.open, groups: g, priority: x.draw}
		n.measure()
		return n
	}
	switch order := n.order(&g.interest); {
	case order == 0:
		g.next = n.groups
		n.groups = g
		return n
	case order > 0:
		n.left = x.insert(n.left, g)
		if n.left.priority > n.priority {
			return n.turnRight()
		}
	default:
		n.right = x.insert(n.right, g)
		if n.right.priority > n.priority {
			return n.turnLeft()
		}
	}
	n.measure()
	return n
}

func (x *index) cut(n *span, g *group) *span {
	if n == nil {
		return nil
	}
	switch order := n.order(&g.interest); {
	case order > 0:
		n.left = x.cut(n.left, g)
	case order < 0:
		n.right = x.cut(n.right, g)
	default:
		if n.groups = without(n.groups, g); n.groups == nil {
			return merge(n.left, n.right)
		}
	}
	n.measure()
	return n
}

// merge joins two treaps, all of left before all of right.
func merge(left, right *span) *span {
	switch {
	case left == nil:
		return right
	case right == nil:
		return left
	case left.priority > right.priority:
		left.right = merge(left.right, right)
		left.measure()
		return left
	}
	right.left = merge(left, right.left)
	right.measure()
	return right
}

func (n *span) turnRight() *span {
	up := n.left
	n.left, up.right = up.right, n
	n.measure()
	up.measure()
	return up
}

func (n *span) turnLeft() *span {
	up := n.right
	n.right, up.left = up.left, n
	n.measure()
	up.measure()
	return up
}

// measure finds the reach from the node and its children.
func (n *span) measure() {
	n.reach, n.endless = n.end, n.open
	for _, child := range [...]*span{n.left, n.right} {
		if child != nil {
			n.reach = max(n.reach, child.reach)
			n.endless = n.endless || child.endless
		}
	}
}

func (n *span) visit(key []byte, yield func(*group)) {
	for n != nil && (n.endless || string(key) < n.reach) {
		n.left.visit(key, yield)
		if string(key) < n.key {
			return
		}
		if n.open || string(key) < n.end {
			for g := n.groups; g != nil; g = g.next {
				yield(g)
			}
		}
		n = n.right
	}
}
