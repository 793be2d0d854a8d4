package etcddb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// segment is a segment of etcd's log that is being written.
type segment struct {
	bytes []byte
	sum   uint32
}

func (s *segment) record(kind uint64, body []byte) {
	if kind == recordSum {
		s.frame(kind, nil)
		return
	}
	s.sum = crc32.Update(s.sum, castagnoli, body)
	s.frame(kind, body)
}

func (s *segment) frame(kind uint64, body []byte) {
	r := appendNumber(appendNumber(nil, 1, kind), 2, uint64(s.sum))
	r = appendBytes(r, 3, body)
	padding := (8 - len(r)%8) % 8
	head := uint64(len(r))
	if padding > 0 {
		head |= uint64(0x80|padding) << 56
	}
	s.bytes = binary.LittleEndian.AppendUint64(s.bytes, head)
	s.bytes = append(append(s.bytes, r...), make([]byte, padding)...)
}

func (s *segment) entry(index uint64, data []byte) {
	b := appendNumber(appendNumber(nil, 2, 3), 3, index)
	s.record(recordEntry, appendBytes(b, 4, data))
}

// request is a replicated request with one field.
func request(field protowire.Number) []byte {
	return protowire.AppendBytes(protowire.AppendTag(appendNumber(nil, requestID, 7), field, protowire.BytesType), []byte("\x0a\x01k"))
}

// twoSegments are a log of entries 1 to 5, of which 3 was replaced.
func twoSegments() [2][]byte {
	var s segment
	s.record(recordSum, nil)
	s.record(1, []byte("metadata"))
	s.entry(1, nil)
	s.entry(2, request(4))
	s.entry(3, request(6))
	s.record(3, []byte{0x18, 2})
	first := append(s.bytes, make([]byte, 64)...)
	s.bytes = nil
	s.record(recordSum, nil)
	s.entry(3, request(1300))
	s.entry(4, request(1106))
	s.entry(5, request(8))
	return [2][]byte{first, append(s.bytes, make([]byte, 64)...)}
}

func readLog(t *testing.T, data []byte) (said string, err error) {
	t.Helper()
	err = ReadWAL(bytes.NewReader(data), func(e Entry) { said += fmt.Sprintf("%d %v; ", e.Index, e.Changes()) })
	return said, err
}

func TestTheLogOfEtcdIsRead(t *testing.T) {
	all := ""
	for _, data := range twoSegments() {
		said, err := readLog(t, data)
		if err != nil {
			t.Fatal(err)
		}
		all += said
	}
	if want := "1 false; 2 true; 3 true; 3 false; 4 false; 5 true; "; all != want {
		t.Errorf("read %s, want %s", all, want)
	}
	if e := (Entry{Kind: 1, Data: []byte("a change of the members")}); e.Changes() {
		t.Error("a change of the members changes what is restored")
	}
	if e := (Entry{Data: []byte{0xff}}); !e.Changes() {
		t.Error("what is not understood changes nothing")
	}
}

// A record that is torn or altered is refused wherever it is; what is lost is never
// passed over in silence.
func TestADamagedLogIsRefused(t *testing.T) {
	whole := twoSegments()[1]
	end := len(bytes.TrimRight(whole, "\x00"))
	wanted, _ := readLog(t, whole)
	for at := range end {
		altered := bytes.Clone(whole)
		altered[at] ^= 0x04
		said, err := readLog(t, altered)
		if err == nil && !strings.HasPrefix(said, wanted) {
			t.Errorf("byte %d of %d altered: %s", at, end, said)
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	for cut := 1; cut < end; cut++ {
		said, err := readLog(t, whole[:cut])
		if err == nil && !strings.HasPrefix(wanted, said) {
			t.Errorf("cut at %d: %s", cut, said)
		}
	}
}

func FuzzWAL(f *testing.F) {
	for _, data := range twoSegments() {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = ReadWAL(bytes.NewReader(data), func(e Entry) { e.Changes() })
	})
}
