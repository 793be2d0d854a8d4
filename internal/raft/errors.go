package raft

import "errors"

// What a Node refuses with. The hosts compare with errors.Is.
var (
	// ErrNotLeader: only a leader takes proposals, changes and transfers.
	ErrNotLeader = errors.New("raft: not leader")
	// ErrTransferring: a leader that hands over takes nothing more.
	ErrTransferring = errors.New("raft: leadership is being transferred")
	// ErrChangePending: an earlier configuration change is not committed yet, or
	// none of this term has been (rule 10).
	ErrChangePending = errors.New("raft: a configuration change is pending")
	// ErrBadChange: a change must add or remove exactly one voter and leave one.
	ErrBadChange = errors.New("raft: a change adds or removes one voter")
	// ErrBadTransferee: the target of a transfer is unknown.
	ErrBadTransferee = errors.New("raft: bad leader transferee")
	// ErrNoLeader: nobody is known who could confirm the read.
	ErrNoLeader = errors.New("raft: no leader")
	// ErrLeaderChanged: the leader changed before the read was confirmed.
	ErrLeaderChanged = errors.New("raft: leader changed")
)
