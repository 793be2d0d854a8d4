package etcddb

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Names of etcd's buckets.
const (
	bucketKeys     = "key"
	bucketMeta     = "meta"
	bucketLeases   = "lease"
	bucketAlarms   = "alarm"
	bucketAuth     = "auth"
	bucketUsers    = "authUsers"
	bucketRoles    = "authRoles"
	bucketMembers  = "members"
	bucketRemoved  = "members_removed"
	bucketCluster  = "cluster"
	revisionBytes  = 17
	tombstoneBytes = 18
)

// Revision is the key of a version in the bucket of keys.
type Revision struct {
	Main, Sub int64
	// Dead marks a deletion.
	Dead bool
}

// AppendRevision appends a revision as it lies in the file: both numbers big-endian
// with '_' between them, and 't' behind those of a deletion.
func AppendRevision(dst []byte, r Revision) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Main))
	dst = append(dst, '_')
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Sub))
	if r.Dead {
		dst = append(dst, 't')
	}
	return dst
}

// ParseRevision takes it apart; ok is false for anything else.
func ParseRevision(b []byte) (r Revision, ok bool) {
	r.Dead = len(b) == tombstoneBytes
	if len(b) != revisionBytes && !r.Dead || b[8] != '_' || r.Dead && b[revisionBytes] != 't' {
		return Revision{}, false
	}
	main, sub := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[9:])
	if main > math.MaxInt64 || sub > math.MaxInt64 {
		return Revision{}, false
	}
	r.Main, r.Sub = int64(main), int64(sub)
	return r, true
}

// Pair is one version of a key: mvccpb.KeyValue. Of a deletion only the key is there.
type Pair struct {
	Key, Value                    []byte
	Create, Mod, Version, LeaseID int64
}

// ParsePair reads the value of a row in the bucket of keys; what it returns aliases b.
func ParsePair(b []byte) (p Pair, ok bool) {
	ok = fields(b, func(n protowire.Number, number uint64, bytes []byte) {
		switch n {
		case 1:
			p.Key = bytes
		case 2:
			p.Create = int64(number)
		case 3:
			p.Mod = int64(number)
		case 4:
			p.Version = int64(number)
		case 5:
			p.Value = bytes
		case 6:
			p.LeaseID = int64(number)
		}
	})
	return p, ok
}

// fields shows the fields of a message that are numbers or bytes, in the order in
// which they stand. Others are passed over.
func fields(b []byte, field func(n protowire.Number, number uint64, bytes []byte)) (ok bool) {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return false
		}
		b = b[size:]
		switch kind {
		case protowire.VarintType:
			v, size := protowire.ConsumeVarint(b)
			if size < 0 {
				return false
			}
			field(n, v, nil)
			b = b[size:]
		case protowire.BytesType:
			v, size := protowire.ConsumeBytes(b)
			if size < 0 {
				return false
			}
			field(n, 0, v)
			b = b[size:]
		default:
			if size = protowire.ConsumeFieldValue(n, kind, b); size < 0 {
				return false
			}
			b = b[size:]
		}
	}
	return true
}

func appendNumber(dst []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, n, protowire.VarintType), v)
}

func appendBytes(dst []byte, n protowire.Number, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	return appendMessage(dst, n, b)
}

// appendMessage appends a message within one; it is there even if it is empty.
func appendMessage(dst []byte, n protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, n, protowire.BytesType), b)
}
