package v3

import (
	"context"
	"crypto/sha256"
	"hash"
	"time"

	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/storage/etcddb"
)

// resumed is what a client has of a backup whose stream broke, if it says so. A backup
// that has the same in the same place is sent without it. Whatever a client says, the
// digest at the end is that of the whole file.
type resumed struct {
	// comesBack says that the client would ask for the rest.
	comesBack bool
	etcddb.Part
	// whole is the digest of the backup up to the part's end, once it is compared.
	whole hash.Hash
}

// asked reads the metadata of a call.
func asked(ctx context.Context) (r resumed) {
	text, ok := incoming{ctx}.Metadata(etcddb.HaveKey)
	return resumed{comesBack: ok, Part: etcddb.ParsePart(text), whole: sha256.New()}
}

// nothing forgets what the client has: all is sent.
func (r *resumed) nothing() { r.Part, r.whole = etcddb.Part{}, sha256.New() }

// compareBytes are read of a backup at a time while it is compared.
const compareBytes = 1 << 20

// isOf says whether a finished backup has what the client has. It rests as long as it works.
func (r *resumed) isOf(ctx context.Context, b *server.Backup) (bool, error) {
	if r.End == 0 || r.End > b.Bytes() {
		return false, nil
	}
	part, buf := sha256.New(), make([]byte, compareBytes)
	if _, err := b.ReadAt(buf[:etcddb.HeadBytes], 0); err != nil {
		return false, err
	}
	r.whole.Reset()
	r.whole.Write(buf[:etcddb.HeadBytes])
	at := int64(etcddb.HeadBytes)
	err := paced(ctx, func() (done bool, err error) {
		n := min(int64(len(buf)), r.End-at)
		if _, err := b.ReadAt(buf[:n], at); err != nil {
			return false, err
		}
		r.whole.Write(buf[:n])
		part.Write(buf[:n])
		at += n
		return at == r.End, nil
	})
	return err == nil && [sha256.Size]byte(part.Sum(nil)) == r.Sum, err
}

// paced works step by step and rests after each for as long as that took: half a
// processor is left to those whose puts a backup shall not slow down.
func paced(ctx context.Context, step func() (done bool, err error)) error {
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		begun := time.Now()
		done, err := step()
		if err != nil || done {
			return err
		}
		rest.Reset(time.Since(begun))
		select {
		case <-rest.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
