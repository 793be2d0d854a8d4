package embed

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// calm is what a member must come back to when hostile clients have left: the
// goroutines and sockets of this process, no open iterator, and the store as it
// was, byte for byte.
type calm struct {
	m                   *member
	goroutines, sockets int
	store               string
}

func sockets(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc on this machine")
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// contents are all pairs and the numbers of the store, as text.
func (m *member) contents(t testing.TB) string {
	t.Helper()
	view := m.state.View()
	state := view.State()
	state.Removed, state.Freed = 0, 0 // the removal after a compaction goes on by itself
	all, err := view.Range(&command.RangeRequest{Key: []byte{0}, End: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%+v\n", state)
	for _, kv := range all.KVs {
		fmt.Fprintf(&b, "%q = %q %d %d %d %d\n", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
	}
	return b.String()
}

// calmNow notes how things are.
func (m *member) calmNow(t *testing.T) *calm {
	t.Helper()
	// The first call makes the connection that the test's own client keeps.
	if _, err := pb.NewKVClient(m.conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("calm")}); err != nil {
		t.Fatal(err)
	}
	return &calm{m: m, goroutines: runtime.NumGoroutine(), sockets: sockets(t), store: m.contents(t)}
}

// again waits until everything is as it was, and the member still answers.
func (c *calm) again(t *testing.T) {
	t.Helper()
	if now := c.m.contents(t); now != c.store {
		t.Errorf("the store was\n%.2000s\nand is\n%.2000s", c.store, now)
	}
	if _, err := pb.NewKVClient(c.m.conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("calm")}); err != nil {
		t.Errorf("the member does not answer: %v", err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		g, s, i := runtime.NumGoroutine(), sockets(t), c.m.db.Metrics().Iterators
		if g <= c.goroutines && s <= c.sockets && i == 0 {
			return
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			t.Fatalf("%d goroutines (were %d), %d sockets (were %d), %d iterators are left\n%s",
				g, c.goroutines, s, c.sockets, i, stacks)
		}
	}
}

// debian starts the machine's own etcd and returns a connection to it.
func debian(t *testing.T) (*grpc.ClientConn, string) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: nothing of ours answers")
	}
	binary, err := exec.LookPath("/usr/bin/etcd")
	if err != nil {
		t.Skip("no /usr/bin/etcd to compare with")
	}
	client, peer := ports.Reserve(t), ports.Reserve(t)
	cmd := exec.Command(binary, "--data-dir", t.TempDir(),
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "default=http://"+peer, "--unsafe-no-fsync")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", client); err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("/usr/bin/etcd does not come up")
		}
	}
	conn, err := grpc.NewClient(client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("up")}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	return conn, client
}
