package extsort

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
)

// Rows come back in order, each with its value, whether they fit into memory, make a
// few runs, or so many that runs are merged on the way; and nothing is left on disk.
func TestRowsComeBackInOrder(t *testing.T) {
	for _, c := range []struct{ rows, runBytes, fanIn int }{
		{0, 100, 2}, {1, 100, 2}, {50, 1 << 20, 4}, {1000, 1 << 10, 64}, {3000, 200, 3}, {100, 1, 2},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			disk := vfs.NewMem()
			s := within(disk, "sort", bytes.Compare, c.runBytes, c.fanIn)
			draw := rand.New(rand.NewPCG(1, uint64(c.rows)))
			want := make([]string, c.rows)
			for i, n := range draw.Perm(c.rows) {
				want[i] = fmt.Sprintf("key %08d", n)
				if err := s.Add([]byte(want[i]), bytes.Repeat([]byte{byte(n)}, n%300)); err != nil {
					t.Fatal(err)
				}
			}
			slices.Sort(want)
			sorted, err := s.Sort()
			if err != nil {
				t.Fatal(err)
			}
			for i, key := range want {
				ok, err := sorted.Next()
				if err != nil || !ok || string(sorted.Key()) != key || !bytes.Equal(sorted.Value(), bytes.Repeat([]byte{byte(i)}, i%300)) {
					t.Fatalf("row %d is %q with %d bytes (%v, %v), want %q", i, sorted.Key(), len(sorted.Value()), ok, err, key)
				}
			}
			if ok, err := sorted.Next(); ok || err != nil {
				t.Fatalf("one row more: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if names, err := disk.List(""); err != nil || len(names) > 0 {
				t.Errorf("left on disk: %v, %v", names, err)
			}
		})
	}
}

// A run that the disk gives back otherwise than it was written is noticed.
func TestADamagedRunIsNoticed(t *testing.T) {
	disk := vfs.NewMem()
	s := within(disk, "sort", bytes.Compare, 1<<10, 64)
	for i := range 500 {
		if err := s.Add(fmt.Appendf(nil, "%04d", i), []byte("value")); err != nil {
			t.Fatal(err)
		}
	}
	file, err := disk.OpenReadWrite("sort.1", env.Other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte("V"), 12); err != nil {
		t.Fatal(err)
	}
	sorted, err := s.Sort()
	for err == nil {
		var more bool
		if more, err = sorted.Next(); err == nil && !more {
			t.Fatal("all rows were given")
		}
	}
	if !errors.Is(err, errDamaged) {
		t.Error(err)
	}
}

// full refuses to write.
type full struct{ vfs.FS }

func (full) Create(string, vfs.DiskWriteCategory) (vfs.File, error) { return nil, fs.ErrPermission }

func TestAFullDiskEndsIt(t *testing.T) {
	s := within(full{vfs.NewMem()}, "sort", bytes.Compare, 1, 64)
	err := s.Add([]byte("a"), nil)
	if err == nil {
		err = s.Add([]byte("b"), nil)
	}
	if !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}
