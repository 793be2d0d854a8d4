package state

import (
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
)

func TestEveryKindOfCommandHasItsAction(t *testing.T) {
	n := 0
	for _, kind := range command.Kinds() {
		if int(kind) >= len(table) || table[kind].do == nil {
			t.Errorf("no action for %v", kind)
		}
		n++
	}
	for kind, row := range table {
		if row.do != nil {
			n--
		} else if command.Kind(kind).Class() != 0 {
			t.Errorf("no action for %v", command.Kind(kind))
		}
	}
	if n != 0 {
		t.Errorf("%d actions without a kind", -n)
	}
}

func FuzzChunk(f *testing.F) {
	c := chunk{group: 1, at: raft.Position{Index: 7, Term: 2}, number: 3, last: true}
	f.Add(c.encode(nil, nil, nil, 0, nil))
	key, value := []byte("\x00\x00\x00\x01mname\x00"), []byte("value")
	f.Add(c.encode(nil, key, key, 1, appendBytes(appendBytes(nil, key), value)))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeChunk(b)
		if err != nil {
			return
		}
		var rows, first, last []byte
		for i, r := range got.rows {
			if i == 0 {
				first = r.key
			}
			last = r.key
			rows = appendBytes(appendBytes(rows, r.key), r.value)
		}
		if len(got.rows) == 0 {
			return
		}
		if again := got.encode(nil, first, last, len(got.rows), rows); len(again) > len(b) {
			t.Fatalf("read %x, wrote %x", b, again)
		}
	})
}

func FuzzMark(f *testing.F) {
	f.Add(appendMark(nil, raft.Position{Index: 7, Term: 2}, nil))
	f.Add(appendMark(nil, raft.Position{Index: 7, Term: 2}, &raft.PlacedConf{Conf: raft.Conf{Voters: []id.Member{1, 9}, Learners: []id.Member{4}}, Index: 5}))
	f.Add(append(appendMark(nil, raft.Position{Index: 7, Term: 2}, nil)[:17], 1)) // as the first version wrote it
	f.Fuzz(func(t *testing.T, row []byte) {
		at, loaded, err := decodeMark(row)
		first := len(row) == markBytes && row[17] == 1
		if err == nil && !first && string(appendMark(nil, at, loaded)) != string(row) {
			t.Fatalf("read %v from %x", at, row)
		}
	})
}
