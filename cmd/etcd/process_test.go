package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kvorum/kvorum/internal/testkit/ports"
	"github.com/kvorum/kvorum/internal/testkit/script"
)

// The tests of this file run the real program: built once, as users build it.

// built is the directory of the program, once it was built.
var built string

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kvorum-etcd")
	if err != nil {
		return "", err
	}
	built = dir
	binary := filepath.Join(dir, "etcd")
	cmd := exec.Command("go", "build", "-o", binary, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
})

func TestMain(m *testing.M) {
	if program := programs[filepath.Base(os.Args[0])]; program != nil {
		os.Exit(program()) // of a cluster: see cluster_failures_test.go
	}
	script.WatchChildren()
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// process is one run of etcd.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	client string
	peer   string
	ready  chan struct{} // closed by the line "ready to serve client requests"
	exited chan struct{} // closed when the process is gone and its output read
	lines  []map[string]any
	raw    []string
}

// start runs etcd on dir with free ports; more flags may follow.
func start(t *testing.T, dir string, flags ...string) *process {
	t.Helper()
	client, peer := ports.Reserve(t), ports.Reserve(t)
	p := launch(t, append([]string{
		"--data-dir", dir, "--listen-client-urls", "http://" + client, "--advertise-client-urls", "http://" + client,
		"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer,
		"--initial-cluster", "default=http://" + peer,
	}, flags...)...)
	p.client, p.peer = client, peer
	return p
}

// launch runs etcd with these arguments and no others. A short run, which is that of the
// race detector, leaves these tests out: their program is built without it. The clusters
// of cluster_failures_test.go are made of the test binary itself.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: the story of a program that is built without the race detector")
	}
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, ready: make(chan struct{}), exited: make(chan struct{})}
	p.run(binary, args...)
	return p
}

// run starts a program and reads what it says; it is killed when the test ends.
func (p *process) run(program string, args ...string) {
	p.t.Helper()
	p.cmd = exec.Command(program, args...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go p.read(bufio.NewScanner(stderr))
	p.t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.exited
	})
}

func (p *process) read(lines *bufio.Scanner) {
	defer close(p.exited)
	for lines.Scan() {
		p.raw = append(p.raw, lines.Text())
		var line map[string]any
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		p.lines = append(p.lines, line)
		if line["msg"] == "ready to serve client requests" {
			close(p.ready)
		}
	}
	p.cmd.Wait()
}

// awaitReady waits until the member serves, or fails with what it said.
func (p *process) awaitReady() {
	p.t.Helper()
	select {
	case <-p.ready:
	case <-p.exited:
		p.t.Fatalf("etcd ended before it was ready:\n%s", strings.Join(p.raw, "\n"))
	case <-time.After(time.Minute):
		p.t.Fatal("etcd was not ready within a minute")
	}
}

// awaitExit waits for the end and returns the exit code (-1: a signal) and the
// last line of the log.
func (p *process) awaitExit() (int, map[string]any) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(time.Minute):
		p.t.Fatal("etcd did not end within a minute")
	}
	if len(p.lines) == 0 {
		return p.cmd.ProcessState.ExitCode(), nil
	}
	return p.cmd.ProcessState.ExitCode(), p.lines[len(p.lines)-1]
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) kv() pb.KVClient { return plainKV(p.t, p.client) }

// plainKV asks a member once, without what the client library does.
func plainKV(t *testing.T, address string) pb.KVClient {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pb.NewKVClient(conn)
}

func put(t *testing.T, kv pb.KVClient, key, value string) *pb.PutResponse {
	t.Helper()
	resp, err := kv.Put(context.Background(), &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func get(t *testing.T, kv pb.KVClient, key string) string {
	t.Helper()
	resp, err := kv.Range(context.Background(), &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}
