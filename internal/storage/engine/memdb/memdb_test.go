package memdb

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// The conformance, crash, damage and failure tests of both bodies are in
// internal/storage/engine; here are those of this body's own promises.

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func meta(name string) []byte { return keys.AppendMeta(nil, 1, name) }

func put(t testing.TB, db *DB, name, value string) {
	t.Helper()
	b := db.NewBatch()
	b.Set(meta(name), []byte(value))
	must(t, db.Commit(b))
}

func durable(db *DB, name string) string {
	value, err := db.Durable(meta(name), nil)
	if err != nil {
		return "-"
	}
	return string(value)
}

// TestFlushIsTurns walks through one flush: the write, the sync of the file, the
// sync of its mark; only then is it done. What is committed meanwhile waits.
func TestFlushIsTurns(t *testing.T) {
	disk := simenv.NewDisk(1, simenv.DiskOptions{})
	db, err := Open(Options{FS: disk.Mount(), Dir: "data"})
	must(t, err)
	put(t, db, "a", "1")
	if worked, wake := db.Turn(0); worked || wake != env.Never {
		t.Errorf("an idle turn says %v, %d", worked, wake)
	}
	must(t, db.StartFlush())
	put(t, db, "a", "2")
	steps := 0
	for durable(db, "a") == "-" {
		worked, wake := db.Turn(0)
		if !worked {
			if wake == env.Never {
				t.Fatal("a store that waits for a sync does not ask to be woken")
			}
			if disk.PendingSyncs() != 1 {
				t.Fatalf("%d syncs under way", disk.PendingSyncs())
			}
			disk.CompleteDue(env.Never)
		}
		steps++
	}
	if steps != 5 || durable(db, "a") != "1" {
		t.Errorf("after %d turns a=%s is durable, want 5 and 1", steps, durable(db, "a"))
	}
	must(t, db.Close())
}

// TestSameCallsSameDisk is what the body exists for: two runs of the same calls
// leave the same trace on the disk.
func TestSameCallsSameDisk(t *testing.T) {
	run := func() uint64 {
		disk := simenv.NewDisk(1, simenv.DiskOptions{})
		db, err := Open(Options{FS: disk.Mount(), Dir: "data", FlushBytes: 4096})
		must(t, err)
		r := simenv.NewRand(1, "calls")
		for i := range 2000 {
			put(t, db, fmt.Sprint(r.Intn(50)), fmt.Sprint(i, bytes.Repeat([]byte("x"), r.Intn(500))))
			db.Turn(0)
			if r.OneIn(3) {
				disk.CompleteDue(env.Never)
			}
		}
		must(t, db.Close())
		return disk.Trace()
	}
	if a, b := run(), run(); a != b {
		t.Errorf("two runs leave the traces %x and %x", a, b)
	}
}

// TestFileIsReplacedWhenItOutgrowsItsContent overwrites one row for a long time.
func TestFileIsReplacedWhenItOutgrowsItsContent(t *testing.T) {
	disk := simenv.NewDisk(1, simenv.DiskOptions{})
	db, err := Open(Options{FS: disk.Mount(), Dir: "data", FlushBytes: 1})
	must(t, err)
	value := string(make([]byte, 10_000))
	for range 200 {
		put(t, db, "a", value)
		for range 3 {
			db.Turn(0)
			disk.CompleteDue(env.Never)
		}
	}
	if got := db.Metrics().DiskBytes; got > 2*replaceBytes {
		t.Errorf("one row of 10 kB takes %d bytes", got)
	}
	if db.number == 1 {
		t.Error("2 MB were written and the file was never replaced")
	}
	must(t, db.Close())
	for _, file := range disk.Files() {
		if file != "data/LOCK" && file != "data/"+fileName(db.number) && file != "data/"+fileName(db.number)+".synced" {
			t.Errorf("%s was left behind", file)
		}
	}
}

// TestTreeKeepsPublishedVersions edits a tree and looks at the old one.
func TestTreeKeepsPublishedVersions(t *testing.T) {
	r := simenv.NewRand(1, "tree")
	var root *node
	for born := uint64(1); born < 400; born++ {
		before := rows(root)
		e := &edit{root: root, born: born}
		weight := weightOf(root)
		for range r.Intn(8) {
			switch key := meta(fmt.Sprint(r.Intn(40))); r.Intn(8) {
			case 0:
				upper := meta(fmt.Sprint(r.Intn(40)))
				if keys.Compare(key, upper) < 0 {
					e.deleteRange(key, upper)
				}
			case 1, 2:
				e.delete(key)
			default:
				e.set(key, fmt.Append(nil, born))
			}
		}
		if !slices.Equal(rows(root), before) {
			t.Fatalf("edit %d changed the version before it", born)
		}
		if got := weightOf(e.root) - weight; got != e.bytes {
			t.Fatalf("edit %d grew by %d bytes and says %d", born, got, e.bytes)
		}
		checkHeap(t, e.root)
		root = e.root
	}
}

func rows(root *node) (out []string) {
	walk(root, func(key, value []byte) bool {
		out = append(out, string(key)+"="+string(value))
		return true
	})
	return out
}

func checkHeap(t *testing.T, n *node) {
	if n == nil {
		return
	}
	for _, child := range []*node{n.left, n.right} {
		if child != nil && child.priority > n.priority {
			t.Fatal("a child has a greater priority than its parent")
		}
		checkHeap(t, child)
	}
}

func TestTreeStaysFlat(t *testing.T) {
	e := &edit{born: 1}
	for i := range 10_000 {
		e.set(keys.AppendVersion(nil, 1, []byte("the same user key"), 1, uint32(i)), nil)
	}
	if d := depth(e.root); d > 45 {
		t.Errorf("10,000 versions of one key make a tree %d deep", d)
	}
}

func depth(n *node) int {
	if n == nil {
		return 0
	}
	return 1 + max(depth(n.left), depth(n.right))
}

// FuzzReplay gives any bytes as a store file: whatever is taken from it has the
// shape of a store, and the bytes taken are frames.
func FuzzReplay(f *testing.F) {
	ops := appendOp(nil, opSet, meta("a"), []byte("1"))
	ops = appendOp(ops, opDelete, meta("b"), nil)
	ops = appendOp(ops, opCut, meta("a"), meta("c"))
	whole := appendFrame(appendFrame([]byte(fileMagic), ops), ops, ops)
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add([]byte(fileMagic))
	f.Add(appendFrame([]byte(fileMagic), []byte{opSet, 200}))
	f.Fuzz(func(t *testing.T, data []byte) {
		e := &edit{born: 1}
		good, err := e.replay(data)
		if good < 0 || good > int64(len(data)) || err == nil && good != int64(len(data)) {
			t.Fatalf("%d of %d bytes are good, %v", good, len(data), err)
		}
		var last []byte
		walk(e.root, func(key, _ []byte) bool {
			if !keys.Valid(key) || last != nil && keys.Compare(last, key) >= 0 {
				t.Fatalf("row %x after %x", key, last)
			}
			last = key
			return true
		})
		if good > 0 {
			if again, err := (&edit{born: 1}).replay(data[:good]); again != good || err != nil && good > int64(len(fileMagic)) {
				t.Fatalf("the good %d bytes replay to %d, %v", good, again, err)
			}
		}
	})
}

// FuzzOps gives any bytes as the operations of a batch.
func FuzzOps(f *testing.F) {
	f.Add(appendOp(nil, opSet, meta("a"), []byte("1")))
	f.Add([]byte{opCut, 1, 0, 1, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		for len(ops) > 0 {
			kind, key, value, rest, err := decodeOp(ops)
			if err != nil {
				return
			}
			if len(rest) >= len(ops) || !keys.Valid(key) {
				t.Fatalf("%c %x %x leaves %d of %d bytes", kind, key, value, len(rest), len(ops))
			}
			ops = rest
		}
	})
}

func TestForeignNamesAreNotOurs(t *testing.T) {
	for _, name := range []string{"store-", "store-0", "store-x", "store--1", "stores-1", "store-1.old", "MANIFEST-000001"} {
		fs := vfs.NewMem()
		must(t, fs.MkdirAll("data", 0o755))
		f, err := fs.Create("data/"+name, env.Other)
		must(t, err)
		must(t, f.Close())
		if _, err := Open(Options{FS: fs, Dir: "data"}); err == nil {
			t.Errorf("%s was taken for a file of ours", name)
		}
	}
}
