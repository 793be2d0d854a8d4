package model

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Range answers a range outside a txn (spec 2.1): any revision up to 0 means the
// latest.
func (s *Store) Range(r *command.RangeRequest) (*command.RangeResponse, error) {
	if r.Revision > s.revision {
		return nil, command.ErrFutureRevision
	}
	if r.Revision > 0 && r.Revision < s.compacted {
		return nil, command.ErrCompacted
	}
	return s.rangeAt(r, s.revision), nil
}

// rangeAt answers a range whose revision is legal. now is the revision that 0
// means, and that the header shows: the store's, or one more inside a txn that
// has written.
func (s *Store) rangeAt(r *command.RangeRequest, now id.Revision) *command.RangeResponse {
	at := now
	if r.Revision > 0 {
		at = r.Revision
	}
	kvs := s.live(r.Key, r.End, at)
	response := &command.RangeResponse{Revision: now, Count: int64(len(kvs))}
	if r.CountOnly {
		return response
	}

	filtered := r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
	order := r.Order
	if r.Order == command.SortNone && r.Target != command.SortByKey {
		// The quirk of spec 2.1: cut in key order first, one more than the limit so
		// that "more" is known, and then sorted. Not with a filter.
		order = command.SortAscend
		if r.Limit > 0 && !filtered && r.Limit < int64(len(kvs)) {
			kvs = kvs[:r.Limit+1]
		}
	}
	kvs = slices.DeleteFunc(kvs, func(kv command.KeyValue) bool { return !passes(r, kv) })
	sortKVs(kvs, order, r.Target)
	if r.Limit > 0 && int64(len(kvs)) > r.Limit {
		kvs, response.More = kvs[:r.Limit], true
	}
	for _, kv := range kvs {
		if r.KeysOnly {
			kv.Value = nil
		}
		response.KVs = append(response.KVs, kv)
	}
	return response
}

// passes applies the four revision filters; 0 is off.
func passes(r *command.RangeRequest, kv command.KeyValue) bool {
	return (r.MinModRevision == 0 || kv.ModRevision >= r.MinModRevision) &&
		(r.MaxModRevision == 0 || kv.ModRevision <= r.MaxModRevision) &&
		(r.MinCreateRevision == 0 || kv.CreateRevision >= r.MinCreateRevision) &&
		(r.MaxCreateRevision == 0 || kv.CreateRevision <= r.MaxCreateRevision)
}

// sortKVs sorts by the target. The specification leaves the order of ties open;
// here, and in Kvorum, they stay in ascending key order in both directions.
func sortKVs(kvs []command.KeyValue, order command.SortOrder, target command.SortTarget) {
	if order == command.SortNone {
		return
	}
	slices.SortStableFunc(kvs, func(a, b command.KeyValue) int {
		if order == command.SortDescend {
			a, b = b, a
		}
		switch target {
		case command.SortByVersion:
			return cmp.Compare(a.Version, b.Version)
		case command.SortByCreate:
			return cmp.Compare(a.CreateRevision, b.CreateRevision)
		case command.SortByMod:
			return cmp.Compare(a.ModRevision, b.ModRevision)
		case command.SortByValue:
			return bytes.Compare(a.Value, b.Value)
		default:
			return bytes.Compare(a.Key, b.Key)
		}
	})
}
