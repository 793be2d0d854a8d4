package backup

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/alarm"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/lease"
	"github.com/kvorum/kvorum/internal/state/member"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
	"github.com/kvorum/kvorum/internal/storage/etcddb"
	"github.com/kvorum/kvorum/internal/storage/extsort"
)

// ErrDamaged is wrapped by the error of a backup whose rows contradict each other. So
// is etcddb.ErrDamaged by that of a file that is not what etcd writes.
var ErrDamaged = errors.New("damaged backup")

func compareBytes(a, b []byte) int { return bytes.Compare(a, b) }

// Restore is what is made of a backup.
type Restore struct {
	Group id.Group
	// FS and Path are for files while the rows are sorted; their names begin with Path.
	FS   env.FS
	Path string
	// At is where the log of the new cluster begins, Conf its first configuration and
	// Members what is known of those in it. The members of the backup are dropped.
	At      raft.Position
	Conf    raft.PlacedConf
	Members []member.Facts
	// Bump is added to the revision of the keys: clients that have seen revisions that
	// the backup has not are not shown others under the same numbers. MarkCompacted
	// forbids all reads and watches below the revision that results.
	Bump          uint64
	MarkCompacted bool
}

// Summary is what a restored store holds.
type Summary struct {
	Revision, Compacted id.Revision
	Versions            int
	Leases, Users       int
}

// Position is where the log of a cluster begins that is made of a backup: members that
// were given backups of different moments do not then take each other's state for
// their own; the newest one wins.
func Position(facts *etcddb.Facts) raft.Position {
	return raft.Position{Index: id.Index(max(facts.Index, 1)), Term: 1}
}

// maxRevision leaves room for what comes after.
const maxRevision = math.MaxInt64 / 2

// Into puts the rows of a backup in the place of whatever a store has of the group, in
// one step: after an error it is as it was. Errors: ErrDamaged, etcddb.ErrDamaged,
// *mvcc.DamageError, lease.ErrInvalid, auth.ErrInvalid, engine.ErrFailed, the file
// system's.
func (r *Restore) Into(db engine.Keeper, file *etcddb.File) (Summary, error) {
	into := db.Prepare(keys.AppendGroupStart(nil, r.Group), keys.AppendGroupEnd(nil, r.Group))
	sum, err := r.gather(into, file)
	if err == nil {
		err = into.Commit()
	}
	return sum, errors.Join(err, into.Close())
}

// gather adds all rows, sorted, and seals them.
func (r *Restore) gather(into engine.Installation, file *etcddb.File) (_ Summary, err error) {
	facts, err := file.ReadFacts()
	if err != nil {
		return Summary{}, err
	}
	last, err := file.LastRevision()
	if err != nil {
		return Summary{}, err
	}
	run := restoring{Restore: r, facts: facts, into: into, leases: map[id.Lease]bool{}}
	run.sum = Summary{Compacted: id.Revision(facts.Compacted()), Leases: len(facts.Leases), Users: len(facts.Users)}
	run.sum.Revision = max(id.Revision(last), run.sum.Compacted, 1)
	if facts.Index > maxRevision || last > maxRevision || run.sum.Compacted > maxRevision || r.Bump > maxRevision {
		return Summary{}, fmt.Errorf("%w: revision %d, index %d", ErrDamaged, run.sum.Revision, facts.Index)
	}
	run.sum.Revision += id.Revision(r.Bump)
	if r.MarkCompacted {
		run.sum.Compacted = run.sum.Revision
	}
	for _, l := range facts.Leases {
		run.leases[id.Lease(l.ID)] = true
	}
	run.versions = extsort.New(r.FS, r.Path+".versions", keys.Compare)
	run.changes = extsort.New(r.FS, r.Path+".changes", keys.Compare)
	run.attached = extsort.New(r.FS, r.Path+".attached", keys.Compare)
	defer func() {
		err = errors.Join(err, run.versions.Close(), run.changes.Close(), run.attached.Close())
	}()
	for _, step := range []func() error{
		func() error { return file.Versions(run.version) },
		run.keys,
		func() error { return run.add(run.attached) },
		run.addLeases,
		run.addMeta,
		func() error { return run.add(run.changes) },
		into.Seal,
	} {
		if err := step(); err != nil {
			return Summary{}, err
		}
	}
	return run.sum, nil
}

// restoring is one run of Into. Rows go into the installation in the order of their
// kinds: versions, attached keys, leases, the group itself, changes.
type restoring struct {
	*Restore
	facts  *etcddb.Facts
	into   engine.Installation
	leases map[id.Lease]bool
	sum    Summary

	versions, changes, attached *extsort.Sorter
	meta                        []metaRow
	key, row                    []byte
}

type metaRow struct{ key, row []byte }

// version takes a version of the file.
func (r *restoring) version(at etcddb.Revision, pair []byte) error {
	if len(pair) == 0 && !at.Dead {
		return nil // etcdutl raises the revision of a restored etcd by such a row
	}
	p, ok := etcddb.ParsePair(pair)
	if !ok || !at.Dead && p.Mod != at.Main {
		return fmt.Errorf("%w: key %q at revision %d.%d says %d", ErrDamaged, p.Key, at.Main, at.Sub, p.Mod)
	}
	s := mvcc.Stored{Key: p.Key, Value: p.Value, Main: id.Revision(at.Main), Sub: at.Sub, Dead: at.Dead,
		Create: id.Revision(p.Create), Number: p.Version, Lease: id.Lease(p.LeaseID)}
	var err error
	if r.key, r.row, err = mvcc.AppendStored(r.key[:0], r.row[:0], r.Group, &s); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return r.versions.Add(r.key, r.row)
}

// keys makes the rows of the keys and puts down what is sorted otherwise.
func (r *restoring) keys() error {
	sorted, err := r.versions.Sort()
	if err != nil {
		return err
	}
	var last []byte
	in := mvcc.Import{
		Group: r.Group, Revision: r.sum.Revision, Compacted: r.sum.Compacted,
		Version: func(key, row []byte) error {
			r.sum.Versions++
			return r.into.Add(key, row)
		},
		Change: r.changes.Add,
		Attached: func(lease id.Lease, user []byte) error {
			if !r.leases[lease] {
				return nil // it has ended, and nobody is to end the key with it
			}
			return r.attached.Add(keys.AppendAttached(nil, r.Group, lease, user), nil)
		},
	}
	for {
		more, err := sorted.Next()
		if err != nil {
			return err
		}
		if !more {
			return in.Finish(r.addLater)
		}
		if last != nil && keys.Compare(last, sorted.Key()) == 0 {
			return fmt.Errorf("%w: two versions %s", ErrDamaged, keys.Text(last))
		}
		last = append(last[:0], sorted.Key()...)
		if err := in.Add(sorted.Key(), sorted.Value()); err != nil {
			return err
		}
	}
}

// add puts sorted rows into the installation.
func (r *restoring) add(rows *extsort.Sorter) error {
	sorted, err := rows.Sort()
	for err == nil {
		var more bool
		if more, err = sorted.Next(); !more {
			return err
		}
		err = r.into.Add(sorted.Key(), sorted.Value())
	}
	return err
}

// addLater keeps a row about the group for its place.
func (r *restoring) addLater(key, row []byte) error {
	r.meta = append(r.meta, metaRow{key, row})
	return nil
}

func (r *restoring) addLeases() error {
	var list []lease.Facts
	for _, l := range r.facts.Leases {
		list = append(list, lease.Facts{LeaseName: command.LeaseName{ID: id.Lease(l.ID)}, TTL: l.TTL, Remaining: l.Remaining})
	}
	return lease.Rows(r.Group, list, r.into.Add, r.addLater)
}

// addMeta makes the rows about the group, and puts all of them in their place.
func (r *restoring) addMeta() error {
	var users []auth.User
	var roles []auth.Role
	for _, u := range r.facts.Users {
		users = append(users, auth.User{Name: u.Name, Hash: u.Hash, Roles: u.Roles, NoPassword: u.NoPassword})
	}
	for _, from := range r.facts.Roles {
		role := auth.Role{Name: from.Name}
		for _, p := range from.Permissions {
			role.Permissions = append(role.Permissions, command.Permission{Type: command.PermissionType(p.Type), Key: p.Key, End: p.End})
		}
		roles = append(roles, role)
	}
	if err := auth.Rows(r.Group, r.facts.AuthEnabled, r.facts.AuthRevision, users, roles, r.addLater); err != nil {
		return err
	}
	var alarms []command.Alarm
	for _, a := range r.facts.Alarms {
		alarms = append(alarms, command.Alarm{Member: id.Member(a.Member), Type: command.AlarmType(a.Type)})
	}
	if err := alarm.Rows(r.Group, alarms, r.addLater); err != nil {
		return err
	}
	if err := member.Rows(r.Group, r.Members, r.addLater); err != nil {
		return err
	}
	key, row := state.MarkOfLoaded(r.Group, r.At, r.Conf)
	r.meta = append(r.meta, metaRow{key, row})
	slices.SortFunc(r.meta, func(a, b metaRow) int { return keys.Compare(a.key, b.key) })
	for _, m := range r.meta {
		if err := r.into.Add(m.key, m.row); err != nil {
			return err
		}
	}
	return nil
}
