package main

import (
	"fmt"
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

// mostResident is what saving may add to a member's memory, and what restoring takes,
// whatever the size of the store.
const mostResident = 350 << 20

// A store of KVORUM_BACKUP_MB megabytes of values of 1 KB is saved while it is written
// to, and restored, with little memory; the times are told.
func TestALargeStore(t *testing.T) {
	megabytes, err := strconv.Atoi(os.Getenv("KVORUM_BACKUP_MB"))
	if err != nil {
		t.Skip("KVORUM_BACKUP_MB is not set: this takes minutes")
	}
	h := newHouse(t, program(t, "etcd"))
	c := h.start()
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
	before := resident(t, h.process.Process.Pid, "VmRSS")

	calm := beside(t, c, func() { time.Sleep(10 * time.Second) })
	file := filepath.Join(t.TempDir(), "backup")
	var saved time.Duration
	busy := beside(t, c, func() {
		begun := time.Now()
		do(t, program(t, "etcdctl"), "--endpoints="+h.client, "snapshot", "save", file)
		saved = time.Since(begun)
	})
	peak := resident(t, h.process.Process.Pid, "VmHWM")
	info := must[os.FileInfo](t)(os.Stat(file))
	t.Logf("saved %d MB in %v; the member's memory was %d MB and at most %d MB; puts beside it: %s; before: %s",
		info.Size()>>20, saved, before>>20, peak>>20, busy, calm)
	if peak > before+mostResident {
		t.Errorf("saving took %d MB of memory", (peak-before)>>20)
	}
	h.stop(syscall.SIGTERM)

	to := newHouse(t, program(t, "etcd"))
	restore := exec.Command(program(t, "etcdutl"), append([]string{"snapshot", "restore", file}, to.move()...)...)
	begun := time.Now()
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	restored := time.Since(begun)
	used := restore.ProcessState.SysUsage().(*syscall.Rusage)
	t.Logf("restored in %v with %v of processor and at most %d MB of memory", restored, restore.ProcessState.UserTime()+restore.ProcessState.SystemTime(), used.Maxrss>>10)
	if used.Maxrss<<10 > mostResident {
		t.Errorf("restoring took %d MB of memory", used.Maxrss>>10)
	}
	begun = time.Now()
	c = to.start()
	t.Logf("started in %v", time.Since(begun))
	r := must[*clientv3.GetResponse](t)(c.Get(t.Context(), "/registry/", clientv3.WithPrefix(), clientv3.WithCountOnly()))
	if r.Count < int64(megabytes<<10) {
		t.Errorf("%d keys", r.Count)
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
