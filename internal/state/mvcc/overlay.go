package mvcc

import (
	"bytes"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
)

// overlay holds the versions written since the last commit, so that later
// commands of the same batch see them above the engine's. Its memory is used
// again; values alias the entries being applied, or arena.
type overlay struct {
	chains []chain
	byKey  map[string]int32
	nodes  []node
	// sorted are the chains in key order, as far as ordered has seen them.
	sorted []int32
	arena  []byte
}

// chain is a key and its newest node.
type chain struct {
	key  []byte
	head int32
}

// node is a version and the node of the version before it, -1 for none.
type node struct {
	version
	before int32
}

func (o *overlay) reset() {
	clear(o.byKey)
	clear(o.chains)
	clear(o.nodes)
	o.chains, o.nodes, o.sorted, o.arena = o.chains[:0], o.nodes[:0], o.sorted[:0], o.arena[:0]
}

// own copies bytes that do not live as long as the batch. The copy stays where
// it is when the arena grows.
func (o *overlay) own(b []byte) []byte {
	start := len(o.arena)
	o.arena = append(o.arena, b...)
	return o.arena[start:len(o.arena):len(o.arena)]
}

// add makes v the newest version of key; key is copied, v's value is not.
func (o *overlay) add(key []byte, v *version) {
	if o.byKey == nil {
		o.byKey = make(map[string]int32)
	}
	n := int32(len(o.nodes))
	if i, ok := o.byKey[string(key)]; ok {
		o.nodes = append(o.nodes, node{*v, o.chains[i].head})
		o.chains[i].head = n
		return
	}
	o.nodes = append(o.nodes, node{*v, -1})
	o.byKey[string(key)] = int32(len(o.chains))
	o.chains = append(o.chains, chain{o.own(key), n})
}

// find returns the newest version of key at rev or below, nil if there is none
// here: then the engine knows.
func (o *overlay) find(key []byte, rev id.Revision) *version {
	if len(o.chains) == 0 {
		return nil
	}
	i, ok := o.byKey[string(key)]
	if !ok {
		return nil
	}
	return o.at(i, rev)
}

// at returns the newest version at rev or below of a chain.
func (o *overlay) at(chain int32, rev id.Revision) *version {
	n := o.chains[chain].head
	for n >= 0 && o.nodes[n].mod > rev {
		n = o.nodes[n].before
	}
	if n < 0 {
		return nil
	}
	return &o.nodes[n].version
}

// fewNew is how many new keys are put in their places one by one; more are
// sorted together with the rest.
const fewNew = 8

// ordered returns the chains in key order.
func (o *overlay) ordered() []int32 {
	known := len(o.sorted)
	fresh := len(o.chains) - known
	for i := known; i < len(o.chains); i++ {
		if fresh > fewNew {
			o.sorted = append(o.sorted, int32(i))
		} else {
			o.sorted = slices.Insert(o.sorted, o.place(o.sorted, o.chains[i].key), int32(i))
		}
	}
	if fresh > fewNew {
		slices.SortFunc(o.sorted, func(a, b int32) int { return bytes.Compare(o.chains[a].key, o.chains[b].key) })
	}
	return o.sorted
}

// place is where in the sorted list the first key at or after key stands.
func (o *overlay) place(list []int32, key []byte) int {
	at, _ := slices.BinarySearchFunc(list, key, func(i int32, key []byte) int {
		return bytes.Compare(o.chains[i].key, key)
	})
	return at
}

// within returns the chains of [low, high); nil for high means no end.
func (o *overlay) within(low, high []byte) []int32 {
	if len(o.chains) == 0 {
		return nil
	}
	list := o.ordered()
	list = list[o.place(list, low):]
	if high != nil {
		list = list[:o.place(list, high)]
	}
	return list
}
