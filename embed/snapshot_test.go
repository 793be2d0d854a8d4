package embed

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// told counts lines of the members' logs by their text.
type told struct {
	slog.Handler
	mu    sync.Mutex
	lines map[string]int
}

func newTold() *told { return &told{Handler: slog.DiscardHandler, lines: map[string]int{}} }

func (l *told) Enabled(context.Context, slog.Level) bool { return true }
func (l *told) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *told) WithGroup(string) slog.Handler            { return l }
func (l *told) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines[r.Message]++
	return nil
}

func (l *told) count(line string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[line]
}

// caughtUp waits until a member has applied as much as another has now.
func (tb *table) caughtUp(s, than *seat, within time.Duration) {
	tb.t.Helper()
	want := than.group.Applied()
	for begun := time.Now(); s.group.Applied() < want; time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > within {
			tb.t.Fatalf("%s has applied %d, %s %d", s.name, s.group.Applied(), than.name, want)
		}
	}
}

// A member that is away while the others write comes back and is brought on from
// the log: nobody sends it a snapshot. KVORUM_AWAY says for how long it is away, at
// 5,000 puts a second; the normal test takes two seconds, at what the machine gives.
func TestAMemberThatWasAwayCatchesUpFromTheLog(t *testing.T) {
	away, rate := 2*time.Second, 2000
	if text := os.Getenv("KVORUM_AWAY"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		away, rate = d, 5000
	} else if testing.Short() {
		away = 500 * time.Millisecond
	}
	tb := newTable(t, 3)
	lines := newTold()
	tb.log = lines
	tb.start("new", tb.seats...)
	leader := tb.leader()
	gone := tb.seats[0]
	if gone == leader {
		gone = tb.seats[1]
	}
	tb.put(leader, "a", "1")
	gone.stop()
	puts, took := tb.flood(leader, rate, away)
	begun := time.Now()
	tb.start("existing", gone)
	tb.caughtUp(gone, leader, 2*time.Minute)
	t.Logf("away for %v and %d puts (%.0f a second); up and caught up after %v", took.Round(time.Millisecond), puts,
		float64(puts)/took.Seconds(), time.Since(begun).Round(time.Millisecond))
	if os.Getenv("KVORUM_AWAY") != "" && float64(puts) < 0.95*float64(rate)*took.Seconds() {
		t.Error("the machine is too busy: fewer puts a second than were meant")
	}
	if n := lines.count(sendingSnapshot); n > 0 {
		t.Errorf("%d snapshots were sent", n)
	}
	tb.put(gone, "a", "2")
	tb.everywhere("a", "2")
}

// flood puts values of 256 bytes by 64 clients, at most so many a second.
func (tb *table) flood(s *seat, rate int, d time.Duration) (puts int, took time.Duration) {
	tb.t.Helper()
	var sent, done atomic.Int64
	var wg sync.WaitGroup
	begun := time.Now()
	value := bytes.Repeat([]byte("v"), 256)
	for range 64 {
		wg.Go(func() {
			kv := pb.NewKVClient(s.conn)
			for n := sent.Add(1); ; n = sent.Add(1) {
				due := time.Duration(float64(n) / float64(rate) * float64(time.Second))
				if due > d || time.Since(begun) > 2*d {
					return
				}
				time.Sleep(due - time.Since(begun))
				if _, err := kv.Put(tb.t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "flood/%06d", n%100_000), Value: value}); err != nil {
					tb.t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return int(done.Load()), time.Since(begun)
}

// A member joins one whose log begins in the middle: it is sent the state, in many
// chunks, while others write, and goes on from there; a restart finds it again.
func TestANewMemberIsSentTheState(t *testing.T) {
	tb := newTable(t, 1)
	lines := newTold()
	tb.log = lines
	tb.start("new", tb.seats...)
	first := tb.seats[0]
	value := strings.Repeat("kvorum", 1<<16)
	for i := range 40 { // more than the first two segments of the log, 4 and 8 MB
		tb.put(first, fmt.Sprintf("big/%d", i), value)
	}
	first.stop() // flushes
	tb.start("new", first)
	second := tb.add()
	added, err := pb.NewClusterClient(first.conn).MemberAdd(t.Context(), &pb.MemberAddRequest{PeerURLs: []string{"http://" + second.peer}, IsLearner: true})
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan bool)
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				tb.put(first, "meanwhile", fmt.Sprint(i))
			}
		}
	})
	tb.start("existing", second)
	tb.eventually("a promotion", func(ctx context.Context) bool {
		_, err := pb.NewClusterClient(first.conn).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: added.Member.ID})
		return err == nil
	})
	close(stop)
	writing.Wait()
	if lines.count(sendingSnapshot+" is complete") != 1 || lines.count(receivingSnapshot+" is complete") != 1 {
		t.Errorf("told: %v", lines.lines)
	}
	for way, s := range map[string]*seat{"send": first, "receive": second} {
		prefix := "etcd_network_snapshot_" + way
		got := scrape(t, s.client)
		for name, want := range map[string]string{prefix + "_success": "1", prefix + "_failures": "0", prefix + "_inflights_total": "0"} {
			f := got[name]
			if f == nil || len(f.values) != 1 || !f.labels["To"] && !f.labels["From"] {
				t.Errorf("%s of %s: %v", name, s.name, f)
				continue
			}
			for series, value := range f.values {
				if value != want {
					t.Errorf("%s is %s, want %s", series, value, want)
				}
			}
		}
		if f := got[prefix+"_total_duration_seconds"]; f == nil || !slices.Equal(f.buckets, doubling(0.1, 10)) {
			t.Errorf("%s: %v", prefix, f)
		}
	}
	second.stop()
	tb.start("existing", second)
	tb.everywhere("big/0", value)
	tb.everywhere("big/39", value)
	tb.put(second, "last", "1")
	tb.everywhere("last", "1")
	tb.caughtUp(second, first, 10*time.Second)
	a, b := first.hash(t), second.hash(t)
	if a != b {
		t.Errorf("the states have the hashes %x and %x", a, b)
	}
	tb.sameHistory(first, second)
}

func (s *seat) hash(t *testing.T) uint32 {
	t.Helper()
	r, err := pb.NewMaintenanceClient(s.conn).HashKV(t.Context(), &pb.HashKVRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Hash
}
