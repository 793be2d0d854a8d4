package osenv

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/kvorum/kvorum/internal/env"
)

// needsRing skips where the kernel, or whoever runs this, gives no ring: syncs are
// then made by their callers, which the other tests see.
func needsRing(t *testing.T) {
	if theRing() == nil {
		_, err := newRing()
		t.Skipf("no io_uring here: %v", err)
	}
}

// Many goroutines sync files of their own, more at once than the ring takes: each
// sync that it took ends once.
func TestTheRingEndsEverySyncOnce(t *testing.T) {
	needsRing(t)
	const files, each = 3 * ringEntries, 20
	dir := t.TempDir()
	var all sync.WaitGroup
	var ended, refused atomic.Int64
	for i := range files {
		f, err := FS().Create(filepath.Join(dir, string(rune('a'+i))), env.WAL)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		all.Add(1)
		go func() {
			defer all.Done()
			for range each {
				if _, err := f.Write([]byte("frame")); err != nil {
					t.Error(err)
				}
				done := make(chan error, 2)
				if !theRing().start(f.Fd(), func(err error) { ended.Add(1); done <- err }) {
					refused.Add(1)
					continue
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}()
	}
	all.Wait()
	if ended.Load() == 0 || ended.Load()+refused.Load() != files*each {
		t.Fatalf("%d syncs ended and %d were refused, of %d", ended.Load(), refused.Load(), files*each)
	}
	if r := theRing(); len(r.free) != ringEntries {
		t.Fatalf("%d of %d numbers are free", len(r.free), ringEntries)
	}
}

// A full ring refuses, and what the kernel refuses is the caller's error.
func TestWhatTheRingRefuses(t *testing.T) {
	needsRing(t)
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	full, err := newRing() // nobody reaps it yet
	if err != nil {
		t.Fatal(err)
	}
	ends := make(chan error, ringEntries)
	for range ringEntries {
		if !full.start(f.Fd(), func(err error) { ends <- err }) {
			t.Fatal("a ring with room refused a sync")
		}
	}
	if full.start(f.Fd(), func(error) { t.Error("a refused sync ended") }) {
		t.Fatal("a full ring took a sync")
	}
	go full.reap()
	for range ringEntries {
		if err := <-ends; err != nil {
			t.Fatal(err)
		}
	}
	if !full.start(^uintptr(0), func(err error) { ends <- err }) {
		t.Fatal("a ring with room refused a sync")
	}
	if err := <-ends; !errors.Is(err, syscall.EBADF) {
		t.Fatalf("a sync of no file: %v", err)
	}
	full.discard()
	if full.start(f.Fd(), func(error) { t.Error("a sync of a discarded ring ended") }) {
		t.Fatal("a discarded ring took a sync")
	}
}

// A sync that was interrupted is made again; every other error is final.
func TestAnInterruptedSyncOfTheRingIsMadeAgain(t *testing.T) {
	made, err := FS().Create(filepath.Join(t.TempDir(), "f"), env.WAL)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	for _, errno := range []syscall.Errno{syscall.EINTR, syscall.EAGAIN, syscall.ECANCELED} {
		done := make(chan error)
		made.(file).ended(errno, func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Errorf("after %v: %v", errno, err)
		}
	}
	made.(file).ended(syscall.EIO, func(err error) {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("EIO became %v", err)
		}
	})
}
