package etcddb

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// Entry is one entry of etcd's log.
type Entry struct {
	Index, Term, Kind uint64
	Data              []byte
}

// Kinds of records and of entries.
const (
	recordEntry = 2
	recordSum   = 4
	lastRecord  = 5 // metadata, state and snapshots are the others

	entryNormal = 0
)

// mostRecord bounds the length of a record that is believed.
const mostRecord = 1 << 30

// ReadWAL shows the entries in one segment of etcd's log, in the order in which they
// were written: one with an index that was there before replaces that and all after
// it. A segment ends with zeros or with its file. Sums are checked, and a record that
// is torn is refused like one that is damaged: nobody can tell here which it is, and
// the etcd that wrote it mends it at its next start. Errors: ErrDamaged, the reader's.
func ReadWAL(segment io.Reader, entry func(Entry)) error {
	in := bufio.NewReaderSize(segment, 1<<16)
	var sum uint32
	for {
		data, err := readFrame(in)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return damaged("the log ends within a record")
		}
		if err != nil || data == nil {
			return err
		}
		var kind, want uint64
		var body []byte
		ok := fields(data, func(n protowire.Number, number uint64, b []byte) {
			switch n {
			case 1:
				kind = number
			case 2:
				want = number
			case 3:
				body = b
			}
		})
		if !ok || kind == 0 || kind > lastRecord {
			return damaged("a record of the log")
		}
		if kind == recordSum {
			if sum != 0 && uint32(want) != sum {
				return damaged("a sum of the log")
			}
			sum = uint32(want)
			continue
		}
		if sum = crc32.Update(sum, castagnoli, body); uint32(want) != sum {
			return damaged("the sum of a record of the log")
		}
		if kind == recordEntry {
			e, ok := parseEntry(body)
			if !ok {
				return damaged("an entry of the log")
			}
			entry(e)
		}
	}
}

// readFrame reads a record; nil at the end. Its length is followed by padding to 8 bytes.
func readFrame(in *bufio.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	frame := binary.LittleEndian.Uint64(head[:])
	if frame == 0 {
		return nil, nil
	}
	length := frame & (1<<56 - 1)
	padding := uint64(0)
	if frame>>63 == 1 {
		padding = frame >> 56 & 7
	}
	if length > mostRecord {
		return nil, damaged("a record of %d bytes in the log", length)
	}
	data := make([]byte, 0, min(length+padding, 1<<20))
	for uint64(len(data)) < length+padding {
		n := min(length+padding-uint64(len(data)), 1<<20)
		begin := len(data)
		data = append(data, make([]byte, n)...)
		if _, err := io.ReadFull(in, data[begin:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return data[:length], nil
}

func parseEntry(b []byte) (e Entry, ok bool) {
	ok = fields(b, func(n protowire.Number, number uint64, b []byte) {
		switch n {
		case 1:
			e.Kind = number
		case 2:
			e.Term = number
		case 3:
			e.Index = number
		case 4:
			e.Data = b
		}
	})
	return e, ok
}

// Numbers of the fields of etcd's replicated requests: those that change nothing that
// is restored.
const (
	requestHeader = 100
	requestID     = 1
	requestV2     = 2
	requestRange  = 3
	requestToken  = 1012
	requestAuth   = 1013 // whether permissions are checked
	requestUser   = 1102 // one, or all of them, or all roles, or one
	requestUsers  = 1106
	requestRoles  = 1107
	requestRole   = 1202
	firstOfServer = 1300 // facts about members and versions follow
)

// Changes says whether an entry may change what a backup holds. A leader's empty
// entry, a change of the members, and what members tell of themselves do not: members
// are dropped when a backup is restored.
func (e *Entry) Changes() bool {
	if e.Kind != entryNormal || len(e.Data) == 0 {
		return false
	}
	changes := false
	whole := fields(e.Data, func(n protowire.Number, _ uint64, _ []byte) {
		switch n {
		case requestHeader, requestID, requestV2, requestRange, requestToken, requestAuth, requestUser, requestUsers, requestRoles, requestRole:
		default:
			changes = changes || n < firstOfServer
		}
	})
	return changes || !whole
}
