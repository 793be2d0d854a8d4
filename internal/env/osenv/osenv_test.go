package osenv_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/osenv"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestClockMovesForwardAndWallIsNow(t *testing.T) {
	clock := osenv.NewClock()
	before := clock.Now()
	for clock.Now() == before {
	}
	if after := clock.Now(); before < 0 || after < before || after.Sub(before) > time.Minute {
		t.Fatalf("the clock went from %d to %d", before, after)
	}
	if off := time.Since(clock.Wall()).Abs(); off > time.Minute {
		t.Fatalf("the calendar is off by %v", off)
	}
}

func TestRandIsUnbiasedAndDiffersFromRunToRun(t *testing.T) {
	r := osenv.NewRand()
	if r.Uint64() == osenv.NewRand().Uint64() {
		t.Fatal("two generators began alike")
	}
	// Two thirds of 2^63: reducing 63 bits modulo it would draw the lower half
	// twice as often as the upper.
	const bound = int64(1)<<62 + int64(1)<<61
	low := 0
	for range 10_000 {
		n := r.Int64N(bound)
		if n < 0 || n >= bound {
			t.Fatalf("drew %d", n)
		}
		if n < bound/2 {
			low++
		}
	}
	if low < 4700 || low > 5300 { // six standard deviations
		t.Fatalf("%d of 10,000 draws are in the lower half", low)
	}
}

func TestTasksRunToTheirEndOrToStop(t *testing.T) {
	w := osenv.New()
	finished := make(chan int)
	steps := 0
	w.Tasks.Go("three steps", func() bool {
		steps++
		if steps == 3 {
			finished <- steps
		}
		return steps == 3
	})
	if n := <-finished; n != 3 {
		t.Fatalf("%d steps", n)
	}

	var running, endless atomic.Int64
	began := make(chan struct{}, 1)
	w.Tasks.Go("endless", func() bool {
		running.Add(1)
		defer running.Add(-1)
		if endless.Add(1) == 1 {
			began <- struct{}{}
		}
		return false
	})
	<-began
	w.Stop()
	if running.Load() != 0 {
		t.Fatal("Stop returned while a step was running")
	}
	after := endless.Load()
	w.Tasks.Go("too late", func() bool { endless.Add(1); return true })
	w.Stop()
	if endless.Load() != after {
		t.Fatal("a step ran after Stop")
	}
}

func TestFilesSync(t *testing.T) {
	fs, name := osenv.FS(), filepath.Join(t.TempDir(), "log")
	f, err := fs.Create(name, env.WAL)
	ok(t, err)
	if _, is := f.(env.Syncer); !is {
		t.Fatal("a created file is no Syncer")
	}
	if f.Fd() == vfs.InvalidFd {
		t.Fatal("the descriptor is hidden: Pebble would neither preallocate nor prefetch")
	}
	ok(t, f.Preallocate(0, 1<<20))
	if info, err := f.Stat(); err != nil || info.Size() != 0 {
		t.Fatalf("preallocated to size %d, %v", info.Size(), err)
	}
	_, err = f.Write([]byte("frame"))
	ok(t, err)
	calls := 0
	env.StartSync(f, true, func(err error) { ok(t, err); calls++ })
	if calls != 1 {
		t.Fatalf("done was called %d times before an idle caller's StartSync returned", calls)
	}
	ends := make(chan error, 1)
	env.StartSync(f, false, func(err error) { ends <- err })
	ok(t, <-ends)
	ok(t, f.Close())
	for _, idle := range []bool{true, false} {
		env.StartSync(f, idle, func(err error) { ends <- err })
		if <-ends == nil {
			t.Fatal("a closed file was synced")
		}
	}

	again, err := fs.OpenReadWrite(name, env.WAL)
	ok(t, err)
	if _, is := again.(env.Syncer); !is {
		t.Fatal("a reopened file is no Syncer")
	}
	if data, err := io.ReadAll(again); err != nil || string(data) != "frame" {
		t.Fatalf("read %q, %v", data, err)
	}
	ok(t, again.Close())
	if vfs.Root(fs) != vfs.Default {
		t.Fatal("the file system does not unwrap to vfs.Default")
	}
	if f, err := fs.OpenReadWrite(filepath.Join(name, "no"), env.WAL); err == nil || f != nil {
		t.Fatalf("opened a file below a file: %v, %v", f, err)
	}
}

func TestPebbleRunsOnIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for round := range 2 {
		db, err := pebble.Open(dir, &pebble.Options{FS: osenv.FS()})
		ok(t, err)
		if round == 0 {
			ok(t, db.Set([]byte("k"), []byte("v"), pebble.Sync))
		}
		value, closer, err := db.Get([]byte("k"))
		ok(t, err)
		if string(value) != "v" {
			t.Fatalf("read %q", value)
		}
		ok(t, closer.Close())
		ok(t, db.Close())
	}
}

// lockVariable tells the test binary to be the other process of the next story.
const lockVariable = "KVORUM_TEST_LOCK"

func TestMain(m *testing.M) {
	if name := os.Getenv(lockVariable); name != "" {
		_, err := osenv.FS().Lock(name)
		if errors.Is(err, env.ErrLocked) {
			os.Exit(7)
		}
		if err != nil {
			os.Exit(8)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// otherProcess tries to take the lock; the exit code tells how it went.
func otherProcess(t *testing.T, name string) int {
	t.Helper()
	self, err := os.Executable()
	ok(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), lockVariable+"="+name)
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

func TestOneDirectoryOneOwner(t *testing.T) {
	fs, dir := osenv.FS(), t.TempDir()
	name := filepath.Join(dir, "LOCK")
	held, err := fs.Lock(name)
	ok(t, err)
	// The same file under another spelling, and read by somebody else in this
	// process: neither takes nor breaks the lock.
	if _, err := fs.Lock(dir + "/./LOCK"); !errors.Is(err, env.ErrLocked) {
		t.Fatalf("this process locked twice: %v", err)
	}
	peek, err := fs.Open(name)
	ok(t, err)
	ok(t, peek.Close())
	if code := otherProcess(t, name); code != 7 {
		t.Fatalf("another process trying the lock ended with code %d", code)
	}
	ok(t, held.Close())
	if code := otherProcess(t, name); code != 0 {
		t.Fatalf("another process could not take the free lock: code %d", code)
	}
	held, err = fs.Lock(name) // the other process has ended, and so its lock
	ok(t, err)
	ok(t, held.Close())
}
