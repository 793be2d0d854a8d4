package server

import (
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
)

// handClock is moved by hand.
type handClock struct{ now env.Instant }

func (c *handClock) Now() env.Instant { return c.now }
func (c *handClock) Wall() time.Time  { return time.Time{} }

// One backup at most is kept for a client that may come back, for a minute from the last
// time that it was wished; whoever has it meanwhile has it to his own end.
func TestOneBackupIsKeptForAMinute(t *testing.T) {
	clock := &handClock{}
	m := &Member{opts: Options{Clock: clock}}
	made := func() *Backup {
		m.backups.open.Add(1)
		return &Backup{m: m, users: 1}
	}
	has := func(b *Backup, users int) {
		t.Helper()
		if b.users != users {
			t.Fatalf("%d have it, and not %d", b.users, users)
		}
	}
	closed := func(b *Backup) {
		t.Helper()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	none := func(what string, b *Backup) {
		t.Helper()
		if b != nil {
			t.Fatalf("%s: one is to be closed", what)
		}
	}
	none("nothing was made", m.KeptBackup())
	none("nothing was made", m.DropBackup(true))
	first := made()
	none("the first one is kept", first.Keep())
	closed(first)
	has(first, 1)
	if m.KeptBackup() != first {
		t.Fatal("it is not the one that is kept")
	}
	has(first, 2)

	// It is wished again later: the minute begins anew.
	clock.now = clock.now.Add(KeepBackupFor - time.Second)
	none("it is kept already", first.Keep())
	has(first, 2)
	closed(first)
	clock.now = clock.now.Add(KeepBackupFor - time.Second)
	none("its minute is not over", m.DropBackup(false))
	has(first, 1)

	// Another takes its place; who has the first one still has it.
	again := m.KeptBackup()
	second := made()
	if before := second.Keep(); before != first {
		t.Fatal("the first one is not to be closed")
	}
	closed(first)
	has(again, 1)
	again.Drop() // it is not the one that is kept
	has(again, 1)
	has(second, 2)
	closed(again)
	has(again, 0)
	closed(second)
	clock.now = clock.now.Add(KeepBackupFor)
	if m.DropBackup(false) != second {
		t.Fatal("its minute is over")
	}
	closed(second)
	has(second, 0)

	// Its client has it, or something needs the disk: it does not wait for the minute.
	third := made()
	none("nothing was kept", third.Keep())
	third.Drop()
	has(third, 1)
	none("nothing was kept", third.Keep())
	closed(third)
	if m.DropBackup(true) != third {
		t.Fatal("it is still kept")
	}
	closed(third)
	has(third, 0)

	// After an end nothing is kept.
	fourth := made()
	none("nothing was kept", fourth.Keep())
	ended := make(chan error, 1)
	go func() { ended <- m.EndBackups() }()
	for !m.backupsEnded() {
		time.Sleep(time.Millisecond)
	}
	none("it has ended", fourth.Keep())
	closed(fourth)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	has(fourth, 0)
}
