package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A connection that breaks in the middle of a backup has it begun anew: what is saved is
// whole, and what came of the first one is not in it.
func TestABrokenConnectionBeginsAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a second is waited for")
	}
	h := newHouse(t, program(t, "etcd"))
	c := h.start()
	for i := range 20 {
		must[*clientv3.PutResponse](t)(c.Put(t.Context(), fmt.Sprint(i), strings.Repeat("x", 100_000)))
	}
	between, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer between.Close()
	var calls atomic.Int32
	go func() {
		for {
			client, err := between.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", h.client)
			if err != nil {
				client.Close()
				return
			}
			first := calls.Add(1) == 1
			go func() {
				_, _ = io.Copy(server, client)
				server.Close()
			}()
			go func() {
				if first {
					_, _ = io.CopyN(client, server, 500_000)
				} else {
					_, _ = io.Copy(client, server)
				}
				client.Close()
				server.Close()
			}()
		}
	}()
	file := filepath.Join(t.TempDir(), "backup")
	out := do(t, program(t, "etcdctl"), "--endpoints="+between.Addr().String(), "snapshot", "save", file)
	if !strings.Contains(out, "beginning again") || !strings.Contains(out, "Snapshot saved at "+file) || calls.Load() < 2 {
		t.Errorf("over %d connections: %s", calls.Load(), out)
	}
	if status := do(t, program(t, "etcdutl"), "snapshot", "status", file); !strings.Contains(status, ", 21, ") {
		t.Errorf("status %s", status)
	}
	if _, err := os.Stat(file + ".part"); err == nil {
		t.Error("the part is left")
	}
}
