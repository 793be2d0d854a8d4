package peer

import (
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/raft"
)

// TestEnvelopesTravel: the host's envelopes are messages, and its lanes are ours.
func TestEnvelopesTravel(t *testing.T) {
	if Lane(host.ControlLane) != Control || Lane(host.AppendLane) != Appends || Lane(host.SnapshotLane) != Snapshots {
		t.Fatal("the lanes have other numbers")
	}
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	meet(a, b)
	a.awaitConnected(b)
	sent := []host.Envelope{
		{Group: 1, From: 1, To: 2, Raft: &raft.Message{From: 1, To: 2, Term: 3, Body: &raft.Heartbeat{Commit: 4, Round: 5}}},
		{Group: 1, From: 1, To: 2, Forward: &host.Forward{Term: 3, Commands: [][]byte{[]byte("command")}}},
		{Group: 1, From: 1, To: 2, Snapshot: &host.SnapshotChunk{Term: 3, Seq: 1, Number: 4, Last: true}},
		{Group: 1, From: 1, To: 2, Receipt: &host.Receipt{Term: 3, Seq: 1, Next: 4}},
	}
	for i := range sent {
		e := &sent[i]
		if !a.Send(e.To, Lane(e.Lane()), e) {
			t.Fatal("not taken")
		}
		g := receive(t, "an envelope", b.inbox)
		got, err := host.DecodeEnvelope(g.data)
		if err != nil || g.lane != Lane(e.Lane()) || !reflect.DeepEqual(got, *e) {
			t.Errorf("%+v on %v, %v", got, g.lane, err)
		}
	}
}
