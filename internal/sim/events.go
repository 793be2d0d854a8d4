package sim

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
	"github.com/kvorum/kvorum/internal/watch"
)

// event is a change of a key as the oracle made it.
type event struct {
	command.KeyValue
	deleted bool
	// covered: the same revision has a later change of the key.
	covered bool
	// prev is the key one revision before, nil if it was not there.
	prev *command.KeyValue
}

// eventLedger is every event of the group in order, learnt from the oracle.
type eventLedger struct {
	list []event
	// first is the place in list of the first event of each revision, and of those
	// without one that of the next event; from revision 0 on.
	first []int
	live  map[string]command.KeyValue
}

func newEventLedger() eventLedger {
	return eventLedger{first: []int{0, 0}, live: map[string]command.KeyValue{}}
}

// take takes over what the oracle has written since the last time, which is of one
// revision or, where leases ended, of several. It returns the new events.
func (l *eventLedger) take(oracle *model.Store) []event {
	begin := len(l.list)
	for _, v := range oracle.Since(begin) {
		e := event{KeyValue: v.KeyValue, deleted: v.Deleted}
		for int(v.ModRevision) >= len(l.first) {
			l.settle()
			l.first = append(l.first, len(l.list))
		}
		if had, ok := l.live[string(v.Key)]; ok {
			e.prev = &had
		}
		for i := l.first[v.ModRevision]; i < len(l.list); i++ {
			l.list[i].covered = l.list[i].covered || bytes.Equal(l.list[i].Key, v.Key)
		}
		l.list = append(l.list, e)
	}
	l.settle()
	return l.list[begin:]
}

// settle brings live up to the last event: a revision is whole.
func (l *eventLedger) settle() {
	for _, e := range l.list[l.first[len(l.first)-1]:] {
		if e.deleted {
			delete(l.live, string(e.Key))
		} else {
			l.live[string(e.Key)] = e.KeyValue
		}
	}
}

// last is the revision of the last event.
func (l *eventLedger) last() id.Revision { return id.Revision(len(l.first) - 1) }

// from lists the events from a revision on.
func (l *eventLedger) from(rev id.Revision) []event {
	if rev > l.last() {
		return nil
	}
	return l.list[l.first[max(rev, 0)]:]
}

// takes says whether a watch is to see an event.
func takes(r *watch.Request, e *event) bool {
	if e.deleted && r.NoDeletes || !e.deleted && r.NoPuts {
		return false
	}
	switch {
	case len(r.End) == 0:
		return bytes.Equal(e.Key, r.Key)
	case len(r.End) == 1 && r.End[0] == 0:
		return bytes.Compare(e.Key, r.Key) >= 0
	}
	return bytes.Compare(e.Key, r.Key) >= 0 && bytes.Compare(e.Key, r.End) < 0
}

// seen is an event as a watch was told it.
type seen struct {
	kv      command.KeyValue
	deleted bool
	prev    *command.KeyValue
}

var errWire = errors.New("not the fields events of a WatchResponse")

// decodeEvents reads the fields events of pb.WatchResponse.
func decodeEvents(wire []byte) (list []seen, err error) {
	err = eachField(wire, func(number protowire.Number, body []byte, _ uint64) error {
		if number != 11 {
			return errWire
		}
		var s seen
		err := eachField(body, func(number protowire.Number, body []byte, n uint64) (err error) {
			switch number {
			case 1:
				s.deleted = n == 1
			case 2:
				s.kv, err = decodeKV(body)
			case 3:
				s.prev = &command.KeyValue{}
				*s.prev, err = decodeKV(body)
			default:
				err = errWire
			}
			return err
		})
		list = append(list, s)
		return err
	})
	return list, err
}

// decodeKV reads mvccpb.KeyValue.
func decodeKV(wire []byte) (kv command.KeyValue, err error) {
	err = eachField(wire, func(number protowire.Number, body []byte, n uint64) error {
		switch number {
		case 1:
			kv.Key = body
		case 2:
			kv.CreateRevision = id.Revision(n)
		case 3:
			kv.ModRevision = id.Revision(n)
		case 4:
			kv.Version = int64(n)
		case 5:
			kv.Value = body
		case 6:
			kv.Lease = id.Lease(n)
		default:
			return errWire
		}
		return nil
	})
	return kv, err
}

// eachField shows the fields of a message, of which there are bytes and numbers.
func eachField(wire []byte, field func(number protowire.Number, body []byte, n uint64) error) error {
	for len(wire) > 0 {
		number, kind, size := protowire.ConsumeTag(wire)
		if size < 0 {
			return errWire
		}
		wire = wire[size:]
		var body []byte
		var n uint64
		switch kind {
		case protowire.BytesType:
			body, size = protowire.ConsumeBytes(wire)
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(wire)
		default:
			size = -1
		}
		if size < 0 {
			return errWire
		}
		wire = wire[size:]
		if err := field(number, body, n); err != nil {
			return err
		}
	}
	return nil
}

func sameKV(a, b *command.KeyValue) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && a.CreateRevision == b.CreateRevision &&
		a.ModRevision == b.ModRevision && a.Version == b.Version && a.Lease == b.Lease
}

func kvText(kv *command.KeyValue) string {
	if kv == nil {
		return "none"
	}
	return fmt.Sprintf("%q=%q@%d created %d version %d lease %d", kv.Key, kv.Value, kv.ModRevision, kv.CreateRevision, kv.Version, kv.Lease)
}

// matches says what is wrong with an event that a watch was told. What is compacted
// may have lost its previous value.
func (e *event) matches(s *seen, wantPrev bool, compacted id.Revision) error {
	if s.deleted != e.deleted || !sameKV(&s.kv, &e.KeyValue) {
		return fmt.Errorf("deleted %v %s,\n\twant deleted %v %s", s.deleted, kvText(&s.kv), e.deleted, kvText(&e.KeyValue))
	}
	switch want := e.prev; {
	case !wantPrev && s.prev == nil:
	case wantPrev && s.prev == nil && (want == nil || e.ModRevision-1 < compacted):
	case !wantPrev, s.prev == nil, want == nil, !sameKV(s.prev, want):
		return fmt.Errorf("%s with the previous %s,\n\twant %s", kvText(&s.kv), kvText(s.prev), kvText(want))
	}
	return nil
}
