package mvcc

import (
	"bytes"
	"reflect"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/id"
)

// A row after its two leading bytes is the wire form of an mvccpb.KeyValue
// without its key: an answer may take it as it is.
func TestRowsAreTheWireFormOfAnswers(t *testing.T) {
	for _, v := range []version{
		{create: 2, mod: 300, sub: 1, number: 9, lease: 77, value: []byte("value")},
		{create: 1 << 40, mod: 1 << 62, number: 1 << 62, lease: -5, value: bytes.Repeat([]byte("x"), 300)},
		{create: 5, mod: 5, number: 1},
	} {
		row := appendVersion([]byte("before"), &v)[len("before"):]
		var kv mvccpb.KeyValue
		if err := proto.Unmarshal(row[2:], &kv); err != nil {
			t.Fatal(err)
		}
		if kv.CreateRevision != int64(v.create) || kv.ModRevision != int64(v.mod) || kv.Version != v.number ||
			kv.Lease != int64(v.lease) || !bytes.Equal(kv.Value, v.value) {
			t.Errorf("%+v reads as %v", v, &kv)
		}
		got, err := decodeVersion(row, v.mod, v.sub)
		if err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("%+v, %v; want %+v", got, err, v)
		}
		if _, err := decodeVersion(row, v.mod-1, v.sub); err == nil {
			t.Error("a row under another revision's key was taken")
		}
	}
}

// An appended pair is what the generated code makes of it, byte for byte, though a row
// has its lease before its value.
func TestAppendedPairsAreMarshalledOnes(t *testing.T) {
	for _, lease := range []id.Lease{0, 7, 300, 1 << 61, -5} {
		for _, value := range [][]byte{nil, []byte("v"), bytes.Repeat([]byte{tagLease}, 300)} {
			for _, keysOnly := range []bool{false, true} {
				v := version{create: tagLease, mod: 1 << 40, number: tagLease<<7 + 1, lease: lease, value: value}
				key := bytes.Repeat([]byte("k"), 1+len(value))
				pair := &mvccpb.KeyValue{Key: key, CreateRevision: int64(v.create), ModRevision: int64(v.mod), Version: v.number, Lease: int64(lease)}
				if !keysOnly {
					pair.Value = value
				}
				want, err := proto.Marshal(&pb.RangeResponse{Kvs: []*mvccpb.KeyValue{pair}})
				if err != nil {
					t.Fatal(err)
				}
				row := appendVersion(nil, &v)
				got := appendItem(nil, key, row, keysOnly)
				if !bytes.Equal(got, want) || itemSize(key, row, keysOnly) != len(want) {
					t.Errorf("%+v, keys only %v: %d bytes\n%x, want\n%x", v, keysOnly, itemSize(key, row, keysOnly), got, want)
				}
			}
		}
	}
}

func TestBytesOfRows(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want []byte
	}{
		{"version", appendVersion(nil, &version{create: 2, mod: 3, number: 2, lease: 9, value: []byte("hi")}),
			[]byte{0, 8, 0x10, 2, 0x18, 3, 0x20, 2, 0x30, 9, 0x2a, 2, 'h', 'i'}},
		{"tombstone", appendVersion(nil, &version{mod: 4, dead: true}), []byte{1, 2, 0x18, 4}},
		{"first change", appendChange(nil, &change{key: []byte("k")}), []byte{0, 'k'}},
		{"later change", appendChange(nil, &change{key: []byte("k"), prevMain: 300, prevSub: 1, prevValue: 5}), []byte{2, 0xac, 2, 1, 5, 'k'}},
		{"deletion", appendChange(nil, &change{key: []byte("k"), dead: true, prevMain: 3}), []byte{3, 3, 0, 0, 'k'}},
		{"numbers", appendNumbers(nil, 5, -1, 0), []byte{1, 10, 1, 0}},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s: % x, want % x", c.name, c.got, c.want)
		}
	}
}

func FuzzVersionRow(f *testing.F) {
	f.Add(appendVersion(nil, &version{create: 2, mod: 3, number: 2, lease: 9, value: []byte("hi")}), int64(3))
	f.Add(appendVersion(nil, &version{mod: 4, dead: true}), int64(4))
	f.Fuzz(func(t *testing.T, row []byte, mod int64) {
		v, err := decodeVersion(row, id.Revision(mod), 0)
		if err != nil {
			return
		}
		if again := appendVersion(nil, &v); !bytes.Equal(again, row) {
			t.Fatalf("read % x, wrote % x", row, again)
		}
	})
}

func FuzzChangeRow(f *testing.F) {
	f.Add(appendChange(nil, &change{key: []byte("k"), prevMain: 3, prevSub: 1, prevValue: 5}), int64(9))
	f.Add(appendChange(nil, &change{key: []byte("k"), dead: true, prevMain: 3}), int64(9))
	f.Fuzz(func(t *testing.T, row []byte, mod int64) {
		c, err := decodeChange(row, id.Revision(mod), 5)
		if err != nil {
			return
		}
		if again := appendChange(nil, &c); !bytes.Equal(again, row) {
			t.Fatalf("read % x, wrote % x", row, again)
		}
	})
}

func FuzzNumbersRow(f *testing.F) {
	f.Add(appendNumbers(nil, 5, -1, 0))
	f.Fuzz(func(t *testing.T, row []byte) {
		var n [3]int64
		if decodeNumbers(row, n[:]) != nil {
			return
		}
		if again := appendNumbers(nil, n[:]...); !bytes.Equal(again, row) {
			t.Fatalf("read % x, wrote % x", row, again)
		}
	})
}
