package backup_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/backup"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/member"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
	"github.com/kvorum/kvorum/internal/storage/etcddb"
)

// replica is a state on a disk of its own.
type replica struct {
	t     *testing.T
	fs    env.FS
	db    engine.DB
	m     *state.Machine
	index id.Index
}

func newReplica(t *testing.T) *replica {
	t.Helper()
	r := &replica{t: t, fs: simenv.NewDisk(1, simenv.DiskOptions{}).Mount()}
	db, err := memdb.Open(memdb.Options{FS: r.fs, Dir: "store"})
	if err != nil {
		t.Fatal(err)
	}
	r.db = db
	r.open()
	return r
}

func (r *replica) open() {
	r.t.Helper()
	var err error
	if r.m, err = state.Open(id.DefaultGroup, r.db, "saves"); err != nil {
		r.t.Fatal(err)
	}
}

// do applies commands, each in an entry of its own.
func (r *replica) do(bodies ...command.Body) {
	r.t.Helper()
	for _, body := range bodies {
		r.index++
		entry := raft.Entry{Term: 3, Index: r.index, Kind: raft.Batch, Data: command.AppendToBatch(nil, command.Encode(nil, command.Header{}, body))}
		if _, err := r.m.Apply([]raft.Entry{entry}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// save makes a backup and returns its bytes.
func (r *replica) save() []byte {
	r.t.Helper()
	frozen, err := r.m.Freeze()
	if err != nil {
		r.t.Fatal(err)
	}
	group, rows := state.Contents(frozen)
	s, err := backup.NewSave(backup.Target{FS: r.fs, Path: "backup", Reserve: func(int64) int64 { return 0 }}, group, rows, frozen.At())
	for done := false; err == nil && !done; {
		done, err = s.Step()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	data := make([]byte, s.Bytes())
	if _, err := s.ReadAt(data, 0); err != nil {
		r.t.Fatal(err)
	}
	if err := errors.Join(s.Close(), frozen.Close()); err != nil {
		r.t.Fatal(err)
	}
	return data
}

// members are those of the new cluster.
var members = []member.Facts{{ID: 8, Name: "a", PeerURLs: []string{"http://a"}}, {ID: 9, Name: "b", PeerURLs: []string{"http://b"}}}

// restore makes a new replica of a backup.
func restore(t *testing.T, data []byte, with backup.Restore) (*replica, backup.Summary, error) {
	t.Helper()
	r := newReplica(t)
	file, err := etcddb.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, backup.Summary{}, err
	}
	facts, err := file.ReadFacts()
	if err != nil {
		return nil, backup.Summary{}, err
	}
	with.Group, with.FS, with.Path, with.Members = id.DefaultGroup, r.fs, "sort", members
	with.At = backup.Position(facts)
	with.Conf = raft.PlacedConf{Conf: raft.Conf{Voters: []id.Member{8, 9}}, Index: with.At.Index}
	sum, err := with.Into(r.db, file)
	if err != nil {
		return nil, sum, err
	}
	r.open()
	r.index = with.At.Index
	return r, sum, nil
}

// live makes a random life of a store: keys with many versions, in transactions too,
// deleted and born again, on leases, compacted now and then.
func (r *replica) live(draw *rand.Rand, commands int) {
	key := func() []byte { return fmt.Appendf(nil, "k%d", draw.IntN(40)) }
	put := func() *command.PutRequest {
		p := &command.PutRequest{Key: key(), Value: bytes.Repeat([]byte("v"), draw.IntN(50))}
		if draw.IntN(4) == 0 {
			p.Lease = id.Lease(1 + draw.IntN(3))
		}
		return p
	}
	r.do(&command.LeaseGrant{ID: 1, TTL: 60}, &command.LeaseGrant{ID: 2, TTL: 3600}, &command.LeaseGrant{ID: 3, TTL: 5})
	for range commands {
		switch n := draw.IntN(20); {
		case n < 12:
			r.do(put())
		case n < 15:
			r.do(&command.DeleteRangeRequest{Key: key()})
		case n < 18:
			used := map[string]bool{}
			txn := &command.TxnRequest{}
			for range 1 + draw.IntN(5) {
				if p := put(); !used[string(p.Key)] {
					used[string(p.Key)] = true
					txn.Success = append(txn.Success, command.Op{Put: p})
				}
			}
			r.do(txn)
		case n == 18:
			if now := int64(r.m.View().State().Revision); draw.IntN(5) == 0 && now > 10 {
				r.do(&command.CompactRequest{Revision: id.Revision(now - draw.Int64N(10))})
			}
		default:
			r.m.Turn(env.Instant(r.index) * 1e9) // removal of what is compacted, a slice or none
		}
	}
}

// alike compares what two replicas can be asked.
func alike(t *testing.T, got, want *replica, bumped id.Revision) {
	t.Helper()
	a, b := got.m.View(), want.m.View()
	if a.State().Compacted != b.State().Compacted || a.State().Revision != b.State().Revision+bumped {
		t.Fatalf("revision %d, compacted %d; want %d and %d", a.State().Revision, a.State().Compacted, b.State().Revision+bumped, b.State().Compacted)
	}
	goOn := func() error { return nil }
	for rev := max(b.State().Compacted, 1); rev <= b.State().Revision; rev++ {
		one, err1 := a.HashKV(rev, goOn)
		two, err2 := b.HashKV(rev, goOn)
		if err1 != nil || err2 != nil || one.Sum != two.Sum {
			t.Fatalf("hash at %d: %x (%v), want %x (%v)", rev, one.Sum, err1, two.Sum, err2)
		}
	}
	everything := &command.RangeRequest{Key: []byte{0}, End: []byte{0}}
	one, err1 := a.Range(everything)
	two, err2 := b.Range(everything)
	if err1 != nil || err2 != nil || !reflect.DeepEqual(one.KVs, two.KVs) {
		t.Fatalf("the keys differ: %v, %v", err1, err2)
	}
	for lease := range id.Lease(4) {
		one, err1 := got.attached(lease)
		two, err2 := want.attached(lease)
		if err1 != nil || err2 != nil || one != two {
			t.Fatalf("lease %d has %s (%v), want %s (%v)", lease, one, err1, two, err2)
		}
	}
}

// attached are the rows of the keys that hang on a lease.
func (r *replica) attached(lease id.Lease) (text string, err error) {
	it, err := r.db.Iter(keys.AppendAttached(nil, id.DefaultGroup, lease, nil), keys.AppendAttachedEnd(nil, id.DefaultGroup, lease))
	if err != nil {
		return "", err
	}
	defer it.Close()
	for ok := it.Next(); ok; ok = it.Next() {
		_, _, user, _ := keys.DecodeAttached(it.Key())
		text += string(user) + " "
	}
	return text, it.Err()
}

// Whatever a store has lived through, what a backup of it is restored to answers the
// same at every revision that can be read, lets the same be compacted, and makes the
// same backup again.
func TestRestoredAnswersTheSame(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			draw := rand.New(rand.NewPCG(seed, 1))
			from := newReplica(t)
			from.live(draw, 200)
			data := from.save()
			to, sum, err := restore(t, data, backup.Restore{})
			if err != nil {
				t.Fatal(err)
			}
			if sum.Revision != from.m.View().State().Revision || sum.Leases != 3 {
				t.Errorf("the summary is %+v", sum)
			}
			alike(t, to, from, 0)
			sameFile(t, to.save(), data)
			// Life goes on alike.
			next := to.m.View().State().Revision
			for _, r := range []*replica{from, to} {
				r.do(&command.PutRequest{Key: []byte("k1"), Value: []byte("later")}, &command.DeleteRangeRequest{Key: []byte("k2")},
					&command.LeaseRevoke{ID: 1}, &command.CompactRequest{Revision: next})
				for now := env.Instant(1e15); ; now += 1e12 {
					if worked, _ := r.m.Turn(now); !worked {
						break
					}
				}
			}
			alike(t, to, from, 0)
		})
	}
}

// sameFile compares two backups but for what belongs to a cluster.
func sameFile(t *testing.T, got, want []byte) {
	t.Helper()
	var all [2][]string
	var facts [2]*etcddb.Facts
	for i, data := range [][]byte{got, want} {
		f, err := etcddb.Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if facts[i], err = f.ReadFacts(); err != nil {
			t.Fatal(err)
		}
		err = f.Versions(func(r etcddb.Revision, pair []byte) error {
			all[i] = append(all[i], fmt.Sprintf("%v %x", r, pair))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		facts[i].Members, facts[i].Removed, facts[i].Term = nil, nil, 0
	}
	if !reflect.DeepEqual(all[0], all[1]) {
		t.Errorf("the backup of what was restored has %d versions, the first one %d, or they differ", len(all[0]), len(all[1]))
	}
	if !reflect.DeepEqual(facts[0], facts[1]) {
		t.Errorf("the backup of what was restored says\n%+v, the first one\n%+v", facts[0], facts[1])
	}
}

// Users, roles, whether they are asked for, and alarms survive; credentials of before
// do not.
func TestUsersAndAlarmsAreRestored(t *testing.T) {
	from := newReplica(t)
	from.do(&command.RoleAdd{Name: "root"}, &command.RoleAdd{Name: "r"},
		&command.RoleGrant{Role: "r", Given: true, Permission: command.Permission{Type: command.PermitReadWrite, Key: []byte("a"), End: []byte("b")}},
		&command.UserAdd{Name: "root", Hash: []byte("$2a$root")}, &command.UserAdd{Name: "al", NoPassword: true},
		&command.UserGrantRole{User: "root", Role: "root"}, &command.UserGrantRole{User: "al", Role: "r"}, &command.AuthEnable{},
		&command.AlarmReport{Alarm: command.Alarm{Member: 77, Type: command.AlarmNoSpace}})
	to, _, err := restore(t, from.save(), backup.Restore{})
	if err != nil {
		t.Fatal(err)
	}
	got, want := to.m.View().Auth(), from.m.View().Auth()
	if !got.Enabled() || got.Revision() != want.Revision() || !reflect.DeepEqual(got.Roles(), want.Roles()) || len(got.Users()) != 2 {
		t.Errorf("users %+v, roles %+v at %d", got.Users(), got.Roles(), got.Revision())
	}
	for i, u := range got.Users() {
		w := want.Users()[i]
		if u.Name != w.Name || !bytes.Equal(u.Hash, w.Hash) || u.NoPassword != w.NoPassword || !reflect.DeepEqual(u.Roles, w.Roles) {
			t.Errorf("user %+v, want %+v", u, w)
		}
		if got.Valid(u, got.Revision()-1) {
			t.Errorf("a token of before is good for %s", u.Name)
		}
	}
	if list := to.m.View().Alarms(); !reflect.DeepEqual(list, from.m.View().Alarms()) || len(list) != 1 {
		t.Errorf("alarms %+v", list)
	}
	if list := to.m.View().Members(); !reflect.DeepEqual(list, members) {
		t.Errorf("members %+v", list)
	}
}

// With a bump nobody is shown a revision that he may have seen otherwise.
func TestBumpAndCompaction(t *testing.T) {
	from := newReplica(t)
	from.live(rand.New(rand.NewPCG(7, 7)), 150)
	before := from.m.View().State().Revision
	to, sum, err := restore(t, from.save(), backup.Restore{Bump: 1000, MarkCompacted: true})
	if err != nil {
		t.Fatal(err)
	}
	if now := to.m.View().State(); now.Revision != before+1000 || now.Compacted != now.Revision || sum.Compacted != now.Revision {
		t.Fatalf("revision %d, compacted %d", now.Revision, now.Compacted)
	}
	everything := command.RangeRequest{Key: []byte{0}, End: []byte{0}}
	old := everything
	old.Revision = before
	if _, err := to.m.View().Range(&old); !errors.Is(err, command.ErrCompacted) {
		t.Errorf("a range at %d: %v", before, err)
	}
	one, err1 := to.m.View().Range(&everything)
	two, err2 := from.m.View().Range(&everything)
	if err1 != nil || err2 != nil || !reflect.DeepEqual(one.KVs, two.KVs) {
		t.Errorf("the keys differ: %v, %v", err1, err2)
	}
	to.do(&command.PutRequest{Key: []byte("new")}, &command.CompactRequest{Revision: before + 1001})
	if now := to.m.View().State().Revision; now != before+1001 {
		t.Errorf("the next revision is %d", now)
	}
}

// made writes a backup of rows that no store would have written.
func made(t *testing.T, facts etcddb.Facts, rows ...string) []byte {
	t.Helper()
	r := newReplica(t)
	w, err := etcddb.Create(r.fs, "made")
	if err != nil {
		t.Fatal(err)
	}
	w.BeginKeys()
	for i := 0; i < len(rows); i += 2 {
		if err := w.Put([]byte(rows[i]), []byte(rows[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.End(), w.WriteFacts(&facts)); err != nil {
		t.Fatal(err)
	}
	size, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, size)
	if _, err := w.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return data
}

func rev(main, sub int64, dead bool) string {
	return string(etcddb.AppendRevision(nil, etcddb.Revision{Main: main, Sub: sub, Dead: dead}))
}

// A backup whose rows contradict each other is refused, and says where.
func TestContradictionsAreRefused(t *testing.T) {
	none := etcddb.Facts{Scheduled: -1, Finished: -1}
	first := "\x0a\x01k\x10\x02\x18\x02\x20\x01" // k, created and modified at 2, version 1
	for name, data := range map[string][]byte{
		"a pair of another revision":    made(t, none, rev(3, 0, false), first),
		"a pair without a key":          made(t, none, rev(2, 0, false), "\x10\x02\x18\x02\x20\x01"),
		"a second version alone":        made(t, none, rev(3, 0, false), "\x0a\x01k\x10\x02\x18\x03\x20\x02"),
		"a deletion of nothing":         made(t, none, rev(3, 0, true), "\x0a\x01k"),
		"no pair":                       made(t, none, rev(3, 0, false), "\xff"),
		"a lease without time":          made(t, etcddb.Facts{Scheduled: -1, Finished: -1, Leases: []etcddb.Lease{{ID: 1}}}, rev(2, 0, false), first),
		"a sub revision out of bounds":  made(t, none, rev(2, 1<<40, false), first),
		"a compaction out of all bound": made(t, etcddb.Facts{Scheduled: 1 << 62, Finished: -1}, rev(2, 0, false), first),
	} {
		if _, _, err := restore(t, data, backup.Restore{}); err == nil {
			t.Errorf("%s is taken", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	if _, _, err := restore(t, made(t, none, rev(2, 0, false), first), backup.Restore{}); err != nil {
		t.Errorf("what is right is refused: %v", err)
	}
}

// A compaction that etcd had begun and not finished is finished; a deletion at its very
// revision, whose key is gone otherwise, stays, as watches from there on must see it.
func TestAnUnfinishedCompaction(t *testing.T) {
	data := made(t, etcddb.Facts{Scheduled: 4, Finished: -1},
		rev(2, 0, false), "\x0a\x01k\x10\x02\x18\x02\x20\x01",
		rev(3, 0, false), "\x0a\x01k\x10\x02\x18\x03\x20\x02",
		rev(3, 1, false), "\x0a\x01l\x10\x03\x18\x03\x20\x01",
		rev(4, 0, true), "\x0a\x01l",
		rev(5, 0, false), "\x0a\x01k\x10\x02\x18\x05\x20\x03")
	r, sum, err := restore(t, data, backup.Restore{})
	if err != nil {
		t.Fatal(err)
	}
	if sum.Versions != 3 || sum.Compacted != 4 || sum.Revision != 5 {
		t.Fatalf("%+v", sum)
	}
	f, err := etcddb.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(4); at <= 5; at++ {
		want, err := f.HashKV(at)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.m.View().HashKV(id.Revision(at), func() error { return nil })
		if err != nil || got.Sum != want.Sum {
			t.Errorf("hash at %d: %x, the file's is %x, %v", at, got.Sum, want.Sum, err)
		}
	}
	if _, err := f.HashKV(3); !errors.Is(err, etcddb.ErrCompacted) {
		t.Error(err)
	}
	if _, err := f.HashKV(6); !errors.Is(err, etcddb.ErrFuture) {
		t.Error(err)
	}
}

// A disk that has no room for a backup is left alone.
func TestADiskWithoutRoom(t *testing.T) {
	r := newReplica(t)
	r.do(&command.PutRequest{Key: []byte("k")})
	frozen, err := r.m.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	group, rows := state.Contents(frozen)
	to := backup.Target{FS: r.fs, Path: "backup", Reserve: func(total int64) int64 { return total }}
	if _, err := backup.NewSave(to, group, rows, frozen.At()); !errors.Is(err, backup.ErrNoSpace) {
		t.Error(err)
	}
	if _, err := r.fs.Stat("backup"); err == nil {
		t.Error("a file was begun")
	}
}
