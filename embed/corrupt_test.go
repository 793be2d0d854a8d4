package embed

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/id"
	enginekeys "github.com/kvorum/kvorum/internal/storage/engine/keys"
	"github.com/kvorum/kvorum/internal/storage/engine/pebbledb"
)

// forge changes a value in the store of a member that does not run, as no disk would:
// every checksum is right afterwards.
func forge(t *testing.T, dir, from, to string) {
	t.Helper()
	db, err := pebbledb.Open(pebbledb.Options{FS: osenv.FS(), Dir: filepath.Join(dir, "member", "store")})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := db.Iter(enginekeys.AppendGroupStart(nil, id.DefaultGroup), enginekeys.AppendGroupEnd(nil, id.DefaultGroup))
	if err != nil {
		t.Fatal(err)
	}
	batch, found := db.NewBatch(), 0
	for ok := rows.SeekGE(enginekeys.AppendGroupStart(nil, id.DefaultGroup)); ok; ok = rows.Next() {
		value, err := rows.Value()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasSuffix(value, []byte(from)) {
			batch.Set(bytes.Clone(rows.Key()), bytes.Replace(value, []byte(from), []byte(to), 1))
			found++
		}
	}
	if err := errors.Join(rows.Err(), rows.Close(), db.Commit(batch)); err != nil || found != 1 {
		t.Fatalf("%d rows, %v", found, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// A member whose data is not that of the others is found: by itself before it serves,
// by a comparison of everything, or by one of what a compaction left. From then on
// nobody changes a key.
func TestAMemberWithOtherData(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{
		"all":         {"--corrupt-check-time=50ms"},
		"compactions": {"--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=50ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && name != "all" {
				t.Skip("one way is enough for a short run")
			}
			log := &lines{}
			tb := newTable(t, 3)
			tb.log = slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})
			tb.flags = flags
			tb.start("new", tb.seats...)
			tb.put(tb.seats[0], "k", "honest")
			tb.put(tb.seats[0], "l", "more")
			tb.everywhere("l", "more")
			if name == "all" {
				tb.eventually("a comparison of equals", func(context.Context) bool { return log.has("compared data with the other members", "all=true") })
			}
			liar := tb.seats[2]
			liar.stop()
			forge(t, liar.dir, "honest", "crooks")
			tb.flags = append(flags[:len(flags):len(flags)], "--feature-gates=InitialCorruptCheck=true")
			if err := tb.startOne("new", liar); !errors.Is(err, errInconsistent) {
				t.Fatalf("with InitialCorruptCheck it starts: %v", err)
			}
			tb.flags = flags
			tb.start("new", liar)
			if name == "compactions" {
				if _, err := pb.NewKVClient(tb.seats[0].conn).Compact(t.Context(), &pb.CompactionRequest{Revision: 3}); err != nil {
					t.Fatal(err)
				}
			}
			var alarms *pb.AlarmResponse
			tb.eventually("the alarm", func(ctx context.Context) bool {
				var err error
				alarms, err = pb.NewMaintenanceClient(tb.seats[0].conn).Alarm(ctx, &pb.AlarmRequest{})
				return err == nil && len(alarms.Alarms) > 0
			})
			if a := alarms.Alarms[0]; a.Alarm != pb.AlarmType_CORRUPT || a.MemberID != liar.id() || len(alarms.Alarms) != 1 {
				t.Errorf("the alarms are %v, the liar is %x", alarms.Alarms, liar.id())
			}
			tb.eventually("a refusal", func(ctx context.Context) bool {
				_, err := pb.NewKVClient(tb.seats[1].conn).Put(ctx, &pb.PutRequest{Key: []byte("a")})
				return status.Convert(err).Message() == "etcdserver: corrupt cluster"
			})
		})
	}
}

// What a compaction left is compared again and again as long as a member is away, and so
// one whose data differs is found when it is back; once all were there it is not compared
// again. (The comparisons of everything beside it are a clock.)
func TestACompactionIsComparedUntilAllWereThere(t *testing.T) {
	t.Parallel()
	log := &lines{}
	tb := newTable(t, 3)
	tb.log = slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})
	compared := func(words ...string) int { return log.count(append(words, "compared data with the other members")...) }
	compact := func(rev int64) {
		tb.eventually("a compaction", func(ctx context.Context) bool {
			_, err := pb.NewKVClient(tb.seats[0].conn).Compact(ctx, &pb.CompactionRequest{Revision: rev})
			return err == nil || status.Convert(err).Message() == "etcdserver: mvcc: required revision has been compacted"
		})
	}
	gate := []string{"--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=50ms"}
	tb.flags = append(gate, "--corrupt-check-time=50ms")
	tb.start("new", tb.seats...)
	for i, value := range []string{"honest", "more", "most"} {
		tb.put(tb.seats[0], string(rune('k'+i)), value)
	}
	tb.everywhere("m", "most")
	compact(2)
	tb.eventually("a comparison of what the compaction left", func(context.Context) bool { return compared("revision=2 ", "all=true") > 0 })
	tb.eventually("ten comparisons of everything", func(context.Context) bool { return compared("revision=4 ", "all=true") >= 10 })
	// Each that has led since then knows for itself what was compared.
	if n := compared("revision=2 ", "all=true"); n > len(tb.seats) {
		t.Errorf("what all agreed on was compared %d times", n)
	}

	tb.flags = gate
	for _, s := range tb.seats {
		s.stop()
	}
	liar := tb.seats[2]
	forge(t, liar.dir, "honest", "crooks")
	// The clock may have struck between two puts and compared everything at 3.
	everything := compared("revision=3 ", "all=true")
	tb.start("new", tb.seats[:2]...)
	compact(3)
	tb.eventually("a second comparison without the member", func(context.Context) bool { return compared("revision=3 ", "all=false") >= 2 })
	if n := compared("revision=3 ", "all=true"); n > everything {
		t.Error("two of three are said to be all")
	}
	tb.start("new", liar)
	tb.eventually("the alarm", func(ctx context.Context) bool {
		r, err := pb.NewMaintenanceClient(tb.seats[0].conn).Alarm(ctx, &pb.AlarmRequest{})
		return err == nil && len(r.Alarms) == 1 && r.Alarms[0].Alarm == pb.AlarmType_CORRUPT && r.Alarms[0].MemberID == liar.id()
	})
}
