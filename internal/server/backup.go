package server

import (
	"errors"
	"fmt"
	"path"
	"sync"

	"github.com/kvorum/kvorum/internal/backup"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/state"
)

// backups are those under way on this member.
type backups struct {
	mu       sync.Mutex
	numbered int
	ended    bool
	open     sync.WaitGroup
}

// Backup is a saved state on its way into the file that a client is sent. Its methods
// belong to one goroutine at a time. Whoever has it closes it.
type Backup struct {
	m      *Member
	frozen host.Frozen
	path   string
	save   *backup.Save
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
		told(&Backup{m: m, frozen: frozen, path: path.Join(m.opts.Saves, fmt.Sprintf("backup-%d", b.numbered))}, nil)
	})
}

// EndBackups refuses new backups, lets those under way end after the step that they
// are in, and returns when all are closed.
func (m *Member) EndBackups() {
	m.backups.mu.Lock()
	m.backups.ended = true
	m.backups.mu.Unlock()
	m.backups.open.Wait()
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

// Close removes the file and gives the saved state back.
func (b *Backup) Close() (err error) {
	defer b.m.backups.open.Done()
	if b.frozen != nil {
		err = b.frozen.Close()
	}
	if b.save != nil {
		err = errors.Join(err, b.save.Close())
	}
	return err
}
