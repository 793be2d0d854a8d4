package embed

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kvorum/kvorum/internal/config"
)

func TestTooFewFilesAreRefused(t *testing.T) {
	log := &lines{}
	for limit, want := range map[uint64]string{150: "file descriptor limit 150 is too low", 151: "", 1023: "", 1024: ""} {
		err := checkFiles(limit, slog.New(slog.NewTextHandler(log, nil)))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v", limit, err)
		}
	}
	if n := log.count("file descriptor limit is low"); n != 2 {
		t.Errorf("%d warnings", n)
	}
}

// A member on a directory that others may look into says so, syncs nothing when that is
// asked for, and listens on a socket file, over one that an earlier process left.
func TestAMemberInAnOpenDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "etcd.sock")
	cfg, _ := configFor(t, dir, "--unsafe-no-fsync", "--socket-reuse-address", "--socket-reuse-port",
		"--listen-client-urls", "unix://"+socket, "--advertise-client-urls", "unix://"+socket)
	for range 2 {
		log := &lines{}
		s, err := Start(cfg, slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"0700 is recommended", "nothing is synced to disk"} {
			if log.count(want) != 1 {
				t.Errorf("no line says %q:\n%s", want, log)
			}
		}
		conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("a")}); err != nil {
			t.Error(err)
		}
		conn.Close()
		// Somebody else on the same peer port: --socket-reuse-port lets it in.
		network, address := cfg.ListenPeerURLs.Place(0)
		second, err := bind(&cfg, network, address)
		if err != nil {
			t.Errorf("a second listener on one port: %v", err)
		} else {
			second.Close()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		left, err := bind(&config.Config{}, "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		left.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false) // as after a crash
		left.Close()
	}
}
