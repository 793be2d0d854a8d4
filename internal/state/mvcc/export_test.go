package mvcc

import "github.com/kvorum/kvorum/internal/id"

// HashKVIn is HashKV with another bound on what is held in memory.
func (v *View) HashKVIn(rev id.Revision, atOnce int) (KVHash, error) {
	return v.hashKV(rev, atOnce, GoOn)
}

// GoOn never stops a walk.
func GoOn() error { return nil }
