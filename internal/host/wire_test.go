package host

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
)

// travellers has an envelope of every sort, and the lane that it belongs on.
func travellers() []struct {
	what string
	lane Lane
	e    Envelope
} {
	say := func(b raft.Body) Envelope {
		return Envelope{Group: 1, From: 2, To: 1<<64 - 1, Raft: &raft.Message{From: 2, To: 1<<64 - 1, Term: 300, Body: b}}
	}
	entry := raft.Entry{Term: 3, Index: 8, Kind: raft.Batch, Sum: 0xdeadbeef, Data: []byte("data")}
	return []struct {
		what string
		lane Lane
		e    Envelope
	}{
		{"heartbeat", ControlLane, say(&raft.Heartbeat{Commit: 5, Round: 6})},
		{"round reply", ControlLane, say(&raft.RoundReply{Round: 6})},
		{"vote request", ControlLane, say(&raft.VoteRequest{Pre: true, Last: raft.Position{Index: 4, Term: 3}})},
		{"vote reply", ControlLane, say(&raft.VoteReply{Granted: true})},
		{"probe", ControlLane, say(&raft.Append{Previous: raft.Position{Index: 7, Term: 3}, Commit: 7})},
		{"entries", AppendLane, say(&raft.Append{Previous: raft.Position{Index: 7, Term: 3}, Entries: []raft.Entry{entry}, Commit: 7})},
		{"append reply", ControlLane, say(&raft.AppendReply{Match: 9})},
		{"time-out now", ControlLane, say(&raft.TimeoutNow{})},
		{"read request", ControlLane, say(&raft.ReadRequest{ID: raft.ReadID{Member: 2, Boot: 77, Seq: 4}})},
		{"snapshot", SnapshotLane, say(&raft.Snapshot{At: raft.Position{Index: 9, Term: 3}, Conf: raft.Conf{Voters: []id.Member{1, 2}}})},
		{"forward", AppendLane, Envelope{Group: 1<<32 - 1, From: 2, To: 3, Forward: &Forward{Term: 9, Commands: [][]byte{[]byte("a"), []byte("bc")}}}},
		{"empty forward", AppendLane, Envelope{Group: 1, From: 2, To: 3, Forward: &Forward{Term: 9}}},
		{"refuse", ControlLane, Envelope{Group: 1, From: 2, To: 3, Refuse: &Refuse{Term: 9, Boot: 1 << 63, Seqs: []id.Seq{1, 1 << 40}}}},
		{"chunk", SnapshotLane, Envelope{Group: 1, From: 2, To: 3, Snapshot: &SnapshotChunk{At: raft.Position{Index: 9, Term: 3},
			Conf: raft.Conf{Voters: []id.Member{1, 2}}, ConfIndex: 4, Term: 5, Seq: 300, Number: 6, Bytes: []byte("chunk")}}},
		{"last chunk", SnapshotLane, Envelope{Group: 1, From: 2, To: 3, Snapshot: &SnapshotChunk{At: raft.Position{Index: 9, Term: 3},
			Conf: raft.Conf{Voters: []id.Member{1, 2}}, ConfIndex: 4, Term: 5, Seq: 300, Number: 7, Last: true}}},
		{"receipt", ControlLane, Envelope{Group: 1, From: 2, To: 3, Receipt: &Receipt{Term: 5, Seq: 300, Next: 1000}}},
		{"refusal of a snapshot", ControlLane, Envelope{Group: 1, From: 2, To: 3, Receipt: &Receipt{Term: 5, Seq: 300, Verdict: ReceiptRefused}}},
	}
}

func TestEnvelopesComeBackAndGoWhereTheyBelong(t *testing.T) {
	for _, c := range travellers() {
		data := c.e.AppendTo([]byte("before"))[len("before"):]
		got, err := DecodeEnvelope(data)
		if err != nil || !reflect.DeepEqual(got, c.e) {
			t.Errorf("%s came back as %+v, %v", c.what, got, err)
		}
		if got.Lane() != c.lane {
			t.Errorf("%s goes on lane %d, want %d", c.what, got.Lane(), c.lane)
		}
		if c.e.Size() < len(data)/2 {
			t.Errorf("%s takes %d bytes and says %d", c.what, len(data), c.e.Size())
		}
		for n := range data {
			// The chunk of a state goes to the end: a shorter one is another chunk.
			if c.e.Snapshot != nil && n >= len(data)-len(c.e.Snapshot.Bytes) {
				continue
			}
			if _, err := DecodeEnvelope(data[:n]); !errors.Is(err, ErrBadEnvelope) {
				t.Errorf("the first %d bytes of %s: %v", n, c.what, err)
			}
		}
		if c.e.Snapshot == nil {
			if _, err := DecodeEnvelope(append(bytes.Clone(data), 0)); !errors.Is(err, ErrBadEnvelope) {
				t.Errorf("%s with a byte behind it: %v", c.what, err)
			}
		}
	}
}

func TestEnvelopesOfAnotherVersionAreRefused(t *testing.T) {
	data := AppendEnvelope(nil, &travellers()[0].e)
	for at, b := range map[int]byte{0: 2, 1: 9} {
		other := bytes.Clone(data)
		other[at] = b
		if _, err := DecodeEnvelope(other); !errors.Is(err, ErrBadEnvelope) {
			t.Errorf("byte %d set to %d: %v", at, b, err)
		}
	}
}

// TestTheWorkedEnvelope is the one of docs/format/peer.md.
func TestTheWorkedEnvelope(t *testing.T) {
	e := Envelope{Group: 1, From: 2, To: 3, Raft: &raft.Message{From: 2, To: 3, Term: 4, Body: &raft.Heartbeat{Commit: 5, Round: 6}}}
	want := "01 01 01 02 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00 01 05 02 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00 04 05 06"
	if got := fmt.Sprintf("% x", AppendEnvelope(nil, &e)); got != want {
		t.Error(got)
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	for _, c := range travellers() {
		f.Add(AppendEnvelope(nil, &c.e))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := DecodeEnvelope(data)
		if err != nil {
			return
		}
		if again := AppendEnvelope(nil, &e); !bytes.Equal(again, data) {
			t.Fatalf("%x was taken for %x", data, again)
		}
	})
}
