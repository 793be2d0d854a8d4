// Package model is the oracle: the key-value store of spec/v3-api.md section 2
// written so that a reader can see that it is right. It keeps every version ever
// written in one slice and answers each question by walking all of it. Random
// tests of every floor compare the product with it (habit 14 of the style page).
//
// It shares nothing with the product but the request and response types and the
// texts of the refusals.
package model

import (
	"bytes"
	"maps"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Version is one version of a key, or its tombstone. A tombstone has a key and a
// mod revision only.
type Version struct {
	command.KeyValue
	Deleted bool
}

// Store is the whole store: every version that was ever written, oldest first.
// Versions of one revision stand in the order of the operations that made them.
type Store struct {
	revision  id.Revision
	compacted id.Revision
	versions  []Version
	leases    map[id.Lease]command.LeaseBirth
	births    command.LeaseBirth
	alarms    map[command.Alarm]bool
}

// New returns an empty store: revision 1, nothing compacted (spec 1.2).
func New() *Store {
	return &Store{revision: 1, compacted: -1, leases: map[id.Lease]command.LeaseBirth{}, alarms: map[command.Alarm]bool{}}
}

// Emptied returns a store whose keys have all been deleted and whose history was
// then compacted, both at a revision: what a server that has lived looks like to
// whoever begins anew on it.
func Emptied(at id.Revision) *Store {
	return &Store{revision: at, compacted: at, leases: map[id.Lease]command.LeaseBirth{}, alarms: map[command.Alarm]bool{}}
}

// Revision is the store's revision.
func (s *Store) Revision() id.Revision { return s.revision }

// Compacted is the revision that history was dropped below; -1 if it never was.
func (s *Store) Compacted() id.Revision { return s.compacted }

// Clone returns a copy that lives on its own.
func (s *Store) Clone() *Store {
	return &Store{
		revision: s.revision, compacted: s.compacted,
		versions: slices.Clip(s.versions), leases: maps.Clone(s.leases), births: s.births, alarms: maps.Clone(s.alarms),
	}
}

// At returns the store as it was when its revision was rev, before any
// compaction.
func (s *Store) At(rev id.Revision) *Store {
	past := &Store{revision: rev, compacted: -1, leases: maps.Clone(s.leases), births: s.births, alarms: maps.Clone(s.alarms)}
	for _, v := range s.versions {
		if v.ModRevision <= rev {
			past.versions = append(past.versions, v)
		}
	}
	return past
}

// Versions lists, oldest first, the versions that a compacted store still has on
// disk (spec 2.6): everything above the compact revision; of each key the latest
// version at or below it, if that is no tombstone; and the tombstones at exactly
// the compact revision.
func (s *Store) Versions() []Version {
	var kept []Version
	superseded := s.superseded(s.compacted)
	for i, v := range s.versions {
		switch {
		case v.ModRevision > s.compacted,
			!superseded[i] && !v.Deleted,
			v.Deleted && v.ModRevision == s.compacted:
			kept = append(kept, v)
		}
	}
	return kept
}

// Since lists the versions that were written after the first n, oldest first,
// whatever is compacted. The list is shared and read-only.
func (s *Store) Since(n int) []Version { return slices.Clip(s.versions[n:]) }

// superseded says of each version whether its key has a later one at or below a
// revision.
func (s *Store) superseded(at id.Revision) []bool {
	list, next := make([]bool, len(s.versions)), map[string]id.Revision{}
	for i, v := range slices.Backward(s.versions) {
		later, exists := next[string(v.Key)]
		list[i] = exists && later <= at
		next[string(v.Key)] = v.ModRevision
	}
	return list
}

// Do validates a request and then applies it: what a client sees of one call.
// The request is a *command.RangeRequest, *PutRequest, *DeleteRangeRequest,
// *TxnRequest, *CompactRequest, *LeaseGrant, *LeaseRevoke, *LeaseExpire or one about
// alarms; the
// response is of the matching type, nil with an error.
func (s *Store) Do(request any) (response any, err error) {
	if err := Validate(request); err != nil {
		return nil, err
	}
	return s.Apply(request)
}

// Apply applies a request that has been validated. A refused request changes
// nothing.
func (s *Store) Apply(request any) (response any, err error) {
	if err := s.Stopped(request); err != nil {
		return nil, err
	}
	switch r := request.(type) {
	case *command.RangeRequest:
		return untyped(s.Range(r))
	case *command.PutRequest:
		return untyped(s.Put(r))
	case *command.DeleteRangeRequest:
		return untyped(s.DeleteRange(r))
	case *command.TxnRequest:
		return untyped(s.Txn(r))
	case *command.CompactRequest:
		return untyped(s.Compact(r))
	case *command.LeaseGrant:
		return untyped(s.LeaseGrant(r))
	case *command.LeaseRevoke:
		return untyped(s.LeaseRevoke(r))
	case *command.LeaseExpire:
		return s.LeaseExpire(r), nil
	case *command.AlarmRaise:
		return s.changeAlarms(r.Alarm, true), nil
	case *command.AlarmReport:
		return s.changeAlarms(r.Alarm, true), nil
	case *command.AlarmDisarm:
		return s.changeAlarms(r.Alarm, false), nil
	case *command.AlarmWithdraw:
		return s.changeAlarms(r.Alarm, false), nil
	}
	panic("model: no such request")
}

// untyped makes a nil response with an error a plain nil.
func untyped[R any](response *R, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return response, nil
}

// Put writes one key (spec 2.3).
func (s *Store) Put(r *command.PutRequest) (*command.PutResponse, error) {
	if err := s.checkPut(r); err != nil {
		return nil, err
	}
	response := s.put(r, s.revision+1)
	s.revision++
	return response, nil
}

// DeleteRange deletes keys (spec 2.4). A deletion of nothing is no change.
func (s *Store) DeleteRange(r *command.DeleteRangeRequest) (*command.DeleteRangeResponse, error) {
	response := s.delete(r, s.revision+1)
	if response.Deleted > 0 {
		s.revision++
	}
	response.Revision = s.revision
	return response, nil
}

// Compact drops history below a revision (spec 2.6). Nothing is removed from the
// slice: what lies below can no longer be asked for.
func (s *Store) Compact(r *command.CompactRequest) (*command.CompactResponse, error) {
	if r.Revision <= s.compacted {
		return nil, command.ErrCompacted
	}
	if r.Revision > s.revision {
		return nil, command.ErrFutureRevision
	}
	s.compacted = r.Revision
	return &command.CompactResponse{Revision: s.revision}, nil
}

// put writes a version with mod revision at.
func (s *Store) put(r *command.PutRequest, at id.Revision) *command.PutResponse {
	former, existed := s.lookup(r.Key, at)
	kv := command.KeyValue{
		Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Lease: r.Lease,
		CreateRevision: at, ModRevision: at, Version: 1,
	}
	if existed {
		kv.CreateRevision, kv.Version = former.CreateRevision, former.Version+1
	}
	if r.IgnoreValue {
		kv.Value = former.Value
	}
	if r.IgnoreLease {
		kv.Lease = former.Lease
	}
	s.versions = append(s.versions, Version{KeyValue: kv})
	response := &command.PutResponse{Revision: at}
	if r.PrevKV && existed {
		response.Prev = &former
	}
	return response
}

// delete writes a tombstone with mod revision at for each key in the range.
func (s *Store) delete(r *command.DeleteRangeRequest, at id.Revision) *command.DeleteRangeResponse {
	response := &command.DeleteRangeResponse{}
	for _, former := range s.live(r.Key, r.End, at) {
		response.Deleted++
		if r.PrevKV {
			response.Prevs = append(response.Prevs, former)
		}
		tombstone := command.KeyValue{Key: former.Key, ModRevision: at}
		s.versions = append(s.versions, Version{KeyValue: tombstone, Deleted: true})
	}
	return response
}

// checkPut is what a put must meet in the state (spec 2.3): its lease, then the
// key that it keeps something of.
func (s *Store) checkPut(r *command.PutRequest) error {
	if r.Lease != 0 && s.leases[r.Lease] == 0 {
		return command.ErrLeaseNotFound
	}
	if _, exists := s.lookup(r.Key, s.revision); !exists && (r.IgnoreValue || r.IgnoreLease) {
		return command.ErrKeyNotFound
	}
	return nil
}

// checkPutInTxn is the same inside a txn, where etcd (3.4 and 3.7) looks for the
// key before the lease.
func (s *Store) checkPutInTxn(r *command.PutRequest) error {
	if _, exists := s.lookup(r.Key, s.revision); !exists && (r.IgnoreValue || r.IgnoreLease) {
		return command.ErrKeyNotFound
	}
	return s.checkPut(r)
}

// lookup finds the key as of a revision.
func (s *Store) lookup(key []byte, at id.Revision) (command.KeyValue, bool) {
	kvs := s.live(key, nil, at)
	if len(kvs) == 0 {
		return command.KeyValue{}, false
	}
	return kvs[0], true
}

// live lists the keys of a range that exist as of a revision, in key order: of
// each key the last version at or below it, unless that is a tombstone.
func (s *Store) live(key, end []byte, at id.Revision) []command.KeyValue {
	last := map[string]Version{}
	for _, v := range s.versions {
		if v.ModRevision <= at && contains(key, end, v.Key) {
			last[string(v.Key)] = v
		}
	}
	var kvs []command.KeyValue
	for _, k := range slices.Sorted(maps.Keys(last)) {
		if v := last[k]; !v.Deleted {
			kvs = append(kvs, v.KeyValue)
		}
	}
	return kvs
}

// contains says whether k is in the range of key and end (spec 1.6).
func contains(key, end, k []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(k, key)
	case isFromKey(end):
		return bytes.Compare(k, key) >= 0
	default:
		return bytes.Compare(k, key) >= 0 && bytes.Compare(k, end) < 0
	}
}

// isFromKey says whether end is the single zero byte: every key from the first.
func isFromKey(end []byte) bool { return len(end) == 1 && end[0] == 0 }
