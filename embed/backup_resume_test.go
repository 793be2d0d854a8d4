package embed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"os"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"

	"github.com/kvorum/kvorum/internal/storage/etcddb"
)

// askBackup asks for a backup with what it says it has, and reads so many bytes, or all
// with a negative number. leftOut is what the member says that it leaves out.
func askBackup(t *testing.T, m *member, have string, most int) (data []byte, leftOut string) {
	t.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), etcddb.HaveKey, have))
	defer cancel()
	stream, err := pb.NewMaintenanceClient(m.conn).Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for r := range received(t, stream) {
		if len(data) == 0 {
			if head, err := stream.Header(); err == nil && len(head.Get(etcddb.LeftOutKey)) > 0 {
				leftOut = head.Get(etcddb.LeftOutKey)[0]
			}
		}
		if data = append(data, r.Blob...); most >= 0 && len(data) >= most {
			break
		}
	}
	return data, leftOut
}

// isWhole checks the digest at the end.
func isWhole(t *testing.T, what string, data []byte) {
	t.Helper()
	if _, err := etcddb.CheckDigest(bytes.NewReader(data), int64(len(data))); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// A client that says that it would come back for the rest finds the same file a while
// later, and only what it has not is sent; what it has not right is sent whole. At most
// one file waits, none for a client that says nothing, and none when all was sent.
func TestTheRestOfABackupIsSent(t *testing.T) {
	m := startMember(t, t.TempDir())
	fillWith(t, m, 100, 20_000)
	saves := m.home.Saves
	left := func(files int, what string) {
		t.Helper()
		for begun := time.Now(); ; time.Sleep(time.Millisecond) {
			entries, _ := os.ReadDir(saves)
			if len(entries) == files {
				return
			}
			if time.Since(begun) > 10*time.Second {
				t.Fatalf("%s: there are %v", what, entries)
			}
		}
	}
	begin, _ := askBackup(t, m, etcddb.HaveNothing, 500_000)
	left(1, "one waits")
	other, _ := askBackup(t, m, etcddb.HaveNothing, 300_000)
	left(1, "another one waits")
	if !bytes.Equal(begin[etcddb.HeadBytes:len(other)], other[etcddb.HeadBytes:]) {
		t.Fatal("two backups of one state differ")
	}
	fillWith(t, m, 1, 5) // the one that waits has not that
	end := len(other) / etcddb.PageBytes * etcddb.PageBytes
	part, err := etcddb.ReadPart(bytes.NewReader(other), int64(end))
	if err != nil {
		t.Fatal(err)
	}
	rest, leftOut := askBackup(t, m, part.String(), -1)
	if leftOut != part.Span() || !bytes.Equal(rest[:etcddb.HeadBytes], other[:etcddb.HeadBytes]) {
		t.Errorf("left out is %q of the file that waits", leftOut)
	}
	data := append(bytes.Clone(other[:end]), rest[etcddb.HeadBytes:]...)
	isWhole(t, "the file that waited", data)
	left(0, "all was sent")

	// It is made anew, of what is there now: the versions behind the head are the same.
	rest, leftOut = askBackup(t, m, part.String(), -1)
	if leftOut != part.Span() || bytes.Equal(rest[:etcddb.HeadBytes], other[:etcddb.HeadBytes]) {
		t.Errorf("left out is %q of a file that is not the one before", leftOut)
	}
	newer := append(append(bytes.Clone(rest[:etcddb.HeadBytes]), other[etcddb.HeadBytes:end]...), rest[etcddb.HeadBytes:]...)
	isWhole(t, "a newer file", newer)
	if bytes.Equal(newer, data) {
		t.Error("what was put meanwhile is not in the newer one")
	}
	wrong := part
	wrong.Sum = sha256.Sum256(nil)
	far := part
	far.End = 1 << 40
	for _, have := range []string{wrong.String(), far.String(), "8192-9000 x", "", etcddb.HaveNothing} {
		data, leftOut := askBackup(t, m, have, -1)
		isWhole(t, "all of it, to "+have, data)
		if leftOut != "" || len(data) != len(newer) {
			t.Errorf("to %q it sends %d bytes of %d and leaves out %q", have, len(data), len(newer), leftOut)
		}
	}
	left(0, "all was sent, each time")
	askBackup(t, m, etcddb.HaveNothing, 100_000)
	left(1, "one waits")
	begun := time.Now()
	m.stop()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("stopping took %v", took)
	}
	left(0, "it stopped")
}
