// Package wal is one shared, segmented log of checksummed, group-tagged, opaque
// records: append, sync, trim, recover. It knows nothing of Raft; raftlog above
// it gives the records their meaning.
//
// The format and the reasons for it stand in docs/format/wal.md; the rules that
// bind it are 1 to 5 and 8 of the design.
package wal
