package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// A member that is told everything by a file; the flag beside it counts for nothing.
func TestAMemberFromAFile(t *testing.T) {
	client, peer, dir := ports.Reserve(t), ports.Reserve(t), t.TempDir()
	file := filepath.Join(dir, "etcd.yml")
	text := fmt.Sprintf("name: filed\ndata-dir: %s\nlisten-client-urls: http://%s\nadvertise-client-urls: http://%s\n"+
		"listen-peer-urls: http://%s\ninitial-advertise-peer-urls: http://%s\ninitial-cluster: filed=http://%s\nlog-level: debug\n",
		filepath.Join(dir, "data"), client, client, peer, peer, peer)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, "--config-file", file, "--name=flagged")
	p.awaitReady()
	put(t, plainKV(t, client), "k", "v")
	p.signal(syscall.SIGTERM)
	p.awaitExit()
	said := strings.Join(p.raw, "\n")
	for _, want := range []string{"all settings come from the configuration file", `"name":"filed"`, `"level":"debug"`} {
		if !strings.Contains(said, want) {
			t.Errorf("the log has no %s", want)
		}
	}
	if strings.Contains(said, "flagged") {
		t.Error("the flag counted")
	}
	refused(t, launch(t, "--config-file", file+".gone"), "cannot read the configuration file")
}

// Few open files are refused by the limit that the shell sets.
func TestTooFewOpenFiles(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Skip(err)
	}
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, ready: make(chan struct{}), exited: make(chan struct{})}
	p.run("/bin/sh", "-c", "ulimit -n 100 && exec "+binary+" --data-dir "+t.TempDir())
	refused(t, p, "file descriptor limit 100 is too low")
}

// A gateway passes clients on to the member that answers, and ends when it is told to.
func TestAGatewayInFrontOfAMember(t *testing.T) {
	member := start(t, t.TempDir())
	door, dead := ports.Reserve(t), ports.Reserve(t)
	gateway := launch(t, "gateway", "start", "--listen-addr", door, "--endpoints", "http://"+dead+","+member.client)
	member.awaitReady()
	for {
		conn, err := net.Dial("tcp", door)
		if err == nil {
			conn.Close()
			break
		}
		select {
		case <-gateway.exited:
			t.Fatalf("the gateway ended: %s", gateway.raw)
		default:
		}
	}
	put(t, plainKV(t, door), "through", "the gateway")
	if got := get(t, member.kv(), "through"); got != "the gateway" {
		t.Errorf("the member has %q", got)
	}
	gateway.signal(syscall.SIGTERM)
	if code, _ := gateway.awaitExit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// The line by which a member that cannot start says so, for people, and in a file too.
func TestConsoleLines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "etcd.log")
	p := launch(t, "--log-format=console", "--log-outputs=stderr,"+file, "--data-dir=/dev/null/data")
	defer func() {
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "\tfatal\t") {
			t.Errorf("the file has %q, %v", text, err)
		}
	}()
	if code, _ := p.awaitExit(); code != 1 || len(p.lines) != 0 || !strings.Contains(p.raw[len(p.raw)-1], "\tfatal\t") {
		t.Errorf("exit code %d, %q", code, p.raw)
	}
}

// A process that locks its memory has it locked; one that may not does not start.
func TestLockedMemory(t *testing.T) {
	p := start(t, t.TempDir(), "--memory-mlock")
	select {
	case <-p.exited:
		if last := p.raw[len(p.raw)-1]; !strings.Contains(last, "LimitMEMLOCK") {
			t.Errorf("it does not start: %s", last)
		}
	case <-p.ready:
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		if err != nil {
			t.Skip(err)
		}
		if strings.Contains(string(status), "VmLck:\t       0 kB") {
			t.Error("nothing is locked")
		}
	}
}
