// Package state is what is replicated: the state machine of one group. It is
// deterministic: what a command does depends on the command and the state only
// (rule 17), and it has neither clock nor lock. Readers get an immutable View by
// one atomic pointer.
//
// The applied mark is a row of the store, written in the same batch as the
// effects of the entries up to it (decision 3): whatever is on disk after a crash
// is the state at exactly its mark.
package state
