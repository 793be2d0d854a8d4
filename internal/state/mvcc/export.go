package mvcc

import (
	"bytes"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Export walks over every version of a store that does not change, such as a
// checkpoint, in the order of keys, and shows each as etcd has it on disk. What
// compaction lets go is left out, removed or not.
type Export struct {
	group id.Group
	from  engine.Reader
	state State

	at        []byte // where the next slice begins
	user      []byte // the key whose versions are being walked
	settled   bool   // its newest version at or below the compact revision was met
	rev, pair []byte
}

// NewExport begins at the first key. Errors: *DamageError.
func NewExport(group id.Group, from engine.Reader) (*Export, error) {
	state := [...]int64{1, -1, 0}
	if err := readNumbers(from, group, rowState, state[:]); err != nil {
		return nil, err
	}
	return &Export{group: group, from: from, at: keys.AppendUserKey(nil, group, nil),
		state: State{Revision: id.Revision(state[0]), Compacted: id.Revision(state[1]), Written: state[2]}}, nil
}

// State tells the revision and the compact revision of the store.
func (e *Export) State() State { return e.state }

// Next shows a slice of about so many bytes; more is false after the last one. What
// version is shown is valid until it returns: the revision, and the key with its value
// as mvccpb.KeyValue, of a deletion the key alone. Errors: *DamageError, what version returns.
func (e *Export) Next(most int, version func(rev, pair []byte) error) (more bool, err error) {
	it, err := e.from.Iter(e.at, keys.AppendDataEnd(nil, e.group))
	if err != nil {
		return false, &DamageError{"of the keys", err}
	}
	defer it.Close()
	read := 0
	for ok := it.SeekGE(e.at); ok; ok = it.Next() {
		key := it.Key()
		if read >= most {
			e.at = append(e.at[:0], key...)
			return true, nil
		}
		_, user, main, sub, decoded := keys.DecodeVersion(key)
		if !decoded {
			return false, &DamageError{keys.Text(key).String(), errRow}
		}
		v, err := versionAt(it, key, main, sub)
		if err != nil {
			return false, err
		}
		read += len(key) + len(v.value)
		if !e.keeps(user, &v) {
			continue
		}
		e.rev, e.pair = appendRevision(e.rev[:0], &v), appendPair(e.pair[:0], user, &v)
		if err := version(e.rev, e.pair); err != nil {
			return false, err
		}
	}
	if err := it.Err(); err != nil {
		return false, &DamageError{"of the keys", err}
	}
	return false, nil
}

// keeps says whether compaction leaves a version, as hashVersions does.
func (e *Export) keeps(user []byte, v *version) bool {
	if !bytes.Equal(user, e.user) {
		e.user, e.settled = append(e.user[:0], user...), false
	}
	if v.mod > e.state.Compacted {
		return true
	}
	freed := e.settled || v.dead && v.mod < e.state.Compacted
	e.settled = true
	return !freed
}
