// Package backup turns a saved state into the file that etcd's tools know
// (docs/format/etcd-snapshot.md), and such a file into the rows of a new store. It is
// the door both ways between Kvorum and etcd.
//
// The two keep the same versions in two orders, by revision there and by key here, so
// that both directions sort (package extsort). Memory is bounded by some tens of MB
// whatever the size of the state; on disk there is, for a while, once more what is
// sorted.
package backup

import (
	"errors"
	"fmt"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/alarm"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/lease"
	"github.com/kvorum/kvorum/internal/state/member"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/etcddb"
	"github.com/kvorum/kvorum/internal/storage/extsort"
)

// StorageVersion is what a file that is made here says of its layout: that of etcd 3.6,
// which 3.4 and 3.5 read as well since they do not look, and 3.7 takes up as after an
// upgrade.
const StorageVersion = "3.6.0"

// stepBytes are read or written in a step.
const stepBytes = 256 << 10

// ErrNoSpace: the disk has too little room for a backup beside what it is for.
var ErrNoSpace = errors.New("not enough free disk space for a backup")

// Target is where a backup is made.
type Target struct {
	FS env.FS
	// Path is the file; other files with names that begin with it come and go.
	Path string
	// Reserve says how much of a disk of so many bytes is to stay free whatever a
	// backup needs.
	Reserve func(total int64) int64
}

// Save makes a backup in steps, so that whoever drives it may pause, or give up,
// between any two. It belongs to one goroutine at a time.
type Save struct {
	to    Target
	rows  engine.Reader
	group id.Group
	facts etcddb.Facts

	export *mvcc.Export
	sorted *extsort.Sorter
	merge  *extsort.Merge
	file   *etcddb.Writer
	ended  bool
	size   int64
	since  int // bytes since the disk was asked for room
}

// NewSave begins a backup of the rows of a group, which do not change, at a position
// of its log. Errors: *mvcc.DamageError,
// alarm.ErrDamaged, auth.ErrDamaged, lease.ErrDamaged, member.ErrDamaged, *engine.CorruptionError,
// ErrNoSpace, the file system's.
func NewSave(to Target, group id.Group, rows engine.Reader, at raft.Position) (*Save, error) {
	s := &Save{to: to, rows: rows, group: group}
	s.facts = etcddb.Facts{Index: uint64(at.Index), Term: uint64(at.Term), StorageVersion: StorageVersion}
	var err error
	if s.export, err = mvcc.NewExport(group, rows); err != nil {
		return nil, err
	}
	now := s.export.State()
	s.facts.Scheduled, s.facts.Finished = int64(now.Compacted), int64(now.Compacted)
	if err := s.gather(); err != nil {
		return nil, err
	}
	if err := s.room(); err != nil {
		return nil, err
	}
	s.sorted = extsort.New(to.FS, to.Path+".run", compareBytes)
	if s.file, err = etcddb.Create(to.FS, to.Path); err != nil {
		return nil, err
	}
	return s, nil
}

// gather reads everything but the keys.
func (s *Save) gather() error {
	leases, err := lease.List(s.group, s.rows)
	if err != nil {
		return err
	}
	for _, l := range leases {
		s.facts.Leases = append(s.facts.Leases, etcddb.Lease{ID: int64(l.ID), TTL: l.TTL, Remaining: l.Remaining})
	}
	alarms, err := alarm.Load(s.group, s.rows)
	if err != nil {
		return err
	}
	for _, a := range alarms.All() {
		s.facts.Alarms = append(s.facts.Alarms, etcddb.Alarm{Member: uint64(a.Member), Type: int32(a.Type)})
	}
	users, err := auth.Load(s.group, s.rows)
	if err != nil {
		return err
	}
	s.facts.AuthEnabled, s.facts.AuthRevision = users.Enabled(), users.Revision()
	for _, u := range users.Users() {
		s.facts.Users = append(s.facts.Users, etcddb.User{Name: u.Name, Hash: u.Hash, Roles: u.Roles, NoPassword: u.NoPassword})
	}
	for _, r := range users.Roles() {
		role := etcddb.Role{Name: r.Name}
		for _, p := range r.Permissions {
			role.Permissions = append(role.Permissions, etcddb.Permission{Type: int32(p.Type), Key: p.Key, End: p.End})
		}
		s.facts.Roles = append(s.facts.Roles, role)
	}
	members, err := member.Load(s.group, s.rows)
	if err != nil {
		return err
	}
	for _, m := range members.All() {
		s.facts.Members = append(s.facts.Members, etcddb.Member{
			ID: uint64(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.Learner})
	}
	for _, m := range members.AllRemoved() {
		s.facts.Removed = append(s.facts.Removed, uint64(m))
	}
	if v := members.Version(); v.Major > 0 {
		s.facts.ClusterVersion = v.String()
	}
	return nil
}

// Step does a bounded piece of the work; done is true after the last one. Errors: as
// of NewSave; the backup can then only be closed.
func (s *Save) Step() (done bool, err error) {
	if s.ended {
		more, err := s.sorted.Drop()
		return !more, err
	}
	if err := s.roomAfter(stepBytes); err != nil {
		return false, err
	}
	if s.merge == nil {
		more, err := s.export.Next(stepBytes, s.sorted.Add)
		if err != nil || more {
			return false, err
		}
		if s.merge, err = s.sorted.Sort(); err == nil {
			s.file.BeginKeys()
		}
		return false, err
	}
	for written := 0; written < stepBytes; {
		more, err := s.merge.Next()
		if err != nil {
			return false, err
		}
		if !more {
			return false, s.finish()
		}
		if err := s.file.Put(s.merge.Key(), s.merge.Value()); err != nil {
			return false, err
		}
		written += len(s.merge.Key()) + len(s.merge.Value())
	}
	return false, nil
}

func (s *Save) finish() (err error) {
	if err = s.file.End(); err == nil {
		err = s.file.WriteFacts(&s.facts)
	}
	if err == nil {
		s.size, err = s.file.Finish()
	}
	s.ended = err == nil
	return err
}

// Bytes is the length of the finished file.
func (s *Save) Bytes() int64 { return s.size }

// ReadAt reads the finished file.
func (s *Save) ReadAt(p []byte, offset int64) (int, error) { return s.file.ReadAt(p, offset) }

// Shrink gives back so many bytes at the end of the finished file, or all of them; more
// is false if the rest may as well be removed at once. Errors: the file system's.
func (s *Save) Shrink(by int64) (more bool, err error) { return s.file.Shrink(by) }

// Close removes the file and what else is on disk.
func (s *Save) Close() error { return errors.Join(s.sorted.Close(), s.file.Remove()) }

// roomEvery bytes the disk is asked how much room it has.
const roomEvery = 16 << 20

func (s *Save) roomAfter(bytes int) error {
	if s.since += bytes; s.since < roomEvery {
		return nil
	}
	s.since = 0
	return s.room()
}

// room asks whether there is room for the next bytes. A backup is worth less than the
// member: it ends before the disk is full.
func (s *Save) room() error {
	disk, err := s.to.FS.GetDiskUsage(s.to.FS.PathDir(s.to.Path))
	if err != nil {
		return err
	}
	if reserve := s.to.Reserve(int64(disk.TotalBytes)); int64(disk.AvailBytes) < reserve+2*roomEvery {
		return fmt.Errorf("%w: %d MB are free, and %d MB are to stay so", ErrNoSpace, disk.AvailBytes>>20, reserve>>20)
	}
	return nil
}
