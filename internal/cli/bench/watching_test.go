package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// dataOf is what a scenario found: by cases, servers and rounds, or by the last two.
func dataOf[D any](t *testing.T, out string) D {
	t.Helper()
	var got struct{ Data D }
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return got.Data
}

func watchedOf(t *testing.T, s Server, more ...string) Watched {
	t.Helper()
	return dataOf[[][][]Watched](t, mustRun(t, append(append([]string{"watch", "--json", "--endpoint", s.Endpoint}, brief...), more...)...))[0][0][0]
}

func TestEveryWatcherOfAPrefixHasEachPutBeforeTheNextOne(t *testing.T) {
	s := newFake().serve(t)
	w := watchedOf(t, s, "--watchers", "10", "--streams", "4", "--delivered")
	if w.Puts.Calls == 0 || w.Events != 10*w.Puts.Calls || w.Rate <= 0 || len(w.faults()) != 0 {
		t.Errorf("%+v", w)
	}
	if w.P50 <= 0 || w.P50 > w.P99 || w.P99 > w.Max || w.Max > w.Puts.Max {
		t.Errorf("events after %s to %s, puts with their last event after %s", w.P50, w.Max, w.Puts.Max)
	}
}

func TestWatchersOfSingleKeysAreComparedWithNone(t *testing.T) {
	f := newFake()
	s := f.serve(t)
	w := watchedOf(t, s, "--watchers", "100", "--streams", "3", "--on", "keys", "--alone")
	if w.Events != w.Puts.Calls || w.Reference.Calls == 0 || w.putRatio() <= 0 || len(w.faults()) != 0 {
		t.Errorf("%+v", w)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := map[string]bool{}
	for _, r := range f.hearing.opened {
		keys[string(r.Key)] = len(r.RangeEnd) == 0
	}
	if len(keys) != 100 || len(f.hearing.opened) != 100 || !keys["00000099"] {
		t.Errorf("%d watches of %d keys", len(f.hearing.opened), len(keys))
	}
}

func TestStalledWatchersReadNothingAndTheOthersAreComparedWithNoneOfThem(t *testing.T) {
	f := newFake()
	s := f.serve(t)
	w := watchedOf(t, s, "--watchers", "20", "--streams", "2", "--on", "keys", "--stalled", "3", "--duration", "100ms")
	if w.Events == 0 || w.Reference.Calls == 0 || len(w.faults()) != 0 {
		t.Errorf("%+v", w)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.hearing.opened); n != 23 {
		t.Errorf("%d watches", n)
	}
}

func TestAnEventThatDoesNotComeIsAnError(t *testing.T) {
	f := newFake()
	s := f.serve(t)
	told := 0
	f.hearing.forget = func(*mvccpb.Event) bool { told++; return told%10 == 0 }
	defer func(d time.Duration) { patienceForEvents = d }(patienceForEvents)
	patienceForEvents = 50 * time.Millisecond
	w := watchedOf(t, s, "--watchers", "1", "--streams", "1")
	if n := w.Errors["watch: an event is missing"]; n == 0 {
		t.Errorf("%+v", w)
	}
}

func behindOf(t *testing.T, s Server, more ...string) (string, error) {
	t.Helper()
	return run(t, append(append([]string{"watch-behind", "--json", "--endpoint", s.Endpoint, "--behind", "500", "--rate", "1000"}, brief...), more...)...)
}

func TestAWatcherBehindIsToldEverythingThatItMissed(t *testing.T) {
	f := newFake()
	s := f.serve(t)
	out, err := behindOf(t, s)
	if err != nil {
		t.Fatal(err)
	}
	b := dataOf[[][]Behind](t, out)[0][0]
	if b.Events != 500 || b.Took <= 0 || b.Rate() <= 0 || b.Quiet.Calls == 0 || len(b.faults()) != 0 {
		t.Errorf("%+v", b)
	}
	f.hearing.forget = func(e *mvccpb.Event) bool { return e.Kv.ModRevision%100 == 0 }
	if _, err := behindOf(t, s); err == nil || !strings.Contains(err.Error(), "came instead of") {
		t.Errorf("with an event left out: %v", err)
	}
}

// priorities are those of all threads of the processes that this one has started.
func priorities(t *testing.T) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/stat")
	if err != nil {
		t.Error(err)
	}
	for _, file := range files {
		stat, _ := os.ReadFile(file) // it may have ended
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 16 && fields[1] == strconv.Itoa(os.Getpid()) {
			found = append(found, fields[16])
		}
	}
	return found
}

// What the watcher takes to read is not to be waited for by those who put.
func TestTheWatcherThatCatchesUpIsAProcessThatGoesLast(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("priorities are read from /proc")
	}
	f := newFake()
	s := f.serve(t)
	var seen []string
	f.hearing.open = func() { seen = priorities(t) }
	out, err := behindOf(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if b := dataOf[[][]Behind](t, out)[0][0]; b.WatcherCPU <= 0 {
		t.Errorf("%+v", b)
	}
	if len(seen) == 0 || slices.ContainsFunc(seen, func(p string) bool { return p != "19" }) {
		t.Errorf("priorities of its threads: %v", seen)
	}
}

func TestRenewalsAreAskedForOverAStreamOfEachClient(t *testing.T) {
	f := newFake()
	s := f.serve(t)
	args := append([]string{"keep-alive", "--json", "--endpoint", s.Endpoint, "--leases", "10"}, brief...)
	for range 2 { // the second time the leases are there already
		r := rowsOf(t, mustRun(t, args...))[0].Servers[0]
		if r.Calls == 0 || f.saw("renew") < int(r.Calls) || len(r.Errors) != 0 || len(f.hearing.granted) != 10 {
			t.Errorf("%+v", r)
		}
	}
	f.hearing.gone = true
	if r := rowsOf(t, mustRun(t, args...))[0].Servers[0]; r.Calls != 0 || len(r.Errors) == 0 {
		t.Errorf("of leases that are gone: %+v", r)
	}
	if r := rowsOf(t, mustRun(t, append([]string{"lease-grant", "--json", "--endpoint", s.Endpoint}, brief...)...))[0].Servers[0]; r.Calls == 0 || f.saw("grant") < int(r.Calls) || len(r.Errors) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestLeasesThatEndTogetherEndNeitherEarlyNorUnnoticed(t *testing.T) {
	ends := func(t *testing.T, soon time.Duration) Ending {
		t.Parallel() // what takes its time is the TTL
		f := newFake()
		f.hearing.soon = soon
		args := append([]string{"lease-end", "--json", "--endpoint", f.serve(t).Endpoint, "--ending-leases", "30", "--ending-ahead", "2100ms", "--rate", "500"}, brief...)
		return dataOf[[][]Ending](t, mustRun(t, args...))[0][0]
	}
	t.Run("in time", func(t *testing.T) {
		// The server's time begins before its answer is here.
		if e := ends(t, 0); e.Last < -time.Second || e.Last > time.Second || e.Within > time.Second || e.Busy.Calls == 0 || e.Quiet.Calls == 0 || len(e.faults()) != 0 {
			t.Errorf("%+v", e)
		}
	})
	t.Run("early", func(t *testing.T) {
		if e := ends(t, 300*time.Millisecond); e.Errors["a lease ended early, or its key is still there"] == 0 {
			t.Errorf("%+v", e)
		}
	})
}
