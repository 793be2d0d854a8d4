package wal_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/storage/wal"
)

var measure = flag.Bool("disk", false, "measure this machine's disk: the table of docs/decisions/0002-log-files.md")

const fileBytes = 16 << 20

// TestMeasureDisk times writing and syncing one frame, in every combination of
// how the sync is asked for and what the file was before. It asserts nothing: its
// table is what docs/decisions/0002 was decided by.
func TestMeasureDisk(t *testing.T) {
	if !*measure {
		t.Skip("needs -disk")
	}
	for _, size := range []int{4 << 10, 64 << 10} {
		times := map[string][]time.Duration{}
		var names []string
		const rounds = 4 // interleaved, so that a busy moment hits all alike
		for range rounds {
			for _, file := range []string{"growing", "growing by 256 KiB", "zero-filled", "recycled"} {
				for _, how := range []string{"fdatasync", "O_DSYNC", "O_DIRECT|O_DSYNC"} {
					name := fmt.Sprintf("%-18s %-17s", file, how)
					if !slices.Contains(names, name) {
						names = append(names, name)
					}
					times[name] = append(times[name], timeFrames(t, file, how, size)...)
				}
			}
		}
		for _, name := range names {
			all := times[name]
			slices.Sort(all)
			t.Logf("%2d KiB  %s  median %6.0f us  p99 %6.0f us", size>>10, name,
				float64(all[len(all)/2])/1e3, float64(all[len(all)*99/100])/1e3)
		}
	}
}

func timeFrames(t *testing.T, file, how string, size int) []time.Duration {
	path := filepath.Join(t.TempDir(), "log")
	if file == "zero-filled" || file == "recycled" {
		content := make([]byte, fileBytes)
		if file == "recycled" {
			for i := range content {
				content[i] = byte(i * 7)
			}
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flags := unix.O_RDWR | unix.O_CREAT
	switch how {
	case "O_DSYNC":
		flags |= unix.O_DSYNC
	case "O_DIRECT|O_DSYNC":
		flags |= unix.O_DSYNC | unix.O_DIRECT
	}
	fd, err := unix.Open(path, flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		t.Fatal(err)
	}
	unix.Sync()
	frame, err := unix.Mmap(-1, 0, 256<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(frame) }()
	var times []time.Duration
	filled := 0
	for at := 0; at+size <= fileBytes && len(times) < 150; at += size {
		frame[0]++
		begin := time.Now()
		if file == "growing by 256 KiB" && at+size > filled {
			filled = at + size + 256<<10
			write(t, fd, frame[:256<<10], int64(at+size))
		}
		write(t, fd, frame[:size], int64(at))
		if how == "fdatasync" {
			if err := unix.Fdatasync(fd); err != nil {
				t.Fatal(err)
			}
		}
		times = append(times, time.Since(begin))
	}
	return times
}

func write(t *testing.T, fd int, p []byte, at int64) {
	if n, err := syscall.Pwrite(fd, p, at); err != nil || n != len(p) {
		t.Fatal(n, err)
	}
}

// silent is an Owner that wants nothing.
type silent struct{}

func (silent) Summarize(dst []byte) []byte                   { return dst }
func (silent) Placed(uint64, uint32)                         {}
func (silent) Restore([]byte, bool) error                    { return nil }
func (silent) Replay(uint64, uint32, wal.Record, bool) error { return nil }

// BenchmarkFrame stages records, writes them as one frame and syncs: on a real
// disk, and without one, which shows what the log itself costs.
func BenchmarkFrame(b *testing.B) {
	for _, c := range []struct {
		name    string
		records int
		bytes   int
		disk    bool
	}{
		{"memory/1x300", 1, 300, false}, {"memory/200x300", 200, 300, false}, {"memory/1x64K", 1, 64 << 10, false},
		{"disk/1x300", 1, 300, true}, {"disk/200x300", 200, 300, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := osenv.New()
			defer w.Stop()
			o := wal.Options{FS: w.FS, Dir: filepath.Join(b.TempDir(), "wal"), Rand: w.Rand, Tasks: w.Tasks, Clock: w.Clock}
			if !c.disk {
				o.FS = nowhere{w.FS}
			}
			l, err := wal.Open(o, silent{})
			if err != nil {
				b.Fatal(err)
			}
			r := wal.Record{Group: 1, Kind: 1, Term: 1, Data: make([]byte, c.bytes)}
			r.Sum = wal.Sum(r.Group, r.Kind, r.Term, r.Index, r.Data)
			done := func(err error) {
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.SetBytes(int64(c.records * c.bytes))
			for b.Loop() {
				for range c.records {
					l.Append(r)
				}
				l.StartSync(true, done)
				l.Release(l.Newest())
				l.Turn(w.Clock.Now())
			}
			b.StopTimer()
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// nowhere is the real file system, but what is written to a file of the log goes
// nowhere.
type nowhere struct{ env.FS }

type hole struct{ env.File }

func (hole) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (hole) SyncData() error                        { return nil }

func (n nowhere) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (env.File, error) {
	f, err := n.FS.OpenReadWrite(name, c, o...)
	return hole{f}, err
}

func (n nowhere) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (env.File, error) {
	f, err := n.FS.ReuseForWrite(from, to, c)
	return hole{f}, err
}
