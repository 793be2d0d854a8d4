package v3

import (
	"context"
	"crypto/sha256"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kvorum/kvorum/internal/server"
)

const (
	// backupsAtOnce is how many clients are sent backups at once: each has a file of
	// its own on the member's disk.
	backupsAtOnce = 4
	// blobBytes are what a message carries (spec 6.3).
	blobBytes = 32 << 10
)

// Snapshot sends this member's state as a file that etcd can restore, and its digest
// (spec 6.3). The file is made first, on this member's disk: the first message says
// how long it is.
func (m *maintenance) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	ctx := stream.Context()
	if err := m.backups.enter(ctx); err != nil {
		return toWire(err)
	}
	defer m.backups.leave()
	b, err := m.save(ctx)
	if err != nil {
		return toWire(err)
	}
	err = m.make(ctx, b)
	if err == nil {
		err = sendBackup(stream, b, m.member.StorageVersion().String())
	}
	if closed := b.Close(); err == nil {
		err = closed
	}
	return toWire(err)
}

// save has the member's state saved. A caller who does not wait for it leaves it to be
// closed.
func (m *maintenance) save(ctx context.Context) (*server.Backup, error) {
	type saved struct {
		b   *server.Backup
		err error
	}
	result := make(chan saved, 1)
	m.member.Backup(func(b *server.Backup, err error) { result <- saved{b, err} })
	select {
	case s := <-result:
		return s.b, s.err
	case <-ctx.Done():
		go func() {
			if s := <-result; s.err == nil {
				_ = s.b.Close() // it never began
			}
		}()
		return nil, ctx.Err()
	}
}

// make makes the file, one at a time. It rests after each step for as long as that
// took: half a processor is left to those whose puts a backup shall not slow down.
func (m *maintenance) make(ctx context.Context, b *server.Backup) error {
	if err := m.making.enter(ctx); err != nil {
		return err
	}
	defer m.making.leave()
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		begun := time.Now()
		done, err := b.Step()
		if err != nil {
			return err
		}
		if done {
			return b.Made()
		}
		rest.Reset(time.Since(begun))
		select {
		case <-rest.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendBackup sends the file in pieces, and then the digest of all of them.
func sendBackup(stream pb.Maintenance_SnapshotServer, b *server.Backup, version string) error {
	digest := sha256.New()
	for at, size := int64(0), b.Bytes(); at < size; {
		blob := make([]byte, min(blobBytes, size-at)) // the stream may keep it
		if _, err := b.ReadAt(blob, at); err != nil {
			return err
		}
		digest.Write(blob)
		at += int64(len(blob))
		if err := stream.Send(&pb.SnapshotResponse{RemainingBytes: uint64(size - at), Blob: blob, Version: version}); err != nil {
			return err
		}
	}
	return stream.Send(&pb.SnapshotResponse{Blob: digest.Sum(nil), Version: version})
}
