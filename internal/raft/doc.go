// Package raft is the consensus algorithm of Ongaro and Ousterhout ("In Search
// of an Understandable Consensus Algorithm", extended version, and Ongaro's
// thesis) as a pure function: inputs go in by the methods of Node, one Output
// at a time comes out. It has no clock, goroutine, lock, logger, global or I/O;
// time is handed in as an env.Instant, randomness as a function.
//
// The one persistence protocol:
//
//	for {
//		feed inputs: Tick, Step, Propose, Read, Persisted, Applied, Loaded ...
//		out, ok := node.Output()
//		send out.Send at once
//		append out.Entries and out.Hard to the log, one sync for many groups
//		when synced: send out.After, then node.Persisted(out.Number)
//		apply out.Apply, then node.Applied(index)
//	}
//
// The outputs of a node are persisted in the order of their numbers, but any
// number of them may be on their way at once: the next Output may be taken
// before the former one is persisted.
package raft
