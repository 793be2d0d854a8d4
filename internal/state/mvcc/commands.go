package mvcc

import (
	"bytes"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Put writes one key (spec 2.3). Errors: command.ErrLeaseNotFound,
// command.ErrKeyNotFound, *DamageError.
func (s *Store) Put(r *command.PutRequest) (*command.PutResponse, error) {
	if err := s.checkPut(r); err != nil {
		return nil, err
	}
	resp, err := s.put(r)
	if err != nil {
		return nil, err
	}
	s.settle()
	return resp, nil
}

// checkPut is what a put must find in the state: first its lease, then its key.
func (s *Store) checkPut(r *command.PutRequest) error {
	if err := s.checkLease(r); err != nil {
		return err
	}
	return s.checkKept(r)
}

// checkPutInTxn asks the same in the other order, as the reference does.
func (s *Store) checkPutInTxn(r *command.PutRequest) error {
	if err := s.checkKept(r); err != nil {
		return err
	}
	return s.checkLease(r)
}

// checkKept looks for the key whose value or lease is to be kept.
func (s *Store) checkKept(r *command.PutRequest) error {
	if !r.IgnoreValue && !r.IgnoreLease {
		return nil
	}
	_, found, err := s.newest(r.Key)
	if err != nil {
		return err
	}
	if !found {
		return command.ErrKeyNotFound
	}
	return nil
}

// put writes a version. A key that is to keep its value or lease and that an
// earlier operation of the same txn has deleted (a quirk of spec 2.5 lets it
// come here) starts anew with none.
func (s *Store) put(r *command.PutRequest) (*command.PutResponse, error) {
	var (
		whole version // with its value, if that is wanted
		prev  tip
		found bool
		err   error
	)
	if r.IgnoreValue || r.PrevKV {
		whole, found, err = s.find(r.Key, latest)
		prev = tipOf(&whole)
	} else {
		prev, found, err = s.newest(r.Key)
	}
	if err != nil {
		return nil, err
	}
	resp := &command.PutResponse{Revision: s.now.Revision + 1}
	v := version{number: 1, lease: r.Lease, value: r.Value}
	var c change
	if found {
		v.create, v.number = prev.create, prev.number+1
		c = prev.superseding()
		if r.IgnoreValue {
			v.value = s.over.own(whole.value)
		}
		if r.IgnoreLease {
			v.lease = prev.lease
		}
		if r.PrevKV {
			kv := answer(r.Key, &whole, bytes.Clone)
			resp.Prev = &kv
		}
	}
	s.write(r.Key, &v, &c)
	s.done.Puts.Add(1)
	s.done.PutBytes.Add(uint64(len(r.Key) + len(v.value)))
	if !defect.On(defect.DetachedKeyDeleted) || v.lease != 0 {
		s.moveLease(r.Key, prev.lease, v.lease)
	}
	return resp, nil
}

// answer makes a version ready for an answer; clone copies bytes for it.
func answer(key []byte, v *version, clone func([]byte) []byte) command.KeyValue {
	kv := command.KeyValue{Key: clone(key), CreateRevision: v.create, ModRevision: v.mod, Version: v.number, Lease: v.lease}
	if len(v.value) > 0 {
		kv.Value = clone(v.value)
	}
	return kv
}

// DeleteRange deletes keys (spec 2.4); deleting none is no change. Errors:
// *DamageError.
func (s *Store) DeleteRange(r *command.DeleteRangeRequest) (*command.DeleteRangeResponse, error) {
	resp, err := s.deleteRange(r)
	if err != nil {
		return nil, err
	}
	s.settle()
	return resp, nil
}

func (s *Store) deleteRange(r *command.DeleteRangeRequest) (*command.DeleteRangeResponse, error) {
	sc, err := s.scan(r.Key, r.End, latest)
	if err != nil {
		return nil, err
	}
	defer sc.close()
	s.done.Deletes.Add(1)
	resp := &command.DeleteRangeResponse{}
	var copies arena
	for {
		key, v, err := sc.next()
		if err != nil {
			return nil, err
		}
		if v == nil {
			break
		}
		if r.PrevKV {
			resp.Prevs = append(resp.Prevs, answer(key, v, copies.copy))
		}
		t := tipOf(v)
		c := t.superseding()
		s.write(key, &version{dead: true}, &c)
		s.moveLease(key, t.lease, 0)
		resp.Deleted++
	}
	resp.Revision = s.head()
	return resp, nil
}

// Compact forbids reads below a revision (spec 2.6); the rows are removed later,
// by Remove. Errors: command.ErrCompacted, command.ErrFutureRevision.
func (s *Store) Compact(r *command.CompactRequest) (*command.CompactResponse, error) {
	if r.Revision <= s.now.Compacted {
		return nil, command.ErrCompacted
	}
	if r.Revision > s.now.Revision {
		return nil, command.ErrFutureRevision
	}
	s.now.Compacted = r.Revision
	s.changed = true
	return &command.CompactResponse{Revision: s.now.Revision}, nil
}

// checkRange judges the revision of a range inside a txn, where only 0 means the
// newest and a negative one is held against the compact revision (spec 2.1).
func checkRange(rev id.Revision, st State) error {
	switch {
	case rev == 0:
		return nil
	case rev > st.Revision:
		return command.ErrFutureRevision
	case rev < st.Compacted:
		return command.ErrCompacted
	}
	return nil
}
