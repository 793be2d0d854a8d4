package raft

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"pgregory.net/rapid"
)

// sample is one message of every kind.
func sample() []Message {
	read := ReadID{Member: 2, Boot: 0x1122334455667788, Seq: 300}
	bodies := []Body{
		&VoteRequest{Pre: true, Last: Position{7, 3}}, &VoteRequest{Last: Position{7, 3}, Transfer: true},
		&VoteReply{Pre: true}, &VoteReply{Granted: true},
		&Append{Previous: Position{7, 3}, Commit: 6, Round: 9},
		&Append{Previous: Position{7, 3}, Commit: 6, Round: 9, Entries: []Entry{
			{Term: 3, Index: 8, Kind: Batch, Sum: 0xdeadbeef, Data: []byte("abc")},
			{Term: 4, Index: 9, Kind: Empty, Sum: 1}}},
		&AppendReply{Match: 130}, &AppendReply{Reject: true, Previous: 7, Hint: Position{5, 2}},
		&Heartbeat{Commit: 6, Round: 9}, &RoundReply{Round: 9},
		&Snapshot{At: Position{7, 3}, Conf: Conf{Voters: []id.Member{1, 2}, Learners: []id.Member{7}, Outgoing: []id.Member{2, 3}}, ConfIndex: 4, Handle: 77},
		&TimeoutNow{}, &ReadRequest{ID: read}, &ReadReply{ID: read, Index: 8}, &ReadReply{ID: read, Refused: true},
	}
	var all []Message
	for _, b := range bodies {
		all = append(all, Message{From: 1, To: 2, Term: 5, Body: b})
	}
	return all
}

// Every message comes back as it went, and no byte of it can be missing or
// added.
func TestMessagesSurviveEncoding(t *testing.T) {
	for _, m := range sample() {
		data := AppendMessage([]byte("x"), m)[1:]
		back, err := DecodeMessage(data)
		if err != nil || !reflect.DeepEqual(back, m) {
			t.Errorf("%T: %+v came back as %+v, %v", m.Body, m.Body, back.Body, err)
		}
		for n := range data {
			if _, err := DecodeMessage(data[:n]); !errors.Is(err, ErrBadMessage) {
				t.Errorf("%T cut to %d of %d bytes: %v", m.Body, n, len(data), err)
			}
		}
		if _, err := DecodeMessage(append(bytes.Clone(data), 0)); !errors.Is(err, ErrBadMessage) {
			t.Errorf("%T with a byte too many: %v", m.Body, err)
		}
	}
}

// The bytes of version 1 never change: other members, of other builds, read them.
func TestMessageBytesOfVersionOne(t *testing.T) {
	got := hex.EncodeToString(AppendMessage(nil, sample()[5]))
	want := "0103" + "0100000000000000" + "0200000000000000" + "05" +
		"0703" + "06" + "09" + "02" +
		"0103" + "efbeadde" + "03616263" +
		"0204" + "01000000" + "00"
	if got != want {
		t.Errorf("append is\n%s, was\n%s", got, want)
	}
	got = hex.EncodeToString(EncodeConf(Conf{Voters: []id.Member{1, 0x0203}}))
	if want := "01" + "02" + "0100000000000000" + "0302000000000000" + "00" + "00"; got != want {
		t.Errorf("configuration is\n%s, was\n%s", got, want)
	}
	got = hex.EncodeToString(EncodeChange(Conf{Voters: []id.Member{1}, Learners: []id.Member{9}, Outgoing: []id.Member{1, 2}}, []byte("who")))
	if want := "01" + "01" + "0100000000000000" + "01" + "0900000000000000" + "02" + "0100000000000000" + "0200000000000000" + "77686f"; got != want {
		t.Errorf("change is\n%s, was\n%s", got, want)
	}
}

// A change that the first version wrote was a configuration alone.
func TestAConfAloneIsAChange(t *testing.T) {
	want := Conf{Voters: []id.Member{1, 2}}
	if c, context, err := DecodeChange(EncodeConf(want)); err != nil || context != nil || !c.equal(want) {
		t.Errorf("decoded as %v with %q, %v", c, context, err)
	}
	if c, context, err := DecodeChange(EncodeChange(want, []byte{0, 0})); err != nil || string(context) != "\x00\x00" || !c.equal(want) {
		t.Errorf("decoded as %v with %q, %v", c, context, err)
	}
}

// A configuration that this program could not obey is refused.
func TestConfsThatAreRefused(t *testing.T) {
	good := EncodeConf(Conf{Voters: []id.Member{1, 2}})
	spoil := func(at int, b byte) []byte {
		data := bytes.Clone(good)
		data[at] = b
		return data
	}
	for name, data := range map[string][]byte{
		"empty":                    {},
		"another version":          spoil(0, 2),
		"a learner too few":        append(bytes.Clone(good[:len(good)-2]), 2, 9, 0, 0, 0, 0, 0, 0, 0, 0),
		"another half, cut":        append(bytes.Clone(good[:len(good)-1]), 1, 9, 0, 0, 0, 0, 0, 0),
		"unsorted":                 spoil(10, 0),
		"a voter too few":          spoil(1, 3),
		"more than it holds":       spoil(1, 200),
		"a learner that votes":     EncodeConf(Conf{Voters: []id.Member{1, 2}, Learners: []id.Member{2}}),
		"a learner that voted":     EncodeConf(Conf{Voters: []id.Member{1}, Learners: []id.Member{2}, Outgoing: []id.Member{2}}),
		"learners in disorder":     EncodeConf(Conf{Voters: []id.Member{1}, Learners: []id.Member{3, 2}}),
		"outgoing twice":           EncodeConf(Conf{Voters: []id.Member{1}, Outgoing: []id.Member{3, 3}}),
		"joint without a new half": EncodeConf(Conf{Outgoing: []id.Member{3}}),
		"nobody's number":          EncodeConf(Conf{Voters: []id.Member{0, 1}}),
	} {
		if c, err := DecodeConf(data); !errors.Is(err, ErrBadConf) {
			t.Errorf("%s: decoded as %v, %v", name, c, err)
		}
		if c, _, err := DecodeChange(data); !errors.Is(err, ErrBadConf) {
			t.Errorf("%s: a change decoded as %v, %v", name, c, err)
		}
	}
	if c, err := DecodeConf(append(bytes.Clone(good), 0)); !errors.Is(err, ErrBadConf) {
		t.Errorf("with something after it: %v, %v", c, err)
	}
	if c, err := DecodeConf(EncodeConf(Conf{})); err != nil || c.Voters != nil {
		t.Errorf("nobody: %v, %v", c, err)
	}
}

func TestRandomAppendsSurviveEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := &Append{Previous: Position{id.Index(rapid.Uint64Range(0, 1<<40).Draw(t, "index")), id.Term(rapid.Uint64().Draw(t, "term"))},
			Commit: id.Index(rapid.Uint64().Draw(t, "commit")), Round: rapid.Uint64().Draw(t, "round")}
		for i := range rapid.IntRange(0, 5).Draw(t, "entries") {
			e := Entry{Index: a.Previous.Index + id.Index(i) + 1, Term: id.Term(rapid.Uint64().Draw(t, "entry term")),
				Kind: Kind(rapid.Byte().Draw(t, "kind")), Sum: rapid.Uint32().Draw(t, "sum")}
			if data := rapid.SliceOf(rapid.Byte()).Draw(t, "data"); len(data) > 0 {
				e.Data = data
			}
			a.Entries = append(a.Entries, e)
		}
		m := Message{From: id.Member(rapid.Uint64().Draw(t, "from")), To: 2, Term: 1, Body: a}
		if back, err := DecodeMessage(AppendMessage(nil, m)); err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("%+v came back as %+v, %v", a, back.Body, err)
		}
	})
}

// Whatever decodes encodes to the same bytes: every message has one form.
func FuzzDecodeMessage(f *testing.F) {
	for _, m := range sample() {
		f.Add(AppendMessage(nil, m))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeMessage(data)
		if err != nil {
			return
		}
		if again := AppendMessage(nil, m); !bytes.Equal(again, data) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", data, m.Body, again)
		}
	})
}

func FuzzDecodeConf(f *testing.F) {
	f.Add(EncodeConf(Conf{}))
	f.Add(EncodeConf(Conf{Voters: []id.Member{1, 2, 3}}))
	f.Add(EncodeChange(Conf{Voters: []id.Member{1, 2}, Learners: []id.Member{4}, Outgoing: []id.Member{1, 3}}, []byte("context")))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, context, err := DecodeChange(data)
		if err != nil {
			return
		}
		if !c.valid() || !bytes.Equal(EncodeChange(c, context), data) {
			t.Fatalf("%x decodes to %v with %x", data, c, context)
		}
		if alone, err := DecodeConf(data); (err == nil) != (context == nil) || err == nil && !alone.equal(c) {
			t.Fatalf("%x decodes to %v alone, %v", data, alone, err)
		}
	})
}
