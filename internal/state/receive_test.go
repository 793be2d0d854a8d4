package state_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine/pebbledb"
)

// seat is a machine on Pebble, as shipped, on a disk that crashes.
type seat struct {
	t    *testing.T
	disk *simenv.Disk
	db   *pebbledb.DB
	m    *state.Machine
}

func (s *seat) open() {
	s.t.Helper()
	var err error
	if s.db, err = pebbledb.Open(pebbledb.Options{FS: s.disk.Mount(), Dir: "db", MemtableBytes: 1 << 20, CacheBytes: 1 << 20}); err != nil {
		s.t.Fatal(err)
	}
	if s.m, err = state.Open(id.DefaultGroup, s.db, "saves"); err != nil {
		s.t.Fatal(err)
	}
}

func (s *seat) put(index id.Index, key, value string) {
	s.t.Helper()
	cmd := command.Encode(nil, command.Header{}, &command.PutRequest{Key: []byte(key), Value: []byte(value)})
	if _, err := s.m.Apply([]raft.Entry{{Index: index, Term: 1, Kind: raft.Batch, Data: command.AppendToBatch(nil, cmd)}}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *seat) hash() uint64 {
	s.t.Helper()
	h, err := s.m.Hash()
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

func (s *seat) tables() (list []string) {
	for _, name := range s.disk.Files() {
		if strings.Contains(name, "install-") {
			list = append(list, name)
		}
	}
	return list
}

// The disk goes down at one operation after the other while a snapshot is taken in
// and put in place, in both ways that a process can end: the next start has the old
// state or the new one, whole, and nothing else is left on the disk.
func TestACrashAtEveryOperationOfReceiving(t *testing.T) {
	from := filled(t)
	noise := rand.New(rand.NewPCG(1, 2))
	for i := range 250 { // more than one stretch of a table that is synced by itself
		value := make([]byte, 2500)
		for i := range value {
			value[i] = byte(noise.Uint32())
		}
		from.put(fmt.Sprintf("big%d", i), string(value))
	}
	newHash := from.hash()
	at, list := chunks(t, from, 20_000)
	conf := raft.PlacedConf{Conf: raft.Conf{Voters: []id.Member{1, 2, 3}}, Index: 2}
	step := uint64(1)
	if testing.Short() {
		step = 5
	}
	old, fresh := 0, 0
	for n := uint64(1); ; n += step {
		s := &seat{t: t, disk: simenv.NewDisk(n, simenv.DiskOptions{})}
		s.open()
		s.put(1, "a", "1")
		if err := s.m.StartFlush(); err != nil {
			t.Fatal(err)
		}
		for at := (raft.Position{}); at.Index < 1; {
			var err error
			if at, err = s.m.Durable(); err != nil {
				t.Fatal(err)
			}
		}
		oldHash := s.hash()
		s.disk.CrashAfter(n)
		ended := make(chan bool, 1)
		go func() {
			defer func() { // Pebble panics on some failures of its disk
				if recover() != nil {
					ended <- false
				}
			}()
			in := s.m.Receive(at, conf)
			var err error
			for _, chunk := range list {
				if err = in.Add(chunk); err != nil {
					break
				}
			}
			if err == nil {
				err = s.m.Load(in)
			}
			ended <- errors.Join(err, in.Close()) == nil
		}()
		done := <-ended && !s.disk.Down()
		s.disk.Crash(simenv.Crash(n % 2))
		s.open()
		got, loaded := s.m.Loaded()
		switch h := s.hash(); {
		case h == newHash && s.m.Mark() == at && loaded && got.Index == 2:
			fresh++
		case h == oldHash && s.m.Mark().Index == 1 && !done:
			old++
		default:
			t.Fatalf("crash after %d operations: hash %x, mark %v, done %v", n, h, s.m.Mark(), done)
		}
		if left := s.tables(); len(left) > 0 {
			t.Fatalf("crash after %d operations: %v is left", n, left)
		}
		if err := s.db.Close(); err != nil {
			t.Fatal(err)
		}
		if done {
			break
		}
	}
	if old < 10 && !testing.Short() || old < 3 || fresh < 1 {
		t.Fatalf("the old state was left %d times, the new one %d times", old, fresh)
	}
	t.Logf("old %d, new %d", old, fresh)
}

// One that is given up at any chunk leaves the state and the disk as they were, and
// another can be taken in after it, or beside it.
func TestAReceivedSnapshotThatIsGivenUp(t *testing.T) {
	from := filled(t)
	want := from.hash()
	at, list := chunks(t, from, 1000)
	s := &seat{t: t, disk: simenv.NewDisk(1, simenv.DiskOptions{})}
	s.open()
	s.put(1, "a", "1")
	for n := range list {
		in := s.m.Receive(at, raft.PlacedConf{})
		for _, chunk := range list[:n] {
			if err := in.Add(chunk); err != nil {
				t.Fatal(err)
			}
		}
		s.put(id.Index(n+2), "a", fmt.Sprint(n)) // the state goes on beside it
		if n > 0 && len(s.tables()) != 1 {
			t.Fatalf("%d chunks are in %v", n, s.tables())
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		if left := s.tables(); len(left) > 0 {
			t.Fatalf("%v is left", left)
		}
		if err := in.Add(list[0]); err == nil {
			t.Fatal("it was given up and takes a chunk")
		}
		if err := s.m.Load(in); !errors.Is(err, state.ErrDamagedSnapshot) {
			t.Fatalf("it was given up, and loaded: %v", err)
		}
	}
	older, newer := s.m.Receive(at, raft.PlacedConf{}), s.m.Receive(at, raft.PlacedConf{})
	for _, chunk := range list {
		if err := errors.Join(older.Add(chunk), newer.Add(chunk)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(older.Close(), s.m.Load(newer), newer.Close()); err != nil {
		t.Fatal(err)
	}
	if s.hash() != want || s.m.Mark() != at || len(s.tables()) > 0 {
		t.Fatalf("another state, at %v, beside %v", s.m.Mark(), s.tables())
	}
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
}

// The disk fills up while a snapshot is taken in: it is refused, its tables go, and
// the state goes on with the room that they leave.
func TestAFullDiskRefusesASnapshot(t *testing.T) {
	from := filled(t)
	noise := rand.New(rand.NewPCG(3, 4))
	for i := range 200 {
		value := make([]byte, 4000)
		for i := range value {
			value[i] = byte(noise.Uint32())
		}
		from.put(fmt.Sprintf("big%d", i), string(value))
	}
	at, list := chunks(t, from, 20_000)
	s := &seat{t: t, disk: simenv.NewDisk(1, simenv.DiskOptions{})}
	s.open()
	s.put(1, "a", "1")
	s.disk.SetCapacity(s.disk.Used() + 300_000)
	in := s.m.Receive(at, raft.PlacedConf{})
	var err error
	for _, chunk := range list {
		if err = in.Add(chunk); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a snapshot of 800 KB on a disk with room for 300: %v", err)
	}
	if err := in.Close(); err != nil || len(s.tables()) > 0 {
		t.Fatalf("%v, and %v is left", err, s.tables())
	}
	s.put(2, "a", "2")
	if err := s.m.StartFlush(); err != nil {
		t.Fatal(err)
	}
	for at := (raft.Position{}); at.Index < 2; {
		if at, err = s.m.Durable(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
}
