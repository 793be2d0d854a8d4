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
//
// What leaves before its Output is persisted, and why it may:
//
//	Append, Heartbeat, Snapshot   a leader's term and vote were persisted before
//	                              it led, and it counts itself only for what is
//	                              durable here
//	RoundReply                    promises nothing that a crash could take back
//	pre-votes                     promise nothing at all
//	VoteRequest                   waits: it names the end of the log
//	VoteReply, AppendReply        wait: they are promises
//
// The rooms:
//
//	node.go       inputs that any role takes; terms of messages
//	election.go   time, pre-votes, votes, stickiness, roles, damage (rule 5)
//	follower.go   what a follower takes from its leader, and owes it
//	replicate.go  what a leader sends; commit; check-quorum
//	read.go       linearizable reads by rounds (rule 11)
//	conf.go       configurations, joint ones too: one change at a time (rule 10)
//	confset.go    what a configuration says of its members; its quorums
//	confcodec.go  the encoding of configurations and of changes
//	transfer.go   handing leadership over
//	snapshot.go   followers that the log no longer reaches; entries read back
//	output.go     the one way out
//	log.go        terms of all entries, the newest entries, what is durable (rule 9)
//	codec.go      the encoding of messages
//	quorum        majorities;  progress  what a leader knows of one follower
package raft
