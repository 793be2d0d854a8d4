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
package host
