// Package peer carries messages between the members of a cluster (rule 34). What
// a message says is not its business: it is given bytes late and hands bytes over.
//
// Each member dials each other one, on three lanes of a connection each: Control,
// Appends, Snapshots. So bulk never delays a heartbeat, neither in a queue nor in a
// socket's buffer. A connection carries messages in one direction only, from the
// one who dialled; what comes back on it are signs of life and the answers to Ask.
// Two members that talk have therefore six connections. The price is small, and it
// buys three things: nobody has to agree on whose connection is kept when both
// dial at once, a lane that is cut in one direction is found out by the one who
// needs it, and a refusal reaches the member whose configuration is at fault.
//
// Send never waits. A lane's queue is bounded in bytes; what does not fit, and all
// that waits when a connection is lost, is dropped and counted: raft repairs it.
// While a member cannot be reached nothing is kept for it.
//
// Where to look: transport.go is what users of the package see, lane.go the queue
// and the life of a lane, dial.go a connection that we made, accept.go one that was
// made to us, ask.go questions and answers, frame.go and hello.go the bytes, split.go
// how HTTP shares the port. docs/format/peer.md is the protocol.
package peer
