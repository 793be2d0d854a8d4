package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestSignalsEndItCleanlyAndNothingIsLost(t *testing.T) {
	dir := t.TempDir()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := start(t, dir)
		p.awaitReady()
		put(t, p.kv(), "signal", sig.String())
		p.signal(sig)
		p.awaitExit()
		if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != sig {
			t.Errorf("%v: the process ended with %v, want death by the signal", sig, status)
		}
		again := start(t, dir)
		again.awaitReady()
		if got := get(t, again.kv(), "signal"); got != sig.String() {
			t.Errorf("after %v the value is %q", sig, got)
		}
		again.signal(syscall.SIGKILL)
		again.awaitExit()
	}
}

// refused expects a start that fails with one clear line.
func refused(t *testing.T, p *process, says string) {
	t.Helper()
	code, last := p.awaitExit()
	if text, _ := last["error"].(string); code != 1 || last["level"] != "fatal" || !strings.Contains(text, says) {
		t.Errorf("exit code %d, last line %v; want 1 and an error with %q", code, last, says)
	}
}

func TestASecondProcessOnTheDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	first.awaitReady()
	put(t, first.kv(), "k", "v")
	refused(t, start(t, dir), "is in use by another process")
	if got := get(t, first.kv(), "k"); got != "v" {
		t.Errorf("the first process now says %q", got)
	}
}

func TestAForeignDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "member", "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused(t, start(t, dir), "holds data of etcd")
}

func TestAPortInUseIsRefusedAndTheDirectoryStaysEmpty(t *testing.T) {
	first := start(t, t.TempDir())
	first.awaitReady()
	dir := filepath.Join(t.TempDir(), "data")
	refused(t, start(t, dir, "--listen-client-urls", "http://"+first.client), "bind: address already in use")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory was made all the same: %v", err)
	}
}

func TestABadURLIsRefused(t *testing.T) {
	p := start(t, t.TempDir(), "--listen-client-urls", "ftp://127.0.0.1:1")
	code, _ := p.awaitExit()
	want := `invalid value "ftp://127.0.0.1:1" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:1`
	if code != 2 || len(p.raw) == 0 || p.raw[0] != want {
		t.Errorf("exit code %d, %q; want 2 and %q first", code, p.raw, want)
	}
}

func TestLogLinesHaveWhatToolsRead(t *testing.T) {
	p := start(t, t.TempDir())
	p.awaitReady()
	p.signal(syscall.SIGTERM)
	p.awaitExit()
	if len(p.lines) != len(p.raw) {
		t.Errorf("%d of %d lines are JSON", len(p.lines), len(p.raw))
	}
	for i, line := range p.lines {
		for _, key := range []string{"level", "ts", "caller", "msg"} {
			if line[key] == nil {
				t.Errorf("no %s in %s", key, p.raw[i])
			}
		}
	}
}
