package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// mostResident is what saving may add to a member's memory, and what a program that reads
// or writes a backup takes, whatever the size of the store.
const mostResident = 350 << 20

// A store of KVORUM_BACKUP_MB megabytes of values of 1 KB is saved while it is written
// to, looked at, and restored by us and by the real etcdctl, with the same hash at each
// station and with little memory of ours; times and memory are told.
func TestALargeStore(t *testing.T) {
	megabytes, err := strconv.Atoi(os.Getenv("KVORUM_BACKUP_MB"))
	if err != nil {
		t.Skip("KVORUM_BACKUP_MB is not set: this takes minutes")
	}
	h := newHouse(t, program(t, "etcd"))
	c := h.start()
	fillLarge(t, c, megabytes)
	before := resident(t, h.process.Process.Pid, "VmRSS")

	calm := beside(t, c, func() { time.Sleep(10 * time.Second) })
	file := filepath.Join(t.TempDir(), "backup")
	busy := beside(t, c, func() {
		spend(t, mostResident, program(t, "etcdctl"), "snapshot", "save", file, "--endpoints="+h.client)
	})
	peak := resident(t, h.process.Process.Pid, "VmHWM")
	info := must[os.FileInfo](t)(os.Stat(file))
	t.Logf("saved %d MB; the member's memory was %d MB and at most %d MB; puts beside it: %s; before: %s",
		info.Size()>>20, before>>20, peak>>20, busy, calm)
	if peak > before+mostResident {
		t.Errorf("saving took %d MB of memory", (peak-before)>>20)
	}

	utl := program(t, "etcdutl")
	status := spend(t, mostResident, utl, "snapshot", "status", file, "-w", "json")
	var is struct{ Revision, TotalKey int64 }
	if err := json.Unmarshal([]byte(status), &is); err != nil || is.TotalKey < int64(megabytes<<10) {
		t.Fatalf("%v: %s", err, status)
	}
	var sum struct{ Hash uint32 }
	if err := json.Unmarshal([]byte(spend(t, mostResident, utl, "hashkv", file, "-w", "json")), &sum); err != nil {
		t.Fatal(err)
	}
	same := func(what string, h *house, c *clientv3.Client) {
		t.Helper()
		begun := time.Now()
		r := must[*clientv3.HashKVResponse](t)(c.HashKV(t.Context(), h.client, is.Revision))
		t.Logf("%s: hash %08x after %v, memory at most %d MB", what, r.Hash, time.Since(begun), resident(t, h.process.Process.Pid, "VmHWM")>>20)
		if r.Hash != sum.Hash {
			t.Errorf("%s: the hash at revision %d is %08x, that of the backup %08x", what, is.Revision, r.Hash, sum.Hash)
		}
	}
	same("the member that was saved", h, c)
	h.leave()

	for _, to := range []struct{ restore, start string }{{utl, program(t, "etcd")}, {realCtl, realEtcd}} {
		if _, err := os.Stat(to.start); err != nil {
			t.Logf("%s is not installed: nothing is moved back", to.start)
			continue
		}
		limit := int64(mostResident)
		if to.restore == realCtl {
			limit = math.MaxInt64
		}
		h := newHouse(t, to.start)
		spend(t, limit, to.restore, append([]string{"snapshot", "restore", file}, h.move()...)...)
		begun := time.Now()
		c := h.start()
		t.Logf("%s started in %v, memory at most %d MB", filepath.Base(to.start), time.Since(begun), resident(t, h.process.Process.Pid, "VmHWM")>>20)
		same(filepath.Base(to.restore)+"'s house", h, c)
		h.leave()
	}
}

// fillLarge puts values of 1 KB that do not compress, a hundred at a time.
func fillLarge(t *testing.T, c *clientv3.Client, megabytes int) {
	t.Helper()
	draw := rand.New(rand.NewPCG(1, 1))
	value := make([]byte, 1<<10)
	for i := 0; i < megabytes<<10; i += 100 {
		var ops []clientv3.Op
		for k := range 100 {
			for b := range value {
				value[b] = byte(draw.Uint32())
			}
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("/registry/%09d", i+k), string(value)))
		}
		must[*clientv3.TxnResponse](t)(c.Txn(t.Context()).Then(ops...).Commit())
	}
}

// spend runs a program that must succeed with at most so much memory, and tells what it
// took. It returns what was printed.
func spend(t *testing.T, most int64, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	var said bytes.Buffer
	cmd.Stderr = &said
	begun := time.Now()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out, &said)
	}
	used := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	t.Logf("%s %s %.8s: %v with %v of processor and at most %d MB of memory", filepath.Base(name), args[0], args[1], time.Since(begun).Round(10*time.Millisecond),
		(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Round(10*time.Millisecond), used>>20)
	if used > most {
		t.Errorf("it took %d MB of memory", used>>20)
	}
	return string(out)
}

// leave stops the server and takes its directory away.
func (h *house) leave() {
	h.t.Helper()
	h.stop(syscall.SIGTERM)
	if err := os.RemoveAll(h.dir); err != nil {
		h.t.Fatal(err)
	}
}

// beside puts a key every 5 ms while something is done, and says how long that took.
func beside(t *testing.T, c *clientv3.Client, do func()) string {
	t.Helper()
	var took []time.Duration
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			begun := time.Now()
			if _, err := c.Put(t.Context(), "beside", "x"); err != nil {
				t.Error(err)
				return
			}
			took = append(took, time.Since(begun))
		}
	})
	do()
	close(stop)
	writer.Wait()
	slices.Sort(took)
	if len(took) == 0 {
		return "none"
	}
	return fmt.Sprintf("%d, half of them within %v, 99 %% within %v, the slowest %v", len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
}

// resident reads a line of /proc/PID/status, in bytes.
func resident(t *testing.T, pid int, name string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no %s", name)
	return 0
}
