package embed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/storage/etcddb"
)

// fillWith puts values that nobody compresses by accident.
func fillWith(t *testing.T, m *member, keys, bytesEach int) {
	t.Helper()
	kv := pb.NewKVClient(m.conn)
	for i := range keys {
		if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "key %06d", i), Value: bytes.Repeat([]byte{byte(i)}, bytesEach)}); err != nil {
			t.Fatal(err)
		}
	}
}

// received are the messages of a backup, up to its end.
func received(t *testing.T, stream grpc.ServerStreamingClient[pb.SnapshotResponse]) iter.Seq[*pb.SnapshotResponse] {
	t.Helper()
	return func(yield func(*pb.SnapshotResponse) bool) {
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !yield(r) {
				return
			}
		}
	}
}

// A backup says from the first message on how much is to come, in pieces of 32 KiB; it
// ends with the digest of what came; and it is of one moment, whatever is written while
// it is made and sent.
func TestABackupIsOfOneMoment(t *testing.T) {
	m := startMember(t, t.TempDir())
	fillWith(t, m, 300, 5000)
	kv := pb.NewKVClient(m.conn)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			// Both keys change together: a backup has both or neither.
			value := fmt.Appendf(nil, "%d", i)
			put := func(key string) *pb.RequestOp {
				return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value}}}
			}
			if _, err := kv.Txn(context.Background(), &pb.TxnRequest{Success: []*pb.RequestOp{put("left"), put("right")}}); err != nil {
				stopped <- err
				return
			}
		}
	}()
	stream, err := pb.NewMaintenanceClient(m.conn).Snapshot(t.Context(), &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var data []byte
	total := uint64(0)
	for r := range received(t, stream) {
		if len(data) == 0 {
			total = r.RemainingBytes + uint64(len(r.Blob))
		}
		data = append(data, r.Blob...)
		left := uint64(max(int64(total)-int64(len(data)), 0))
		if len(r.Blob) > 32<<10 || r.RemainingBytes != left || r.Version != "3.7.0" || r.Header != nil {
			t.Fatalf("%d bytes, %d to come, version %q after %d of %d", len(r.Blob), r.RemainingBytes, r.Version, len(data), total)
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatalf("a put while the backup was made: %v", err)
	}
	database := data[:len(data)-sha256.Size]
	if sum := sha256.Sum256(database); len(database)%512 != 0 || uint64(len(database)) != total || !bytes.Equal(sum[:], data[len(database):]) {
		t.Fatalf("%d bytes of %d, with another digest", len(database), total)
	}
	f, err := etcddb.Open(bytes.NewReader(database), int64(len(database)))
	if err != nil {
		t.Fatal(err)
	}
	newest := map[string]string{}
	err = f.Versions(func(_ etcddb.Revision, pair []byte) error {
		p, _ := etcddb.ParsePair(pair)
		newest[string(p.Key)] = string(p.Value)
		return nil
	})
	if err != nil || newest["left"] != newest["right"] || len(newest) < 300 {
		t.Errorf("left is %q, right is %q, of %d keys: %v", newest["left"], newest["right"], len(newest), err)
	}
}

// savesOf lists what a member has of backups on its disk.
func savesOf(m *member) []string {
	entries, _ := os.ReadDir(m.home.Saves)
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Join(m.home.Saves, e.Name()))
	}
	return names
}

// Nothing is left of a backup on the member's disk when its client has it, or has gone;
// and a member that stops does not wait for a client that does not read.
func TestNothingIsLeftOfABackup(t *testing.T) {
	m := startMember(t, t.TempDir())
	fillWith(t, m, 200, 20_000)
	gone := func(what string) {
		t.Helper()
		for begun := time.Now(); len(savesOf(m)) > 0; time.Sleep(time.Millisecond) {
			if time.Since(begun) > 10*time.Second {
				t.Fatalf("%s: left are %v", what, savesOf(m))
			}
		}
	}
	begin := func(ctx context.Context, messages int) pb.Maintenance_SnapshotClient {
		t.Helper()
		stream, err := pb.NewMaintenanceClient(m.conn).Snapshot(ctx, &pb.SnapshotRequest{})
		for err == nil && messages != 0 {
			_, err = stream.Recv()
			messages--
		}
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		return stream
	}
	begin(t.Context(), -1)
	gone("all was read")
	for _, messages := range []int{0, 1, 10} {
		ctx, cancel := context.WithCancel(t.Context())
		begin(ctx, messages)
		if messages > 0 && len(savesOf(m)) == 0 {
			t.Fatal("there is no file to be removed")
		}
		cancel()
		gone(fmt.Sprintf("left after %d messages", messages))
	}
	slow := begin(t.Context(), 1)
	begun := time.Now()
	m.stop()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("stopping took %v", took)
	}
	for {
		if _, err := slow.Recv(); err != nil {
			if status.Code(err) == codes.OK {
				t.Error("the backup of a member that stopped ended well")
			}
			return
		}
	}
}
