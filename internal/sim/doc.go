// Package sim is the second assembler: it builds whole clusters of the product's
// own code in a world that one seed decides, and looks for what must never
// happen. Everything runs on one goroutine in virtual time; the same seed gives
// the same world, down to the hash of its trace.
//
//	world     its replicas, network and clients; the storm, the calm and the verdict
//	swarm     what the seed draws before a world begins: which faults there are, how
//	          large things are. Worlds differ in kind, not only in luck.
//	schedule  which turn, task, sync, delivery or call is next
//	replica   one member: a machine, and the product started on its disk
//	network   loses, delays, repeats and reorders messages, and parts the members
//	faults    crashes, pauses, stalls, failed syncs, full disks, flipped bits, splits,
//	          rolling restarts
//	client    calls and what came of them; workload draws the requests
//	watcher   clients with streams of watches, on one member after the other; watching
//	          judges what each watch is told
//	lessee    clients with leases; locker takes a lock that hangs on one
//	person    clients who have to say who they are; admin changes what they may; people
//	          judges what they are told, rights is what was decided about them
//	talk      what one of them and one member say to each other, as a door has it
//	space     quotas, disks that others fill, alarms; spender writes as the doors have it,
//	          keeper gives room back; errand judges what they are answered
//	signed    what signed tokens are worth
//	ledger    what was applied: the judge of logs and states, with the oracle beside;
//	          events are what watches are owed, tenures the lives of leases
//	campaign  many worlds, and the story of the first that fails
//	shrink    a smaller world that fails as well, for a story that can be read
//
// A world has two phases. In the storm faults happen and clients call; in the
// calm the faults stop, everything heals, and the members must agree and serve
// within a bounded time. Every check that can be made at once is made at once, so
// that a story ends where things went wrong; the rest is judged at the end.
//
// What watches and leases are held to:
//
//	watches   each sees every event of its range once, in order and in whole revisions,
//	          none that a reader of its member does not see; a bookmark is never ahead
//	          of what the watch was told; at rest everything was seen, and said so
//	leases    none ends before its TTL has passed, on the fastest clock of the world,
//	          since its grant was applied or since the latest renewal that was answered
//	          began; in the calm none ends later than lateBound after its TTL, or what
//	          was checkpointed of it, has passed on the slowest; its keys go in one
//	          revision, and nobody else's
//	locks     who writes under the lock has the lowest revision of the queue, and no
//	          higher one has written; two never believe at once that they hold it
//	people    every answer shows the state of one index of the log, and whoever asked was
//	          allowed by the users and roles of that index to be shown all of it; the
//	          index lies between call and answer (decision 0030). A refusal was right at
//	          an index in the same span. A token is worth something as long as its user
//	          has the password that it was given for; nothing that goes into the log has
//	          a password in it
//	space     a member without room admits nothing that grows, and tells an alarm; while
//	          that is in force no growth is applied anywhere, and what a member knows to be
//	          stopped does not get into the log; what was refused was never done; a
//	          refusal was right at a moment between call and answer; deletions, compactions
//	          and revocations pass; members agree on the alarms of an index; in the calm
//	          the group runs out of room once more and finds the way back (decision 0036)
//
// To add a checker: find the moment at which its promise can be judged (an entry
// is applied: ledger; a call ends: client; a watch is told: watching; a role
// changes: elections; the world ends: verdict), and call world.fail with a sentence
// that names the promise.
package sim
