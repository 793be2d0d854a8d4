package mvcc

import (
	"bytes"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
)

// overlay holds the versions written since the last commit, so that later
// commands of the same batch see them above the engine's. Few ask for them: a put
// knows of the version before it by the tips. So versions are put in their chains
// when somebody asks. The overlay's memory is used again; values alias the entries
// being applied, or arena.
type overlay struct {
	nodes []node
	// indexed of the nodes are in chains.
	indexed int
	chains  []chain
	byKey   map[string]int32
	// sorted are the chains in key order, as far as ordered has seen them.
	sorted []int32
	arena  []byte
}

// chain is a key and its newest node.
type chain struct {
	key  []byte
	head int32
}

// node is a version of a key and, once it is in a chain, the node of the version
// before it, -1 for none.
type node struct {
	version
	key    []byte
	before int32
}

func (o *overlay) reset() {
	clear(o.byKey)
	clear(o.chains)
	clear(o.nodes)
	o.nodes, o.indexed, o.chains, o.sorted, o.arena = o.nodes[:0], 0, o.chains[:0], o.sorted[:0], o.arena[:0]
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
	o.nodes = append(o.nodes, node{version: *v, key: o.own(key)})
}

// index puts what was added since it was last called into chains.
func (o *overlay) index() {
	if o.byKey == nil {
		o.byKey = make(map[string]int32)
	}
	for ; o.indexed < len(o.nodes); o.indexed++ {
		n := &o.nodes[o.indexed]
		i, ok := o.byKey[string(n.key)]
		if !ok {
			i = int32(len(o.chains))
			o.byKey[string(n.key)] = i
			o.chains = append(o.chains, chain{n.key, -1})
		}
		n.before, o.chains[i].head = o.chains[i].head, int32(o.indexed)
	}
}

// find returns the newest version of key at rev or below, nil if there is none
// here: then the engine knows.
func (o *overlay) find(key []byte, rev id.Revision) *version {
	if len(o.nodes) == 0 {
		return nil
	}
	o.index()
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
	if len(o.nodes) == 0 {
		return nil
	}
	o.index()
	list := o.ordered()
	list = list[o.place(list, low):]
	if high != nil {
		list = list[:o.place(list, high)]
	}
	return list
}
