// Package host drives the replicas of many Raft groups over one log and one
// transport. Three stages take turns and never wait inside one (decision 1):
//
//	stepper    proposals, messages and time go into raft; its Outputs come out
//	persister  one frame and one sync for all that the Outputs want persisted
//	applier    committed entries go into the state machines; results come back
//
// Three queues forward, one queue of results back, no callback into a higher
// floor. In production run.go gives the stages goroutines; a simulator calls
// their Turn methods in an order drawn from a seed. The same code runs in both.
//
// Where to look: step.go, persist.go and apply.go are the stages, queues.go what
// lies between them; propose.go, pending.go and window.go the life of a proposal
// (rule 13), read.go that of a read (rule 11), conf.go that of a change; start.go
// how a group comes to life (rule 12), retain.go how its log shrinks (rules 7, 8),
// catchup.go how a follower is read what it lacks, snapshot.go, sending.go and
// receiving.go how it gets a whole state (rule 21).
//
// A command on its way through the host costs no allocation: queues and the table
// of pending proposals are slices that are used again, a result is a value. What
// is allocated is per batch: the entry's bytes, the messages.
package host
