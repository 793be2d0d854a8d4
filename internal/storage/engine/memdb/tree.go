package memdb

import (
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// A tree is a treap: ordered by key, and a heap by a priority that is a hash of
// the key, so that its shape depends on its content alone. A published tree never
// changes: an edit copies the nodes on its way, once each.
type node struct {
	key, value  []byte
	left, right *node
	priority    uint32
	// born is the edit that made the node and may still change it.
	born uint64
}

// edit changes a tree into its next version. Nodes of its own it changes in
// place; they are not published yet.
type edit struct {
	root  *node
	born  uint64
	bytes int64 // growth of the tree's weight
}

// rowOverheadBytes is about what a row weighs besides its key and value.
const rowOverheadBytes = 96

func (n *node) weight() int64 { return int64(len(n.key)+len(n.value)) + rowOverheadBytes }

func (e *edit) own(n *node) *node {
	if n.born == e.born {
		return n
	}
	c := *n
	c.born = e.born
	return &c
}

// set keeps key and value: they must not change any more.
func (e *edit) set(key, value []byte) { e.root = e.setAt(e.root, key, value) }

func (e *edit) setAt(n *node, key, value []byte) *node {
	if n == nil {
		n = &node{key: key, value: value, priority: priorityOf(key), born: e.born}
		e.bytes += n.weight()
		return n
	}
	n = e.own(n)
	switch c := keys.Compare(key, n.key); {
	case c == 0:
		e.bytes += int64(len(value) - len(n.value))
		n.value = value
	case c < 0:
		n.left = e.setAt(n.left, key, value)
		if n.left.priority > n.priority {
			l := n.left
			n.left, l.right = l.right, n
			return l
		}
	default:
		n.right = e.setAt(n.right, key, value)
		if n.right.priority > n.priority {
			r := n.right
			n.right, r.left = r.left, n
			return r
		}
	}
	return n
}

func (e *edit) delete(key []byte) {
	if get(e.root, key) != nil {
		e.root = e.deleteAt(e.root, key)
	}
}

// deleteAt removes a key that is there.
func (e *edit) deleteAt(n *node, key []byte) *node {
	switch c := keys.Compare(key, n.key); {
	case c == 0:
		e.bytes -= n.weight()
		return e.merge(n.left, n.right)
	case c < 0:
		n = e.own(n)
		n.left = e.deleteAt(n.left, key)
	default:
		n = e.own(n)
		n.right = e.deleteAt(n.right, key)
	}
	return n
}

// deleteRange removes [lower, upper).
func (e *edit) deleteRange(lower, upper []byte) {
	left, rest := e.split(e.root, lower)
	middle, right := e.split(rest, upper)
	e.bytes -= weightOf(middle)
	e.root = e.merge(left, right)
}

// merge joins two trees, all keys of l being less than all of r.
func (e *edit) merge(l, r *node) *node {
	switch {
	case l == nil:
		return r
	case r == nil:
		return l
	case l.priority >= r.priority:
		l = e.own(l)
		l.right = e.merge(l.right, r)
		return l
	}
	r = e.own(r)
	r.left = e.merge(l, r.left)
	return r
}

// split cuts a tree into the keys less than key and the others.
func (e *edit) split(n *node, key []byte) (l, r *node) {
	if n == nil {
		return nil, nil
	}
	n = e.own(n)
	if keys.Compare(n.key, key) < 0 {
		n.right, r = e.split(n.right, key)
		return n, r
	}
	l, n.left = e.split(n.left, key)
	return l, n
}

func get(n *node, key []byte) *node {
	for n != nil {
		c := keys.Compare(key, n.key)
		if c == 0 {
			return n
		}
		if c < 0 {
			n = n.left
		} else {
			n = n.right
		}
	}
	return nil
}

// walk visits rows in order until visit returns false.
func walk(n *node, visit func(key, value []byte) bool) bool {
	return n == nil || walk(n.left, visit) && visit(n.key, n.value) && walk(n.right, visit)
}

func weightOf(n *node) int64 {
	if n == nil {
		return 0
	}
	return weightOf(n.left) + n.weight() + weightOf(n.right)
}

// priorityOf is FNV-1a with a final mix: keys that differ in their last bytes
// only, as versions do, must still spread.
func priorityOf(key []byte) uint32 {
	h := uint64(14695981039346656037)
	for _, b := range key {
		h = (h ^ uint64(b)) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return uint32(h)
}
