package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// frail stands before a server: each connection to it breaks after as many bytes of the
// server's as the next of its limits says; after the last limit they hold.
type frail struct {
	net.Listener
	to string
	// broken is sent an end for each connection that has come to its limit, which breaks
	// when that is called: whoever has to do something before the client tries again has
	// time for it.
	broken chan func()

	mu     sync.Mutex
	limits []int64
	passed int64
}

func newFrail(t *testing.T, to string, limits ...int64) *frail {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &frail{Listener: l, to: to, limits: limits, broken: make(chan func())}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			server, err := net.Dial("tcp", f.to)
			if err != nil { // it is down: that is no connection
				client.Close()
				f.mu.Unlock()
				continue
			}
			limit := int64(1 << 40)
			if len(f.limits) > 0 {
				limit, f.limits = f.limits[0], f.limits[1:]
			}
			f.mu.Unlock()
			go f.carry(client, server, limit)
		}
	}()
	return f
}

func (f *frail) carry(client, server net.Conn, limit int64) {
	go func() {
		_, _ = io.Copy(server, client)
		server.Close()
	}()
	passed, err := io.CopyN(client, server, limit)
	f.mu.Lock()
	f.passed += passed
	f.mu.Unlock()
	end := func() {
		client.Close()
		server.Close()
	}
	if err != nil {
		end()
		return
	}
	f.broken <- end
}

// direct has new connections go to another server.
func (f *frail) direct(to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.to = to
}

// sent is how much came of the servers.
func (f *frail) sent() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.passed
}

// fill puts keys of 100 KB each.
func fill(t *testing.T, c *clientv3.Client, name string, keys int) {
	t.Helper()
	for i := range keys {
		must[*clientv3.PutResponse](t)(c.Put(t.Context(), fmt.Sprint(name, i), strings.Repeat(name, 100_000)))
	}
}

// saved says what is in a backup, which is checked by its reader.
func saved(t *testing.T, file string) string {
	t.Helper()
	if _, err := os.Stat(file + ".part"); !errors.Is(err, os.ErrNotExist) {
		t.Error("the part is left")
	}
	return do(t, program(t, "etcdutl"), "snapshot", "status", file)
}

// A connection that breaks, wherever, is taken up where it broke: little is sent twice,
// and what is saved is what would have been without.
func TestABrokenSaveGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the pauses of a client are waited for")
	}
	h := newHouse(t, program(t, "etcd"))
	fill(t, h.start(), "x", 20)
	whole := filepath.Join(t.TempDir(), "whole")
	do(t, program(t, "etcdctl"), "--endpoints="+h.client, "snapshot", "save", whole)
	want := must[[]byte](t)(os.ReadFile(whole))

	// Before the first message, after it, behind the head of what is left, within it (which is not yet
	// told of, like perhaps the one before), and elsewhere.
	limits := []int64{1_000, 40_000, 300_000, 9_500, 4_000, 700_001, 500_000}
	f := newFrail(t, h.client, limits...)
	go func() {
		for end := range f.broken {
			end()
		}
	}()
	file := filepath.Join(t.TempDir(), "backup")
	out := do(t, program(t, "etcdctl"), "--endpoints="+f.Addr().String(), "snapshot", "save", file)
	if got := strings.Count(out, "going on after "); got < len(limits)-3 || strings.Contains(out, "beginning again") || !strings.Contains(out, "Snapshot saved at "+file) {
		t.Errorf("gone on %d times:\n%s", got, out)
	}
	if got := must[[]byte](t)(os.ReadFile(file)); !bytes.Equal(got, want) {
		t.Errorf("%d bytes that are not the %d of a save that did not break", len(got), len(want))
	}
	if most := int64(len(want)) + 200_000; f.sent() > most {
		t.Errorf("%d bytes were sent, and %d would do", f.sent(), most)
	}
	saved(t, file)
}

// Behind a cut there may be another member, or the same one after a start, with another
// state. The saved file is that of the member asked last, as a whole: what is in it
// already is not sent again if that member has the same, and is thrown away if not.
func TestASaveThatGoesOnIsOfOneMoment(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: servers are started again")
	}
	h := newHouse(t, program(t, "etcd"))
	fill(t, h.start(), "x", 20)
	other := newHouse(t, program(t, "etcd"))
	fill(t, other.start(), "y", 25)

	var out []byte
	for _, scene := range []struct {
		what          string
		between       func(f *frail, end func())
		goesOn        bool
		revision, mod string // of the whole, and what its last key's is
	}{
		{"it is killed, started again, and written to", func(_ *frail, end func()) {
			h.stop(syscall.SIGKILL)
			fill(t, h.start(), "z", 3)
			end()
		}, true, ", 24, ", "z2"},
		{"it is stopped and started again", func(_ *frail, end func()) {
			h.stop(syscall.SIGTERM)
			end()
			h.start()
		}, true, ", 24, ", "z2"},
		{"it is killed, started, and compacted", func(_ *frail, end func()) {
			h.stop(syscall.SIGKILL)
			c := h.start()
			at := must[*clientv3.PutResponse](t)(c.Put(t.Context(), "x0", "again")).Header.Revision
			must[*clientv3.CompactResponse](t)(c.Compact(t.Context(), at))
			end()
		}, false, ", 25, ", "x0"},
		{"another cluster answers", func(f *frail, end func()) {
			f.direct(other.client)
			end()
		}, false, ", 26, ", "y24"},
	} {
		f := newFrail(t, h.client, 900_000)
		file := filepath.Join(t.TempDir(), "backup")
		ctl := exec.Command(program(t, "etcdctl"), "--endpoints="+f.Addr().String(), "snapshot", "save", file)
		done := make(chan error, 1)
		go func() {
			var err error
			out, err = ctl.CombinedOutput()
			done <- err
		}()
		select {
		case end := <-f.broken:
			scene.between(f, end)
		case err := <-done:
			t.Fatalf("%s: it ended before (%v)\n%s", scene.what, err, out)
		}
		if err := <-done; err != nil {
			t.Fatalf("%s: %v\n%s", scene.what, err, out)
		}
		if strings.Contains(string(out), "going on after") != scene.goesOn || strings.Contains(string(out), "beginning again") == scene.goesOn {
			t.Errorf("%s:\n%s", scene.what, out)
		}
		if status := saved(t, file); !strings.Contains(status, scene.revision) {
			t.Errorf("%s: %s", scene.what, status)
		}
		to := newHouse(t, program(t, "etcd"))
		do(t, program(t, "etcdutl"), append([]string{"snapshot", "restore", file}, to.move()...)...)
		r := must[*clientv3.GetResponse](t)(to.start().Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(1)))
		if string(r.Kvs[0].Key) != scene.mod {
			t.Errorf("%s: the last key is %q", scene.what, r.Kvs[0].Key)
		}
		to.stop(syscall.SIGKILL)
	}
}
