package embed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/storage/engine"
)

const full = "mvcc: database space exceeded"

// fill puts values of 1 KB until there is no room.
func fill(t *testing.T, c *clientv3.Client) (puts int) {
	t.Helper()
	for ; puts < 1000; puts++ {
		_, err := c.Put(t.Context(), fmt.Sprintf("fill/%04d", puts), strings.Repeat("v", 1024))
		if errors.Is(err, rpctypes.ErrNoSpace) {
			return puts
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("there is always room")
	return puts
}

// alarms lists them as etcdctl prints them.
func alarms(t *testing.T, c *clientv3.Client) string {
	t.Helper()
	r, err := c.AlarmList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, a := range r.Alarms {
		text = append(text, fmt.Sprintf("%x:%v", a.MemberID, a.Alarm))
	}
	return strings.Join(text, " ")
}

// makeRoom is the way out: delete, compact, defragment, disarm.
func makeRoom(t *testing.T, c *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	if _, err := c.Delete(ctx, "fill/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	r, err := c.Get(ctx, "fill")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(ctx, r.Header.Revision); err != nil {
		t.Fatal(err)
	}
	for _, endpoint := range c.Endpoints() {
		if _, err := c.Defragment(ctx, endpoint); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
}

// One member is filled to its quota: what costs space is refused, what costs none is
// not, over a restart too; then room is made.
func TestFillToTheQuota(t *testing.T) {
	dir, quota := t.TempDir(), "--quota-backend-bytes=65536"
	m := startMember(t, dir, quota)
	ctx, c := t.Context(), login(t, "", "", m.client)
	lease, err := c.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	if puts := fill(t, c); puts < 40 || puts > 50 {
		t.Errorf("%d versions of 1,289 bytes fill 65,536", puts)
	}
	me := fmt.Sprintf("%x:NOSPACE", uint64(m.home.Member))
	refused := func(c *clientv3.Client) {
		t.Helper()
		put, del := clientv3.OpPut("a", "1"), clientv3.OpDelete("fill/0000")
		for what, err := range map[string]error{
			"a put":                 errOf(c.Put(ctx, "a", "1")),
			"a put without a key":   errOf(pb.NewKVClient(m.conn).Put(ctx, &pb.PutRequest{Value: make([]byte, 2000)})),
			"a put in a txn":        errOf(c.Txn(ctx).If(clientv3.Compare(clientv3.Version("none"), ">", 0)).Then(put).Commit()),
			"a put in a txn in one": errOf(c.Txn(ctx).Else(clientv3.OpTxn(nil, nil, []clientv3.Op{del, put})).Commit()),
			"a grant":               errOf(c.Grant(ctx, 60)),
		} {
			expect(t, what, said(nil, err), full)
		}
		for what, err := range map[string]error{
			"a get":           errOf(c.Get(ctx, "fill/0001")),
			"a deletion":      errOf(c.Delete(ctx, "fill/0000")),
			"one in a txn":    errOf(c.Txn(ctx).Then(del).Commit()),
			"a renewal":       errOf(c.KeepAliveOnce(ctx, lease.ID)),
			"a user":          errOf(c.UserAdd(ctx, "ann", "pw")),
			"one less":        errOf(c.UserDelete(ctx, "ann")),
			"a status":        errOf(c.Status(ctx, c.Endpoints()[0])),
			"another's alarm": errOf(pb.NewMaintenanceClient(m.conn).Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 5, Alarm: 7})),
			"its end":         errOf(pb.NewMaintenanceClient(m.conn).Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: 5, Alarm: 7})),
		} {
			expect(t, what, said(nil, err), "ok")
		}
		// What would fit is looked at before the alarm is.
		expect(t, "a grant for a lifetime", said(c.Grant(ctx, 9_000_000_001)), "too large lease TTL")
		expect(t, "alarms", alarms(t, c), me)
		st, err := c.Status(ctx, c.Endpoints()[0])
		if want := fmt.Sprintf("memberID:%d alarm:NOSPACE", uint64(m.home.Member)); err != nil || len(st.Errors) != 1 || st.Errors[0] != want || st.DbSizeQuota != 65536 {
			t.Errorf("status: %v, %v", st, err)
		}
		expect(t, "health", fetched(t, "http://"+m.client+"/health"), `{"health":"false","reason":"ALARM NOSPACE"}`)
	}
	refused(c)
	m.stop()
	m = startMember(t, dir, quota)
	c = login(t, "", "", m.client)
	refused(c)
	if _, err := c.Revoke(ctx, lease.ID); err != nil {
		t.Error(err)
	}
	makeRoom(t, c)
	expect(t, "alarms", alarms(t, c), "")
	if _, err := c.Put(ctx, "a", "1"); err != nil {
		t.Error(err)
	}
	st, err := c.Status(ctx, m.client)
	if err != nil || st.DbSize > 20000 || st.DbSizeInUse != st.DbSize || len(st.Errors) != 0 {
		t.Errorf("status: %v, %v", st, err)
	}
}

func errOf(_ any, err error) error { return err }

// Under CORRUPT nothing changes, not even by time, and everything can be read.
func TestCorrupt(t *testing.T) {
	t.Parallel() // it mostly waits
	m := startMember(t, t.TempDir())
	ctx, c := t.Context(), login(t, "", "", m.client)
	lease, err := c.Grant(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "a", "1", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	alarm := func(action pb.AlarmRequest_AlarmAction) {
		t.Helper()
		r, err := pb.NewMaintenanceClient(m.conn).Alarm(ctx, &pb.AlarmRequest{Action: action, Alarm: pb.AlarmType_CORRUPT})
		if err != nil || len(r.Alarms) != 1 || r.Alarms[0].MemberID != 0 || r.Header.Revision == 0 {
			t.Fatal(r, err)
		}
	}
	alarm(pb.AlarmRequest_ACTIVATE)
	put, get := clientv3.OpPut("a", "2"), clientv3.OpGet("a")
	for what, err := range map[string]error{
		"a put":        errOf(c.Put(ctx, "a", "2")),
		"a deletion":   errOf(c.Delete(ctx, "a")),
		"a txn":        errOf(c.Txn(ctx).Then(get).Else(put).Commit()),
		"a compaction": errOf(c.Compact(ctx, 2)),
		"a grant":      errOf(c.Grant(ctx, 60)),
		"a revocation": errOf(c.Revoke(ctx, lease.ID)),
	} {
		expect(t, what, said(nil, err), "corrupt cluster")
	}
	expect(t, "a txn that reads", said(c.Txn(ctx).Then(get).Commit()), "ok")
	expect(t, "health", fetched(t, "http://"+m.client+"/health"), `{"health":"false","reason":"ALARM CORRUPT"}`)
	st, err := c.Status(ctx, m.client)
	if err != nil || len(st.Errors) != 1 || st.Errors[0] != "alarm:CORRUPT" {
		t.Error(st, err)
	}
	time.Sleep(2500 * time.Millisecond) // the lease is over by then; that it would end is the event that must not come
	has := func() int {
		r, err := c.Get(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		return len(r.Kvs)
	}
	before := m.group.Applied()
	if has() != 1 {
		t.Error("a lease has ended")
	}
	time.Sleep(200 * time.Millisecond) // nor is there one for nothing being written
	if grown := m.group.Applied() - before; grown > 1 {
		t.Errorf("%d entries in a log in which nothing can be done", grown)
	}
	alarm(pb.AlarmRequest_DEACTIVATE)
	for begun := time.Now(); has() != 0; time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("the lease never ends")
		}
	}
}

// Disarmed without more room, deletions are still obeyed and the alarm stays away until
// something grows.
func TestDisarmedTooEarly(t *testing.T) {
	t.Parallel() // it mostly waits
	m, disk, _ := startOn(t, 50<<30, "--quota-backend-bytes=20000")
	ctx, c := t.Context(), login(t, "", "", m.client)
	fill(t, c)
	if _, err := c.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Delete(ctx, "fill/0001"); err != nil {
			t.Fatal(err)
		}
		disk.awaitLook(t)
	}
	expect(t, "alarms after a deletion", alarms(t, c), "")
	expect(t, "a put", said(c.Put(ctx, "a", strings.Repeat("v", 1024))), full)
	expect(t, "alarms after a put", alarms(t, c), fmt.Sprintf("%x:NOSPACE", uint64(m.home.Member)))
}

// Of three members one has a small quota: it obeys what the others admit, and then
// nobody admits more, whoever leads, until room is made.
func TestOneSmallQuotaOfThree(t *testing.T) {
	t.Parallel() // it mostly waits
	tb := newTable(t, 3)
	small, other := tb.seats[0], tb.seats[1]
	small.flags = []string{"--quota-backend-bytes=30000"}
	tb.start("new", tb.seats...)
	ctx, c := t.Context(), login(t, "", "", other.client)
	tb.put(other, "big", strings.Repeat("v", 40000))
	alarm := fmt.Sprintf("%x:NOSPACE", small.id())
	tb.eventually("the alarm of the small one", func(context.Context) bool { return alarms(t, c) == alarm })
	for _, s := range tb.seats {
		expect(t, "a put by "+s.name, said(login(t, "", "", s.client).Put(ctx, "a", "1")), full)
		tb.eventually("health of "+s.name, func(context.Context) bool {
			return strings.Contains(fetched(t, "http://"+s.client+"/health"), "ALARM NOSPACE")
		})
	}
	leader := tb.leader()
	leader.stop()
	tb.start("new", leader)
	for _, s := range tb.seats {
		c := login(t, "", "", s.client)
		tb.eventually("the alarm at "+s.name, func(ctx context.Context) bool {
			_, err := c.Put(ctx, "a", "1")
			return errors.Is(err, rpctypes.ErrNoSpace)
		})
	}
	all := login(t, "", "", tb.seats[0].client, tb.seats[1].client, tb.seats[2].client)
	if _, err := all.Delete(ctx, "big"); err != nil {
		t.Fatal(err)
	}
	makeRoom(t, all)
	for _, s := range tb.seats { // at once, whatever each of them had applied when the alarm ended
		expect(t, "a put by "+s.name, said(login(t, "", "", s.client).Put(ctx, "a", s.name)), "ok")
	}
	expect(t, "alarms", alarms(t, c), "")
}

// filling is a disk that says how much of it is left, and counts how often it is asked.
type filling struct {
	env.FS
	left, asked atomic.Int64
}

// awaitLook waits until the member, which looks at its disk and then at what it counts,
// has done both since. It asks twice in a look, after the log and after the
// store: when it asks a third time, it has counted in between.
func (f *filling) awaitLook(t *testing.T) {
	t.Helper()
	before := f.asked.Load()
	for begun := time.Now(); f.asked.Load() < before+3; time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("the member does not look at its disk")
		}
	}
}

// startOn starts a member on a disk of which so much is left.
func startOn(t *testing.T, left int64, flags ...string) (*member, *filling, *lines) {
	t.Helper()
	world := osenv.New()
	disk := &filling{FS: world.FS}
	disk.left.Store(left)
	world.FS = disk
	cfg, client := configFor(t, t.TempDir(), flags...)
	log := &lines{}
	s, err := startIn(world, cfg, slog.New(slog.NewTextHandler(log, nil)), config.ServerVersion)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	m := &member{Server: s, client: client, conn: conn}
	t.Cleanup(m.stop)
	return m, disk, log
}

func (f *filling) GetDiskUsage(string) (vfs.DiskUsage, error) {
	f.asked.Add(1)
	left, total := uint64(f.left.Load()), uint64(100<<30)
	return vfs.DiskUsage{AvailBytes: left, TotalBytes: total, UsedBytes: total - left}, nil
}

// The disk fills up: the member refuses what needs space and raises its alarm before
// anything breaks; with room again and the alarm disarmed it goes on.
func TestTheDiskFillsUp(t *testing.T) {
	t.Parallel() // it mostly waits
	m, disk, log := startOn(t, 50<<30)
	ctx, c := t.Context(), login(t, "", "", m.client)
	if _, err := c.Put(ctx, "a", "1"); err != nil {
		t.Fatal(err)
	}
	until := func(what string, so func() bool) {
		t.Helper()
		for begun := time.Now(); !so(); time.Sleep(5 * time.Millisecond) {
			if time.Since(begun) > 20*time.Second {
				t.Fatal("waited in vain: " + what)
			}
		}
	}
	disk.left.Store(1<<30 - 1)
	until("the alarm", func() bool { return alarms(t, c) == fmt.Sprintf("%x:NOSPACE", uint64(m.home.Member)) })
	expect(t, "a put", said(c.Put(ctx, "b", "1")), full)
	expect(t, "a deletion", said(c.Delete(ctx, "a")), "ok")
	disarm := func() {
		t.Helper()
		if _, err := c.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
			t.Fatal(err)
		}
	}
	disarm()
	until("the alarm again", func() bool { return alarms(t, c) != "" })
	disk.left.Store(1<<30 + 1)
	expect(t, "a put into next to nothing", said(c.Put(ctx, "b", "1")), full)
	disk.left.Store(2 << 30)
	until("the disk is known to have space", func() bool { return log.has("has space again") })
	expect(t, "a put before the alarm is disarmed", said(c.Put(ctx, "b", "1")), full)
	disarm()
	expect(t, "a put", said(c.Put(ctx, "b", "1")), "ok")
	if n := log.count("the disk is almost full"); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// History goes by itself after a while, and keys stay.
func TestAutoCompaction(t *testing.T) {
	t.Parallel() // it mostly waits
	m := startMember(t, t.TempDir(), "--auto-compaction-retention=200ms")
	ctx, c := t.Context(), login(t, "", "", m.client)
	for i := range 20 {
		if _, err := c.Put(ctx, "a", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if _, err := c.Get(ctx, "a", clientv3.WithRev(20)); errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatal("never compacted")
		}
	}
	if r, err := c.Get(ctx, "a"); err != nil || string(r.Kvs[0].Value) != "19" {
		t.Error(r, err)
	}
}

// With back-pressure growth slows down near the quota, deletions do not, and the alarm
// ends by itself when there is room again.
func TestBackPressure(t *testing.T) {
	t.Parallel() // it mostly waits
	m := startMember(t, t.TempDir(), "--quota-backend-bytes=100000", "--feature-gates=SpaceBackPressure=true")
	ctx, c := t.Context(), login(t, "", "", m.client)
	begun, slowest := time.Now(), time.Duration(0)
	for i := range 75 { // 96,750 bytes
		put := time.Now()
		if _, err := c.Put(ctx, fmt.Sprintf("fill/%04d", i), strings.Repeat("v", 1024)); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(put))
	}
	if slowest < 100*time.Millisecond {
		t.Errorf("75 puts took %v, the slowest %v: nothing is slowed", time.Since(begun), slowest)
	}
	fill(t, c)
	put := time.Now()
	if _, err := c.Delete(ctx, "fill/", clientv3.WithPrefix()); err != nil || time.Since(put) > 5*time.Second {
		t.Errorf("a deletion took %v: %v", time.Since(put), err)
	}
	r, err := c.Put(ctx, "a", "1")
	expect(t, "a put before there is room", said(r, err), full)
	got, err := c.Get(ctx, "none")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(ctx, got.Header.Revision); err != nil {
		t.Fatal(err)
	}
	for alarms(t, c) != "" {
		if time.Since(put) > 20*time.Second {
			t.Fatal("the alarm never ends")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if _, err := c.Put(ctx, "a", "1"); err != nil {
		t.Error(err)
	}
}

// Deleted, compacted and defragmented, a store gives the space on its disk back.
func TestDefragmentGivesDiskSpaceBack(t *testing.T) {
	m := startMember(t, t.TempDir())
	ctx, c := t.Context(), login(t, "", "", m.client)
	random := rand.NewChaCha8([32]byte{})
	value := make([]byte, 1<<20)
	for i := range 48 {
		random.Read(value)
		if _, err := c.Put(ctx, fmt.Sprintf("fill/%02d", i), string(value)); err != nil {
			t.Fatal(err)
		}
	}
	makeRoom(t, c)
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) { // files go at a pace
		after := m.db.Metrics().DiskBytes
		if after < 16<<20 {
			break
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("%d bytes are left on the disk", after)
		}
	}
	if _, err := c.Defragment(ctx, m.client); err != nil { // nothing to do
		t.Error(err)
	}
}

// bulky is a store of which most is of no use, until it is reclaimed.
type bulky struct {
	engine.DB
	bytes     int64
	reclaimed bool
}

func (b *bulky) Metrics() engine.Metrics {
	m := b.DB.Metrics()
	m.DiskBytes = b.bytes
	return m
}

func (b *bulky) Reclaim(context.Context) error {
	b.reclaimed, b.bytes = true, 0
	return nil
}

// A start gives disk space back before anybody is served, if there is as much of it as it
// is told and room to do so, and tells what it did.
func TestAStartThatDefragments(t *testing.T) {
	const done, skipped = "defragmented the store before serving", "skipped the defragmentation of a start"
	m, disk, log := startOn(t, 50<<30, "--bootstrap-defrag-threshold-megabytes=1000")
	if text := log.String(); strings.Count(text, skipped) != 1 || strings.Contains(text, done) {
		t.Errorf("a start with nothing to give back:\n%s", text)
	}
	for _, start := range []struct {
		megabytes uint
		free      int64
		told      string
	}{{99, 50 << 30, done}, {101, 50 << 30, skipped}, {99, 1 << 20, skipped}, {0, 50 << 30, ""}} {
		disk.left.Store(start.free)
		told, db := &lines{}, &bulky{DB: m.db, bytes: 100<<20 + 1<<16}
		s := &Server{cfg: m.cfg, log: slog.New(slog.NewTextHandler(told, nil)), world: m.world, home: m.home, state: m.state, db: db}
		s.tallies.rewrites = newRewrites()
		s.cfg.BootstrapDefragMegabytes = start.megabytes
		s.defragmentFirst()
		if n := s.tallies.rewrites.Read().Count(); n > 0 != db.reclaimed || s.tallies.rewriting.Load() != 0 {
			t.Errorf("done %v, and %d rewrites are counted", db.reclaimed, n)
		}
		if db.reclaimed != (start.told == done) || !told.has(start.told) || start.told == "" && len(told.text) > 0 {
			t.Errorf("from %d megabytes on, %d bytes free: done %v, %s", start.megabytes, start.free, db.reclaimed, told.text)
		}
	}
}
