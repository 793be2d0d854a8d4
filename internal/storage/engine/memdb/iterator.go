package memdb

import (
	"bytes"

	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// iterator walks one published version of the tree: the version cannot change,
// so nothing has to be copied or counted to keep it.
type iterator struct {
	root         *node
	lower, upper []byte
	// path leads from the root to where the iterator stands; empty is nowhere.
	path []*node
	// left says where an empty path stands: before the range, after it, or
	// nowhere yet.
	left  side
	close func()
}

type side byte

const (
	nowhere side = iota
	before
	after
)

func newIterator(root *node, lower, upper []byte, closed func()) *iterator {
	return &iterator{root: root, lower: lower, upper: upper, close: closed}
}

func checkBound(bound []byte) {
	if bound != nil {
		checkKey(bound)
	}
}

// Bound is engine.Iterator's.
func (it *iterator) Bound(lower, upper []byte) {
	checkBound(lower)
	checkBound(upper)
	it.lower, it.upper = bytes.Clone(lower), bytes.Clone(upper)
	it.path, it.left = it.path[:0], nowhere
}

// SeekGE is engine.Iterator's.
func (it *iterator) SeekGE(key []byte) bool {
	checkBound(key)
	if it.lower != nil && keys.Compare(key, it.lower) < 0 {
		key = it.lower
	}
	it.seek(key)
	return it.settle(after)
}

// SeekLT is engine.Iterator's.
func (it *iterator) SeekLT(key []byte) bool {
	checkBound(key)
	if it.upper != nil && keys.Compare(key, it.upper) > 0 {
		key = it.upper
	}
	if it.seek(key); len(it.path) == 0 {
		it.descend(it.root, (*node).toRight)
	} else {
		it.step((*node).toLeft, (*node).toRight)
	}
	return it.settle(before)
}

// Next is engine.Iterator's.
func (it *iterator) Next() bool {
	switch {
	case len(it.path) > 0:
		it.step((*node).toRight, (*node).toLeft)
	case it.left == after:
		return false
	case it.lower != nil:
		it.seek(it.lower)
	default:
		it.descend(it.root, (*node).toLeft)
	}
	return it.settle(after)
}

// NextPrefix is engine.Iterator's.
func (it *iterator) NextPrefix() bool {
	key := it.Key()
	it.seek(keys.AppendImmediateSuccessor(nil, key[:keys.Split(key)]))
	return it.settle(after)
}

// Prev is engine.Iterator's.
func (it *iterator) Prev() bool {
	switch {
	case len(it.path) > 0:
		it.step((*node).toLeft, (*node).toRight)
		return it.settle(before)
	case it.left == before:
		return false
	case it.upper != nil:
		return it.SeekLT(it.upper)
	}
	it.descend(it.root, (*node).toRight)
	return it.settle(before)
}

func (n *node) toLeft() *node  { return n.left }
func (n *node) toRight() *node { return n.right }

// seek stands on the first key at or after key.
func (it *iterator) seek(key []byte) {
	it.path = it.path[:0]
	found := 0
	for n := it.root; n != nil; {
		it.path = append(it.path, n)
		if keys.Compare(n.key, key) < 0 {
			n = n.right
			continue
		}
		found = len(it.path)
		n = n.left
	}
	it.path = it.path[:found]
}

// descend goes from n as far as it can.
func (it *iterator) descend(n *node, to func(*node) *node) {
	for ; n != nil; n = to(n) {
		it.path = append(it.path, n)
	}
}

// step goes to the neighbour on the side to.
func (it *iterator) step(to, from func(*node) *node) {
	at := it.path[len(it.path)-1]
	if child := to(at); child != nil {
		it.descend(child, from)
		return
	}
	for {
		it.path = it.path[:len(it.path)-1]
		if len(it.path) == 0 {
			return
		}
		up := it.path[len(it.path)-1]
		if to(up) != at {
			return
		}
		at = up
	}
}

// settle says whether the iterator stands on a row of its range, and remembers
// on which side it left otherwise.
func (it *iterator) settle(out side) bool {
	if len(it.path) > 0 {
		key := it.path[len(it.path)-1].key
		if (it.lower == nil || keys.Compare(key, it.lower) >= 0) && (it.upper == nil || keys.Compare(key, it.upper) < 0) {
			return true
		}
	}
	it.path, it.left = it.path[:0], out
	return false
}

// Valid is engine.Row's.
func (it *iterator) Valid() bool { return len(it.path) > 0 }

// Key is engine.Row's.
func (it *iterator) Key() []byte { return it.path[len(it.path)-1].key }

// Value is engine.Row's.
func (it *iterator) Value() ([]byte, error) { return it.path[len(it.path)-1].value, nil }

// Err is engine.Row's: memory does not fail.
func (it *iterator) Err() error { return nil }

// Close is engine.Row's.
func (it *iterator) Close() error {
	invariant.Check(it.close != nil, "iterator closed twice")
	it.close()
	it.close, it.root, it.path = nil, nil, nil
	return nil
}
