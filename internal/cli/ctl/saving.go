package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	bar "github.com/cheggaaa/pb/v3"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/storage/etcddb"
)

// saving is a backup on its way into a file. When the connection breaks, the member is
// asked for the rest: with what is there, behind the head, named by its digest. If the
// member's backup, the same one or a later one, has that too, it sends its head and the
// rest; else all of it. So what is written is one backup of the member at any time, and
// in the end it is read once more and compared with that one's digest.
type saving struct {
	file *os.File
	bar  *bar.ProgressBar
	told io.Writer
	// at is where the next bytes go, end where what is there ends; at comes before it
	// while a new head is written.
	at, end int64
	// The disk was asked last to take what is from begun to asked.
	begun, asked int64
	// have is what was asked with.
	have etcddb.Part
	// got counts what came, beginnings how often all of it was sent, barren how often
	// the member was reached and nothing came at all.
	got                int64
	beginnings, barren int
	reached            bool
}

// save receives until all is there and is what the member has summed.
func (f *saving) save(ctx context.Context, c *clientv3.Client) (version string, err error) {
	for idle := 0; ; {
		before := f.got
		if version, err = f.receive(ctx, c); err == nil {
			return version, f.check()
		}
		if idle++; f.got > before {
			idle = 1
		}
		if !broken(err) || ctx.Err() != nil || !f.reached || f.barren > saveBarren || idle > savePatience {
			return "", err
		}
		if idle == 1 {
			fmt.Fprintf(f.told, "the connection broke after %d bytes: %v\n", f.end, plain(err))
		}
		select {
		case <-time.After(savePause):
		case <-ctx.Done():
			return "", ctx.Err()
		}
		if err := f.look(); err != nil {
			return "", err
		}
	}
}

// broken says whether an error is one of a connection, or of a member that ends.
func broken(err error) bool {
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		return known.Code() == codes.Unavailable
	}
	return status.Code(err) == codes.Unavailable
}

// look finds out what is there to ask with: whole pages, and nothing of a digest.
func (f *saving) look() (err error) {
	end := (f.end - etcddb.DigestBytes) / etcddb.PageBytes * etcddb.PageBytes
	if end <= etcddb.HeadBytes {
		f.have = etcddb.Part{}
	} else if f.have.End != end {
		f.have, err = etcddb.ReadPart(f.file, end)
	}
	return err
}

// receive takes in a stream to its end.
func (f *saving) receive(ctx context.Context, c *clientv3.Client) (version string, err error) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, etcddb.HaveKey, f.have.String()))
	defer cancel()
	stream, err := pb.NewMaintenanceClient(c.ActiveConnection()).Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return "", err // no connection: nobody was reached
	}
	f.reached = true
	for first := true; ; first = false {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return version, nil
		}
		if err != nil {
			if first {
				f.barren++
			}
			return "", err
		}
		if first {
			head, err := stream.Header()
			if err == nil {
				err = f.begin(head)
			}
			if err != nil {
				return "", err
			}
		}
		version = resp.GetVersion()
		if err := f.take(resp.GetBlob(), int64(resp.GetRemainingBytes())); err != nil {
			return "", err
		}
	}
}

// begin makes room for what comes: the rest, if the member says so, or all.
func (f *saving) begin(head metadata.MD) error {
	if left := head.Get(etcddb.LeftOutKey); len(left) > 0 {
		if f.have.End == 0 || left[0] != f.have.Span() {
			return fmt.Errorf("the member leaves out %q of the snapshot, and was not asked to", left[0])
		}
		fmt.Fprintf(f.told, "going on after %d bytes\n", f.have.End)
		f.at, f.end = 0, f.have.End
		f.begun, f.asked = min(f.begun, f.end), min(f.asked, f.end)
		return f.file.Truncate(f.end)
	}
	if f.beginnings++; f.beginnings > saveBeginnings {
		return fmt.Errorf("the snapshot was begun %d times, and could not be gone on with", saveBeginnings)
	}
	if f.beginnings > 1 {
		fmt.Fprintln(f.told, "beginning again: the member has not the same any more")
	}
	f.at, f.end, f.have = 0, 0, etcddb.Part{}
	f.begun, f.asked = 0, 0
	return f.file.Truncate(0)
}

// smoothBytes are handed to the disk at a time.
const smoothBytes = 2 << 20

// take writes bytes where they belong.
func (f *saving) take(blob []byte, remaining int64) error {
	if f.have.End > 0 && f.at < etcddb.HeadBytes && f.at+int64(len(blob)) > etcddb.HeadBytes {
		return fmt.Errorf("%d bytes of a snapshot at %d, where %s is left out", len(blob), f.at, f.have.Span())
	}
	if _, err := f.file.WriteAt(blob, f.at); err != nil {
		return err
	}
	if f.at += int64(len(blob)); f.have.End > 0 && f.at == etcddb.HeadBytes {
		f.at = f.have.End
	}
	f.end = max(f.end, f.at)
	f.got += int64(len(blob))
	if f.end >= f.asked+smoothBytes {
		if err := smooth(f.file, f.begun, f.asked, f.end); err != nil {
			return err
		}
		f.begun, f.asked = f.asked, f.end
	}
	f.bar.SetTotal(f.at + remaining + etcddb.DigestBytes)
	f.bar.SetCurrent(f.at)
	return nil
}

// check compares what is in the file with the digest at its end.
func (f *saving) check() error {
	if !etcddb.HasDigest(f.end) {
		return fmt.Errorf("sha256 checksum not found [bytes: %d]", f.end)
	}
	_, err := etcddb.CheckDigest(f.file, f.end)
	return err
}
