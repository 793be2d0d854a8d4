package server

import (
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/kvorum/kvorum/internal/backup"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/state"
)

// backups are those under way on this member, and one that is kept.
type backups struct {
	mu       sync.Mutex
	numbered int
	ended    bool
	open     sync.WaitGroup
	// kept stays for a client who may come back for the rest of it, until due.
	kept *Backup
	due  env.Instant
}

// KeepBackupFor is how long a finished backup stays whose client is gone.
const KeepBackupFor = time.Minute

// Backup is a saved state on its way into the file that a client is sent. Until that is
// made its methods belong to one goroutine at a time; then Bytes and ReadAt are
// anybody's. Whoever has it closes it, and then has it no more.
type Backup struct {
	m      *Member
	frozen host.Frozen
	path   string
	save   *backup.Save
	users  int // under the lock of backups: those who have it
}

// Backup saves the state of this member as it is in a moment, whatever the others
// have, and hands it to told: once, where nothing may wait, and never if the member
// ends before. Writes go on. Errors: engine.ErrFailed, *mvcc.DamageError, host.ErrStopped.
func (m *Member) Backup(told func(*Backup, error)) {
	m.opts.Group.Freeze(func(frozen host.Frozen, err error) {
		if err != nil {
			told(nil, err)
			return
		}
		b := &m.backups
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.ended {
			told(nil, errors.Join(host.ErrStopped, frozen.Close()))
			return
		}
		b.numbered++
		b.open.Add(1)
		told(&Backup{m: m, frozen: frozen, path: path.Join(m.opts.Saves, fmt.Sprintf("backup-%d", b.numbered)), users: 1}, nil)
	})
}

// EndBackups refuses new backups, lets those under way end after the step that they
// are in, and returns when all are closed. Errors: the file system's, of what was kept.
func (m *Member) EndBackups() (err error) {
	m.backups.mu.Lock()
	m.backups.ended = true
	m.backups.mu.Unlock()
	if kept := m.DropBackup(true); kept != nil {
		err = kept.Close()
	}
	m.backups.open.Wait()
	return err
}

// KeptBackup is the finished backup that is kept, nil if there is none. Whoever is
// handed it has it, too.
func (m *Member) KeptBackup() *Backup {
	m.backups.mu.Lock()
	defer m.backups.mu.Unlock()
	if b := m.backups.kept; b != nil {
		b.users++
		return b
	}
	return nil
}

// DropBackup keeps no backup any more, if its time is over or now is set: whatever else
// is to be made needs the disk. It returns the one that was kept, to be closed, or nil.
func (m *Member) DropBackup(now bool) *Backup {
	m.backups.mu.Lock()
	defer m.backups.mu.Unlock()
	kept := m.backups.kept
	if kept != nil && !now && m.opts.Clock.Now() < m.backups.due {
		return nil
	}
	m.backups.kept = nil
	return kept
}

// Keep has a finished backup kept from now on for KeepBackupFor, or until Drop or until
// another one is: at most one is kept, whoever still has another. It returns the one
// that was, to be closed, or nil.
func (b *Backup) Keep() (before *Backup) {
	of := &b.m.backups
	of.mu.Lock()
	defer of.mu.Unlock()
	if of.ended {
		return nil
	}
	before = of.kept
	of.kept, of.due = b, b.m.opts.Clock.Now().Add(KeepBackupFor)
	if before == b {
		return nil
	}
	b.users++
	return before
}

// Drop ends the keeping, of a backup that the caller has: its client has all of it.
func (b *Backup) Drop() {
	of := &b.m.backups
	of.mu.Lock()
	defer of.mu.Unlock()
	if of.kept == b {
		of.kept = nil
		b.users--
	}
}

func (m *Member) backupsEnded() bool {
	m.backups.mu.Lock()
	defer m.backups.mu.Unlock()
	return m.backups.ended
}

// Step does a bounded piece of the making of the file; done is true after the last.
// Errors: backup.ErrNoSpace, host.ErrStopped, *mvcc.DamageError,
// *engine.CorruptionError, the file system's.
func (b *Backup) Step() (done bool, err error) {
	if b.m.backupsEnded() {
		return false, host.ErrStopped
	}
	if b.save != nil {
		return b.save.Step()
	}
	fs := b.m.opts.FS
	if err := fs.MkdirAll(b.m.opts.Saves, 0o700); err != nil {
		return false, err
	}
	group, rows := state.Contents(b.frozen)
	b.save, err = backup.NewSave(backup.Target{FS: fs, Path: b.path, Reserve: backupReserve}, group, rows, b.frozen.At())
	return false, err
}

// backupReserve is how much of a disk a backup leaves free: more than what is left when
// the member takes no more writes.
func backupReserve(total int64) int64 { return Reserve(total) + Reserve(total)/4 }

// Made gives back what the file was made of; only the file is left.
func (b *Backup) Made() error {
	frozen := b.frozen
	b.frozen = nil
	return frozen.Close()
}

// Bytes is how long the finished file is.
func (b *Backup) Bytes() int64 { return b.save.Bytes() }

// ReadAt reads the finished file. Errors: host.ErrStopped, the file system's.
func (b *Backup) ReadAt(p []byte, offset int64) (int, error) {
	if b.m.backupsEnded() {
		return 0, host.ErrStopped
	}
	return b.save.ReadAt(p, offset)
}

// Shrink gives back a piece of the finished file, which is lost with it, if nobody else
// has it and the member does not end; more is false if there is nothing more to gain by
// it before Close. Errors: the file system's.
func (b *Backup) Shrink() (more bool, err error) {
	b.m.backups.mu.Lock()
	alone := b.users == 1 && !b.m.backups.ended
	b.m.backups.mu.Unlock()
	if !alone || b.save == nil {
		return false, nil
	}
	return b.save.Shrink(shrinkBytes)
}

// shrinkBytes are given back at a time.
const shrinkBytes = 16 << 20

// Close removes the file and gives the saved state back, once nobody has them any more.
// Errors: the file system's.
func (b *Backup) Close() (err error) {
	b.m.backups.mu.Lock()
	b.users--
	last := b.users == 0
	b.m.backups.mu.Unlock()
	if !last {
		return nil
	}
	defer b.m.backups.open.Done()
	if b.frozen != nil {
		err = b.frozen.Close()
	}
	if b.save != nil {
		err = errors.Join(err, b.save.Close())
	}
	return err
}
