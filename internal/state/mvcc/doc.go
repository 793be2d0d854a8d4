// Package mvcc is the key-value store of one group: every version of every key
// back to the compact revision, in rows of the engine (rules 17, 19, 22).
//
// Two kinds of rows tell the same story in two orders. Each version of a key is a
// row under (key, revision), newest first, with its value; each change is a row
// under its revision, naming the key and the version that it superseded. Ranges
// read the first kind, compaction (and watches) the second. Revision 4 is a txn:
//
//	put a=1      d a@2.0 {create 2, version 1} 1     r 2.0 put a
//	put a=2      d a@3.0 {create 2, version 2} 2     r 3.0 put a, superseding 2.0
//	del a, put b d a@4.0 tombstone                   r 4.0 delete a, superseding 3.0
//	             d b@4.1 {create 4, version 1}       r 4.1 put b
//
// Compaction to 4 at once forbids reads below 4; later, slice by slice, it walks
// the changes up to 4 and deletes what they superseded: a@2.0 (by 3.0) and a@3.0
// (by 4.0). The rows at 4 stay, the tombstone too: a watch from 4 on must see it.
// A further compaction to 5 deletes the tombstone a@4.0 and the changes at 4.
//
// A Store belongs to the applier. Readers on any goroutine hold a View.
package mvcc
