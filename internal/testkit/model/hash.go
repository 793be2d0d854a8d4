package model

import (
	"encoding/binary"
	"hash/crc32"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/id"
)

// HashKV is the sum that HashKV answers with (spec 6.2) at a revision of a store
// that is compacted at another: one pass over every version in the order of
// revisions, with etcd's bytes of each. What is compacted and superseded at rev is
// left out.
func (s *Store) HashKV(rev, compacted id.Revision) uint32 {
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	h.Write([]byte("key"))
	sub, last, superseded := uint64(0), id.Revision(0), s.superseded(rev)
	for i, v := range s.versions {
		if sub++; v.ModRevision != last {
			sub, last = 0, v.ModRevision
		}
		if v.ModRevision > rev || v.ModRevision <= compacted && (superseded[i] || v.Deleted) {
			continue
		}
		key := binary.BigEndian.AppendUint64(nil, uint64(v.ModRevision))
		key = binary.BigEndian.AppendUint64(append(key, '_'), sub)
		kv := mvccpb.KeyValue{Key: v.Key}
		if v.Deleted {
			key = append(key, 't')
		} else {
			kv.Value, kv.Lease, kv.Version = v.Value, int64(v.Lease), v.Version
			kv.CreateRevision, kv.ModRevision = int64(v.CreateRevision), int64(v.ModRevision)
		}
		row, err := proto.Marshal(&kv)
		if err != nil {
			panic(err) // no message of bytes and numbers is refused
		}
		h.Write(key)
		h.Write(row)
	}
	return h.Sum32()
}
