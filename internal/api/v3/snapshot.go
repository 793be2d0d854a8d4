package v3

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"

	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/storage/etcddb"
)

const (
	// backupsAtOnce is how many clients are sent backups at once: each has a file of
	// its own on the member's disk.
	backupsAtOnce = 4
	// blobBytes are what a message carries: with what is around them less than the 32 KiB
	// of spec 6.3, since gRPC has buffers of that size and then of a megabyte, cleared
	// for each message on either side.
	blobBytes = 32<<10 - 512
)

// Snapshot sends this member's state as a file that etcd can restore, and its digest
// (spec 6.3). The file is made first, on this member's disk: the first message says
// how long it is. To a client who comes back for the rest of one that broke only that is
// sent, of the same file if it is still there, else of a new one that begins with the same.
func (m *maintenance) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	ctx := stream.Context()
	if err := m.backups.enter(ctx); err != nil {
		return toWire(err)
	}
	defer m.backups.leave()
	has := asked(ctx)
	b, same, err := m.backup(ctx, &has)
	if err != nil {
		return toWire(err)
	}
	if same {
		err = stream.SetHeader(metadata.Pairs(etcddb.LeftOutKey, has.Span()))
	} else {
		has.nothing()
	}
	if err == nil {
		err = m.sendKept(stream, b, &has)
	}
	gone(b)
	return toWire(err)
}

// removeRest is how long the disk is left alone between two pieces of a file that goes.
const removeRest = 20 * time.Millisecond

// remove gives a backup back, bit by bit if nobody has it besides: a long file that goes at
// once keeps the disk busy, and puts wait behind that. What cannot be removed is what the
// next start removes.
func remove(b *server.Backup) {
	for {
		if more, err := b.Shrink(); !more || err != nil {
			break
		}
		time.Sleep(removeRest)
	}
	_ = b.Close()
}

// backup finds a finished backup with what the client has, or makes one; same says
// whether it has.
func (m *maintenance) backup(ctx context.Context, has *resumed) (b *server.Backup, same bool, err error) {
	if b = m.member.KeptBackup(); b != nil {
		if same, err = has.isOf(ctx, b); same {
			return b, true, nil
		}
		gone(b)
	}
	if err != nil {
		return nil, false, err
	}
	if b, err = m.save(ctx); err != nil {
		return nil, false, err
	}
	if err = m.make(ctx, b); err == nil {
		same, err = has.isOf(ctx, b)
	}
	if err != nil {
		gone(b)
		return nil, false, err
	}
	return b, same, nil
}

// sendKept sends a backup that stays for a while if that breaks and the client comes back.
func (m *maintenance) sendKept(stream pb.Maintenance_SnapshotServer, b *server.Backup, has *resumed) error {
	version := m.member.StorageVersion().String()
	if !has.comesBack {
		return sendBackup(stream, b, has, version)
	}
	// It is kept from the beginning: a client may come back before the end of its
	// connection is known here.
	m.keep(b)
	err := sendBackup(stream, b, has, version)
	if err == nil {
		b.Drop()
		return nil
	}
	m.keep(b)
	time.AfterFunc(server.KeepBackupFor, func() { gone(m.member.DropBackup(false)) })
	return err
}

// keep has a backup kept in the place of another.
func (m *maintenance) keep(b *server.Backup) { gone(b.Keep()) }

// gone removes what is not kept any more, if anything.
func gone(b *server.Backup) {
	if b != nil {
		go remove(b)
	}
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

// make makes the file, one at a time; one that is kept gives way to it.
func (m *maintenance) make(ctx context.Context, b *server.Backup) error {
	if err := m.making.enter(ctx); err != nil {
		return err
	}
	defer m.making.leave()
	gone(m.member.DropBackup(true))
	if err := paced(ctx, b.Step); err != nil {
		return err
	}
	return b.Made()
}

// sendBackup sends the file in pieces, without what the client has behind its head, and
// then the digest of all of it.
func sendBackup(stream pb.Maintenance_SnapshotServer, b *server.Backup, has *resumed, version string) error {
	size := b.Bytes()
	spans := [][2]int64{{0, size}}
	left := size
	if has.End > 0 {
		spans = [][2]int64{{0, etcddb.HeadBytes}, {has.End, size}}
		left -= has.End - etcddb.HeadBytes
	}
	for _, span := range spans {
		for at := span[0]; at < span[1]; {
			blob := make([]byte, min(blobBytes, span[1]-at)) // the stream may keep it
			if _, err := b.ReadAt(blob, at); err != nil {
				return err
			}
			if at >= has.End { // what is before is in the digest
				has.whole.Write(blob)
			}
			at += int64(len(blob))
			left -= int64(len(blob))
			if err := stream.Send(&pb.SnapshotResponse{RemainingBytes: uint64(left), Blob: blob, Version: version}); err != nil {
				return err
			}
		}
	}
	return stream.Send(&pb.SnapshotResponse{Blob: has.whole.Sum(nil), Version: version})
}
