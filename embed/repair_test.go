package embed

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// lines are what the members of a table have logged.
type lines struct {
	mu   sync.Mutex
	text []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	return len(p), nil
}

// forget what was logged; others go on logging.
func (l *lines) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = nil
}

// has says whether a line has all the words.
func (l *lines) has(words ...string) bool { return l.count(words...) > 0 }

// count says how many lines have all the words.
func (l *lines) count(words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.SplitSeq(string(l.text), "\n") {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			n++
		}
	}
	return n
}

// flipIn flips bits in the files of one kind of a directory, in every block that is
// not blank from the first one on, but for so many.
func flipIn(t *testing.T, dir, kind string, skip int) {
	t.Helper()
	draw := rand.New(rand.NewPCG(*flipSeed, 7))
	flipped := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || kindOf(strings.TrimPrefix(path, dir)) != kind {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		for block := int64(skip); block*blockBytes < info.Size(); block++ {
			if zero(t, path, block) {
				continue
			}
			offset := block*blockBytes + draw.Int64N(min(blockBytes, info.Size()-block*blockBytes))
			flip(t, path, offset, draw.IntN(8))
			if flipped++; kind == "log" {
				return nil // one is enough, amid good ones
			}
		}
		return nil
	})
	if err != nil || flipped == 0 {
		t.Fatalf("no bit was flipped in any %s: %v", kind, err)
	}
}

// flipAt flips a bit where the tables of a directory have some bytes.
func flipAt(t *testing.T, dir string, what []byte) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "member", "store", "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		data, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(data, what); at >= 0 {
			flip(t, table, int64(at), 3)
			return
		}
	}
	t.Fatalf("the bytes are in none of %v", tables)
}

// restless is a cluster of three with tables and a log, under the names of its
// members, whose first seat is to be damaged and does not lead.
func restless(t *testing.T) (tb *table, victim *seat, told *lines) {
	t.Helper()
	tb, told = newTable(t, 3), &lines{}
	tb.log = slog.NewTextHandler(told, nil)
	tb.start("new", tb.seats...)
	write := func() {
		for i := range 24 {
			tb.put(tb.seats[i%3], fmt.Sprintf("key%02d", i), strings.Repeat(fmt.Sprint(i), 400))
		}
	}
	write()
	tb.everywhere("key23", strings.Repeat("23", 400))
	for _, s := range tb.seats { // a clean stop makes a table
		s.stop()
	}
	tb.start("new", tb.seats...)
	write()
	tb.everywhere("key23", strings.Repeat("23", 400))
	return tb, tb.seats[0], told
}

// whole waits until a member says that it is repaired, and judges what it has; then
// until it has been the one that is needed.
func (tb *table) whole(victim *seat, told *lines, file string) {
	tb.t.Helper()
	if !told.has("this member is damaged: it neither votes nor stands", file) {
		tb.t.Errorf("it does not say that it is damaged, and by which file:\n%s", told)
	}
	tb.eventually("the repair", func(context.Context) bool { return !victim.group.Status().Damaged })
	tb.eventually("the end of the memory of it", func(context.Context) bool {
		_, err := os.Stat(filepath.Join(victim.dir, "member", "damaged"))
		return os.IsNotExist(err)
	})
	tb.eventually("word of the repair", func(context.Context) bool { return told.has("this member is repaired: it votes again") })
	r, err := pb.NewKVClient(victim.conn).Range(tb.t.Context(), &pb.RangeRequest{Key: []byte("key"), RangeEnd: []byte("kez")})
	if err != nil || len(r.Kvs) != 24 {
		tb.t.Fatalf("it has %d keys, %v", len(r.GetKvs()), err)
	}
	for i, kv := range r.Kvs {
		if string(kv.Key) != fmt.Sprintf("key%02d", i) || string(kv.Value) != strings.Repeat(fmt.Sprint(i), 400) {
			tb.t.Errorf("%s is %.20s", kv.Key, kv.Value)
		}
	}
	gone := tb.seats[1]
	gone.stop()
	tb.put(victim, "after", "the repair")
	tb.everywhere("after", "the repair")
	tb.start("new", gone)
	tb.everywhere("after", "the repair")
}

// A log with a flipped bit, at its beginning or amid its frames: the member starts,
// votes for nobody until it has everything, also if it is killed meanwhile, and is a
// member like any other in the end, with a log that starts without damage.
func TestADamagedLogIsRepairedFromThePeers(t *testing.T) {
	for name, skip := range map[string]int{"from its first block": 0, "amid": 20} {
		t.Run(name, func(t *testing.T) {
			if skip == 0 && testing.Short() {
				t.Skip("a second damaged log")
			}
			tb, victim, told := restless(t)
			crashed := t.TempDir()
			copyDir(t, victim.dir, crashed) // as kill -9 leaves it
			victim.stop()
			victim.dir = crashed
			flipIn(t, victim.dir, "log", skip)
			for _, s := range tb.seats[1:] {
				s.stop()
			}
			done := make(chan error, 2)
			for _, s := range tb.seats[:2] {
				go func() { done <- tb.startOne("new", s) }()
			}
			select {
			case err := <-done:
				t.Fatalf("a member that needs the damaged one's vote came up: %v", err)
			case <-time.After(10 * 200 * time.Millisecond): // election time-outs
			}
			tb.start("new", tb.seats[2])
			for range 2 {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			tb.whole(victim, told, ".wal")
			victim.stop()
			told.forget()
			tb.start("new", victim)
			if told.has("this member is damaged") {
				t.Errorf("it starts damaged again: %s", told)
			}
		})
	}
}

// A store that cannot be opened is replaced by the leader's state.
func TestADamagedStoreIsReplacedByTheLeadersState(t *testing.T) {
	tb, victim, told := restless(t)
	victim.stop()
	flipIn(t, victim.dir, "MANIFEST", 0)
	tb.start("new", victim)
	tb.whole(victim, told, "MANIFEST")
}

// Damage to a table is found by whoever reads it, a client or a compaction: the member
// ends, with the name of the file, and its next start replaces the store.
func TestADamagedTableEndsTheMemberAndIsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("what follows is TestADamagedStoreIsReplacedByTheLeadersState again")
	}
	tb, victim, told := restless(t)
	random := make([]byte, 30_000) // more than a block
	for i := range random {
		random[i] = byte(rand.IntN(256))
	}
	for i, key := range []string{"q", "random", "s"} {
		tb.put(victim, key, string(random[10_000*i:]))
	}
	victim.stop()
	flipAt(t, victim.dir, random[15_000:15_016])
	end := tb.startOne("new", victim)
	if end == nil { // else a compaction has found it already
		tb.eventually("a reader finds the damaged block", func(ctx context.Context) bool {
			_, err := pb.NewKVClient(victim.conn).Range(ctx, &pb.RangeRequest{Key: []byte("q"), RangeEnd: []byte("t"), Serializable: true})
			if status.Code(err) == codes.DataLoss {
				end = <-victim.Failed()
				return true
			}
			select {
			case end = <-victim.Failed():
				return true
			default:
				return false
			}
		})
	}
	if !strings.Contains(end.Error(), ".sst") {
		t.Errorf("it ends with %v", end)
	}
	victim.stop()
	tb.start("new", victim)
	tb.whole(victim, told, ".sst")
}
