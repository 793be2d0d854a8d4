package backup_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/etcddb"
)

// The file of a later moment begins, behind its head, with all whole pages of versions
// of the earlier one: whoever has those goes on with the later file (decision 0035).
// After a compaction of what is in them it does not.
func TestALaterFileBeginsWithTheSame(t *testing.T) {
	for seed := range uint64(4) {
		draw := rand.New(rand.NewPCG(seed, 9))
		r := newReplica(t)
		more := func(commands int) {
			for range commands {
				key := fmt.Appendf(nil, "k%d", draw.IntN(50))
				put := &command.PutRequest{Key: key, Value: bytes.Repeat([]byte{byte(draw.Uint32())}, draw.IntN(9000))}
				switch draw.IntN(8) {
				case 0:
					r.do(&command.DeleteRangeRequest{Key: key})
				case 1:
					r.do(&command.TxnRequest{Success: []command.Op{{Put: put}, {Put: &command.PutRequest{Key: []byte("beside")}}}})
				default:
					r.do(put)
				}
			}
		}
		more(150)
		early := r.save()
		r.do(&command.LeaseGrant{ID: 7, TTL: 60}, &command.RoleAdd{Name: "r"})
		more(1 + draw.IntN(100))
		late := r.save()
		same := common(early, late)
		// What is not the same is at most what of the versions was in pages that were not
		// full yet: a leaf and the branches above it; the buckets of everything else follow.
		if least := len(early) - 20*etcddb.PageBytes; same < least {
			t.Errorf("seed %d: %d bytes of %d are the same as in a file of %d", seed, same, len(early), len(late))
		}
		now := r.m.View().State().Revision
		r.do(&command.CompactRequest{Revision: now - 20})
		if same := common(early, r.save()); same > len(early)/2 {
			t.Errorf("seed %d: %d bytes of %d are the same after a compaction", seed, same, len(early))
		}
	}
}

// common is up to where two files are equal behind their heads.
func common(a, b []byte) int {
	at := etcddb.HeadBytes
	for at < min(len(a), len(b)) && a[at] == b[at] {
		at++
	}
	return at
}
