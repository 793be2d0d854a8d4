// Package id holds the distinct numbers of the system as distinct types, so
// that a term can never be passed where an index is meant. It has no behaviour
// but printing and stands below every other floor.
package id

import "strconv"

// Group names one Raft log. It equals the four-byte key prefix of the group in
// the store. 0 is the process's own, 1 the default group; a number is never
// used again in one data directory (rule 6).
type Group uint32

// Groups with a fixed meaning.
const (
	ProcessGroup Group = 0
	DefaultGroup Group = 1
)

// Member names one process of a cluster; 0 is nobody.
type Member uint64

// Cluster names a cluster.
type Cluster uint64

// Boot is the random nonce of one run of a member: 64 bits drawn at start, so
// that a request of an earlier run is never taken for one of this run.
type Boot uint64

// Seq numbers the proposals or the reads of one (Member, Boot), from 1.
type Seq uint64

// Term is a Raft term.
type Term uint64

// Index is a position in a Raft log; the first entry has index 1.
type Index uint64

// Revision numbers the changes of the key-value store; a new store is at 1.
type Revision int64

// Lease names a lease; 0 is none. Negative values are legal.
type Lease int64

// String prints a member as etcd does: lower-case hex without leading zeros.
func (m Member) String() string { return strconv.FormatUint(uint64(m), 16) }

// String prints a cluster as etcd does: lower-case hex without leading zeros.
func (c Cluster) String() string { return strconv.FormatUint(uint64(c), 16) }
