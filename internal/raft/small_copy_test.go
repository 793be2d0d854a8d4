package raft

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"reflect"
	"testing"
	"unsafe"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
)

// What makes a world of search_test.go cheap to copy and to recognise.

var smallSeed = maphash.MakeSeed()

// copyPlan is where a type has slices that a copy of it must not share.
type copyPlan []copySpot

type copySpot struct {
	offset uintptr
	slice  reflect.Type
	inside copyPlan // of an element
}

var nodePlan = planOf(reflect.TypeFor[Node]())

// planOf leaves out slices of bytes, which nobody writes twice.
func planOf(t reflect.Type) (plan copyPlan) {
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		switch f.Type.Kind() {
		case reflect.Slice:
			if f.Type.Elem().Kind() != reflect.Uint8 {
				plan = append(plan, copySpot{f.Offset, f.Type, planOf(f.Type.Elem())})
			}
		case reflect.Struct:
			for _, spot := range planOf(f.Type) {
				spot.offset += f.Offset
				plan = append(plan, spot)
			}
		case reflect.Map, reflect.Chan, reflect.Array:
			panic("a node cannot be copied: " + f.Name)
		}
	}
	return plan
}

// unshare gives what was copied slices of its own.
func (plan copyPlan) unshare(at unsafe.Pointer) {
	for i := range plan {
		spot := &plan[i]
		shared := reflect.NewAt(spot.slice, unsafe.Add(at, spot.offset)).Elem()
		length := shared.Len()
		if length == 0 {
			shared.SetZero()
			continue
		}
		own := reflect.MakeSlice(spot.slice, length, length)
		reflect.Copy(own, shared)
		shared.Set(own)
		for k := 0; len(spot.inside) > 0 && k < length; k++ {
			spot.inside.unshare(own.Index(k).Addr().UnsafePointer())
		}
	}
}

func (n *Node) copied() *Node {
	own := *n
	nodePlan.unshare(unsafe.Pointer(&own))
	return &own
}

// What is done to a copy does not show in the original.
func TestCopiesOfANodeShareNothing(t *testing.T) {
	s := smallWorlds[0].begin(nil).elect(1, members(2, 3)).settled()
	s = s.with(1, func(_ *small, r *smallReplica) { r.node.Propose(smallNow, r.node.hard.Term, []byte("x")) })
	for _, r := range s.replicas {
		before := fmt.Sprintf("%+v", *r.node)
		own := r.node.copied()
		if after := fmt.Sprintf("%+v", *own); after != before {
			t.Errorf("a copy of\n%s\nis\n%s", before, after)
		}
		own.Tick(smallNow.Add(own.cfg.Election * 2))
		own.Output()
		own.Step(smallNow, Message{From: 3, To: r.id, Term: 9, Body: &Append{Entries: []Entry{{Term: 9, Index: 1, Kind: Empty}}}})
		own.Output()
		if after := fmt.Sprintf("%+v", *r.node); after != before {
			t.Errorf("it was\n%s\nand is\n%s", before, after)
		}
	}
}

// seal computes the hash of all that decides what a replica does next: whatever
// else is in a node follows from that, or from time, which stands still.
func (r *smallReplica) seal() {
	n, b := r.node, make([]byte, 0, 256)
	number := func(values ...uint64) {
		for _, v := range values {
			b = binary.AppendUvarint(b, v)
		}
	}
	number(uint64(n.role), uint64(n.leader), uint64(n.hard.Term), uint64(n.hard.Vote), uint64(n.hard.Commit), uint64(n.applied),
		uint64(n.log.durable), uint64(n.agreed), uint64(n.acked), uint64(n.termFirst), uint64(bit(n.ackOwed)|bit(n.member)<<1), uint64(len(n.log.entries)))
	for i := range n.log.entries {
		number(uint64(n.log.entries[i].Sum))
	}
	for i := range n.confs {
		number(uint64(n.confs[i].Index))
	}
	number(uint64(r.disk.hard.Term), uint64(r.disk.hard.Vote), uint64(r.disk.hard.Commit), uint64(len(r.disk.entries)))
	for i := range r.disk.entries {
		number(uint64(r.disk.entries[i].Sum))
	}
	if n.role == Candidate {
		b = fmt.Append(b, n.tally)
	}
	if n.role == Leader {
		for i := range n.followers {
			f := &n.followers[i]
			now, bare := f.Probing()
			number(uint64(f.Member), uint64(f.State()), uint64(f.Match()), uint64(f.Next()), uint64(f.CommitSent),
				uint64(f.Leaving), uint64(f.Inflight()), uint64(bit(now)|bit(bare)<<1))
		}
	}
	for i := range n.log.claims {
		number(uint64(n.log.claims[i].last.Index))
	}
	for i := range r.flights {
		out := &r.flights[i]
		number(uint64(out.Hard.Term), uint64(out.Hard.Vote), uint64(len(out.Entries)))
		for k := range out.Entries {
			number(uint64(out.Entries[k].Sum))
		}
		for _, m := range out.After {
			b = AppendMessage(b, m)
		}
	}
	r.hash = maphash.Bytes(smallSeed, b)
}

// hash stands for a world and for what may still happen in it.
func (s *small) hash() uint64 {
	b := make([]byte, 0, 512)
	for _, r := range s.replicas {
		b = binary.LittleEndian.AppendUint64(b, r.hash)
	}
	for i := range s.committed {
		b = binary.LittleEndian.AppendUint32(b, s.committed[i].Sum)
	}
	for _, m := range s.leaders {
		b = append(b, byte(m))
	}
	l := &s.left
	b = append(b, 255, byte(l.stands), byte(l.crashes), byte(l.losses), byte(l.doubles), byte(l.proposals), byte(l.changes), byte(l.reminds))
	for i := range s.net {
		b = append(b, s.net[i].key...)
	}
	return maphash.Bytes(smallSeed, b)
}

var smallNow = env.Instant(0).Add(1e9)

func members(list ...id.Member) []id.Member { return list }
