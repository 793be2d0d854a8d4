package etcddb

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// NoCompaction is the compact revision of a store that was never compacted.
const NoCompaction = -1

// Facts is everything in a file but the keys. Lists are in no order when they are
// written, and sorted by what names their items when they are read.
type Facts struct {
	// Index and Term are the position in the log up to which the file has applied.
	Index, Term uint64
	// StorageVersion is etcd's name for the layout; empty in files before 3.6.
	StorageVersion string
	// Scheduled is the latest compaction that was begun, Finished the latest whose
	// rows are all gone; NoCompaction if there is none.
	Scheduled, Finished int64
	Leases              []Lease
	Alarms              []Alarm
	AuthEnabled         bool
	AuthRevision        uint64
	Users               []User
	Roles               []Role
	Members             []Member
	Removed             []uint64
	ClusterVersion      string
}

// Lease is one lease, its times in seconds. Remaining is 0 unless it was told.
type Lease struct{ ID, TTL, Remaining int64 }

// Alarm is one alarm; Type is that of etcdserverpb.AlarmType.
type Alarm struct {
	Member uint64
	Type   int32
}

// User is one user; Hash is bcrypt's.
type User struct {
	Name       string
	Hash       []byte
	Roles      []string
	NoPassword bool
}

// Role is one role.
type Role struct {
	Name        string
	Permissions []Permission
}

// Permission is a range of keys that a role may read (0), write (1) or both (2).
type Permission struct {
	Type     int32
	Key, End []byte
}

// Member is one member, in the form in which etcd keeps it.
type Member struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	Learner    bool     `json:"isLearner,omitempty"`
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

// confState is the configuration that etcd keeps since 3.5.
type confState struct {
	Voters    []uint64 `json:"voters"`
	Learners  []uint64 `json:"learners,omitempty"`
	AutoLeave bool     `json:"auto_leave"`
}

// Names of rows in the buckets meta, auth and cluster.
const (
	rowIndex     = "consistent_index"
	rowTerm      = "term"
	rowStorage   = "storageVersion"
	rowScheduled = "scheduledCompactRev"
	rowFinished  = "finishedCompactRev"
	rowConfState = "confState"
	rowEnabled   = "authEnabled"
	rowRevision  = "authRevision"
	rowCluster   = "clusterVersion"
	removedMark  = "removed"
)

// bucketRow is one row that is to be written.
type bucketRow struct{ key, value []byte }

// WriteFacts writes every bucket but that of the keys.
func (w *Writer) WriteFacts(f *Facts) error {
	for _, b := range []struct {
		name string
		rows []bucketRow
	}{
		{bucketMeta, f.metaRows()}, {bucketLeases, rowsOf(f.Leases, (*Lease).row)}, {bucketAlarms, rowsOf(f.Alarms, (*Alarm).row)},
		{bucketAuth, f.authRows()}, {bucketUsers, rowsOf(f.Users, (*User).row)}, {bucketRoles, rowsOf(f.Roles, (*Role).row)},
		{bucketMembers, rowsOf(f.Members, (*Member).row)}, {bucketRemoved, rowsOf(f.Removed, removedRow)}, {bucketCluster, f.clusterRows()},
	} {
		slices.SortFunc(b.rows, func(a, b bucketRow) int { return bytes.Compare(a.key, b.key) })
		w.Begin(b.name)
		for _, r := range b.rows {
			if err := w.Put(r.key, r.value); err != nil {
				return err
			}
		}
		if err := w.End(); err != nil {
			return err
		}
	}
	return nil
}

// BeginKeys starts the bucket of the keys, whose rows are named by AppendRevision.
func (w *Writer) BeginKeys() { w.Begin(bucketKeys) }

func named(key string, value []byte) bucketRow { return bucketRow{[]byte(key), value} }

func (f *Facts) metaRows() []bucketRow {
	conf := confState{Voters: []uint64{}}
	for _, m := range f.Members {
		if m.Learner {
			conf.Learners = append(conf.Learners, m.ID)
		} else {
			conf.Voters = append(conf.Voters, m.ID)
		}
	}
	text, err := json.Marshal(conf)
	if err != nil {
		panic(err) // it is made of numbers
	}
	rows := []bucketRow{
		named(rowIndex, binary.BigEndian.AppendUint64(nil, f.Index)),
		named(rowTerm, binary.BigEndian.AppendUint64(nil, f.Term)),
		named(rowConfState, text),
	}
	if f.StorageVersion != "" {
		rows = append(rows, named(rowStorage, []byte(f.StorageVersion)))
	}
	if f.Scheduled >= 0 {
		rows = append(rows, named(rowScheduled, AppendRevision(nil, Revision{Main: f.Scheduled})))
	}
	if f.Finished >= 0 {
		rows = append(rows, named(rowFinished, AppendRevision(nil, Revision{Main: f.Finished})))
	}
	return rows
}

// rowsOf makes a row of each item of a list.
func rowsOf[T any](list []T, row func(*T) bucketRow) (rows []bucketRow) {
	for i := range list {
		rows = append(rows, row(&list[i]))
	}
	return rows
}

func (l *Lease) row() bucketRow {
	b := appendNumber(nil, 1, uint64(l.ID))
	b = appendNumber(b, 2, uint64(l.TTL))
	return bucketRow{binary.BigEndian.AppendUint64(nil, uint64(l.ID)), appendNumber(b, 3, uint64(l.Remaining))}
}

func (a *Alarm) row() bucketRow {
	return bucketRow{appendNumber(appendNumber(nil, 1, a.Member), 2, uint64(a.Type)), nil}
}

func (u *User) row() bucketRow {
	b := appendBytes(appendBytes(nil, 1, []byte(u.Name)), 2, u.Hash)
	for _, role := range u.Roles {
		b = appendBytes(b, 3, []byte(role))
	}
	var options []byte
	if u.NoPassword {
		options = appendNumber(nil, 1, 1)
	}
	// The options are there even if they say nothing: so etcd writes them.
	return named(u.Name, appendMessage(b, 4, options))
}

func (r *Role) row() bucketRow {
	b := appendBytes(nil, 1, []byte(r.Name))
	for _, p := range r.Permissions {
		one := appendNumber(nil, 1, uint64(p.Type))
		b = appendMessage(b, 2, appendBytes(appendBytes(one, 2, p.Key), 3, p.End))
	}
	return named(r.Name, b)
}

func (m *Member) row() bucketRow {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // it is made of numbers and strings
	}
	return named(strconv.FormatUint(m.ID, 16), text)
}

func removedRow(m *uint64) bucketRow { return named(strconv.FormatUint(*m, 16), []byte(removedMark)) }

func (f *Facts) authRows() []bucketRow {
	enabled := []byte{0}
	if f.AuthEnabled {
		enabled[0] = 1
	}
	return []bucketRow{named(rowEnabled, enabled), named(rowRevision, binary.BigEndian.AppendUint64(nil, f.AuthRevision))}
}

func (f *Facts) clusterRows() []bucketRow {
	if f.ClusterVersion == "" {
		return nil
	}
	return []bucketRow{named(rowCluster, []byte(f.ClusterVersion))}
}

// ReadFacts reads everything but the keys. Buckets that are not there are empty: they
// came with versions. Errors: ErrDamaged, the reader's.
func (f *File) ReadFacts() (*Facts, error) {
	facts := &Facts{Scheduled: NoCompaction, Finished: NoCompaction}
	list, err := f.Buckets()
	if err != nil {
		return nil, err
	}
	rows := map[string]func(key, value []byte) (ok bool){
		bucketMeta: facts.readMeta, bucketLeases: facts.readLease, bucketAlarms: facts.readAlarm, bucketAuth: facts.readAuth,
		bucketUsers: facts.readUser, bucketRoles: facts.readRole, bucketMembers: facts.readMember, bucketCluster: facts.readCluster,
		bucketRemoved: facts.readRemoved,
	}
	keys := false
	for _, b := range list {
		keys = keys || b.name == bucketKeys
		read := rows[b.name]
		if read == nil {
			continue
		}
		err := b.Walk(func(key, value []byte) error {
			if !read(key, value) {
				return damaged("row %q of bucket %q", key, b.name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if !keys {
		return nil, damaged("no bucket of keys: it is not etcd's")
	}
	slices.SortFunc(facts.Alarms, func(a, b Alarm) int { return cmp.Or(cmp.Compare(a.Member, b.Member), cmp.Compare(a.Type, b.Type)) })
	return facts, nil
}

func number(b []byte, to *uint64) bool {
	if len(b) != 8 {
		return false
	}
	*to = binary.BigEndian.Uint64(b)
	return true
}

func compaction(b []byte, to *int64) bool {
	r, ok := ParseRevision(b)
	*to = r.Main
	return ok
}

func (f *Facts) readMeta(key, value []byte) bool {
	switch string(key) {
	case rowIndex:
		return number(value, &f.Index)
	case rowTerm:
		return number(value, &f.Term)
	case rowScheduled:
		return compaction(value, &f.Scheduled)
	case rowFinished:
		return compaction(value, &f.Finished)
	case rowStorage:
		f.StorageVersion = string(value)
	}
	return true
}

func (f *Facts) readLease(key, value []byte) bool {
	var l Lease
	ok := fields(value, func(n protowire.Number, number uint64, _ []byte) {
		switch n {
		case 1:
			l.ID = int64(number)
		case 2:
			l.TTL = int64(number)
		case 3:
			l.Remaining = int64(number)
		}
	})
	f.Leases = append(f.Leases, l)
	return ok && len(key) == 8 && binary.BigEndian.Uint64(key) == uint64(l.ID)
}

func (f *Facts) readAlarm(key, _ []byte) bool {
	var a Alarm
	ok := fields(key, func(n protowire.Number, number uint64, _ []byte) {
		switch n {
		case 1:
			a.Member = number
		case 2:
			a.Type = int32(number)
		}
	})
	f.Alarms = append(f.Alarms, a)
	return ok
}

func (f *Facts) readAuth(key, value []byte) bool {
	switch string(key) {
	case rowEnabled:
		f.AuthEnabled = len(value) == 1 && value[0] == 1
		return len(value) == 1 && value[0] <= 1
	case rowRevision:
		return number(value, &f.AuthRevision)
	}
	return true
}

func (f *Facts) readUser(key, value []byte) bool {
	var u User
	whole := true
	ok := fields(value, func(n protowire.Number, _ uint64, b []byte) {
		switch n {
		case 1:
			u.Name = string(b)
		case 2:
			u.Hash = bytes.Clone(b)
		case 3:
			u.Roles = append(u.Roles, string(b))
		case 4:
			whole = fields(b, func(n protowire.Number, set uint64, _ []byte) { u.NoPassword = u.NoPassword || n == 1 && set == 1 })
		}
	})
	f.Users = append(f.Users, u)
	return ok && whole && u.Name == string(key)
}

func (f *Facts) readRole(key, value []byte) bool {
	var r Role
	whole := true
	ok := fields(value, func(n protowire.Number, _ uint64, b []byte) {
		switch n {
		case 1:
			r.Name = string(b)
		case 2:
			var p Permission
			whole = fields(b, func(n protowire.Number, number uint64, b []byte) {
				switch n {
				case 1:
					p.Type = int32(number)
				case 2:
					p.Key = bytes.Clone(b)
				case 3:
					p.End = bytes.Clone(b)
				}
			}) && whole
			r.Permissions = append(r.Permissions, p)
		}
	})
	f.Roles = append(f.Roles, r)
	return ok && whole && r.Name == string(key)
}

func (f *Facts) readMember(key, value []byte) bool {
	var m Member
	if err := json.Unmarshal(value, &m); err != nil {
		return false
	}
	f.Members = append(f.Members, m)
	return fmt.Sprintf("%x", m.ID) == string(key)
}

func (f *Facts) readRemoved(key, _ []byte) bool {
	m, err := strconv.ParseUint(string(key), 16, 64)
	f.Removed = append(f.Removed, m)
	return err == nil
}

func (f *Facts) readCluster(key, value []byte) bool {
	if string(key) == rowCluster {
		f.ClusterVersion = string(value)
	}
	return true
}

// Versions shows every version of every key in the order of revisions; what it shows
// is valid until version returns. Errors: ErrDamaged, the reader's, what version returns.
func (f *File) Versions(version func(r Revision, pair []byte) error) error {
	b, err := f.Bucket(bucketKeys)
	if err != nil {
		return err
	}
	return b.Walk(func(key, value []byte) error {
		r, ok := ParseRevision(key)
		if !ok {
			return damaged("row %x of bucket %q", key, bucketKeys)
		}
		return version(r, value)
	})
}

// LastRevision is the main revision of the last version, 0 if there is none. Errors: as of Versions.
func (f *File) LastRevision() (int64, error) {
	b, err := f.Bucket(bucketKeys)
	if err != nil {
		return 0, err
	}
	key, _, err := b.Last()
	if err != nil || key == nil {
		return 0, err
	}
	r, ok := ParseRevision(key)
	if !ok {
		return 0, damaged("row %x of bucket %q", key, bucketKeys)
	}
	return r.Main, nil
}
