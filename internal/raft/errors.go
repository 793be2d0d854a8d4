package raft

import "errors"

// What a Node refuses with. The hosts compare with errors.Is.
var (
	// ErrNotLeader: only a leader takes proposals, changes and transfers.
	ErrNotLeader = errors.New("raft: not leader")
	// ErrTransferring: a leader that hands over takes nothing more.
	ErrTransferring = errors.New("raft: leadership is being transferred")
	// ErrChangePending: an earlier configuration change is not committed yet, a
	// joint one not ended, nothing of this term committed, or another configuration
	// is in effect than the one that the change was checked against (rule 10).
	ErrChangePending = errors.New("raft: a configuration change is pending")
	// ErrBadChange: no configuration that this one could change to; see ProposeConf.
	ErrBadChange = errors.New("raft: bad configuration change")
	// ErrBadTransferee: the target of a transfer is no voter.
	ErrBadTransferee = errors.New("raft: bad leader transferee")
	// ErrNoLeader: nobody is known who could confirm the read.
	ErrNoLeader = errors.New("raft: no leader")
	// ErrLeaderChanged: the leader changed before the read was confirmed.
	ErrLeaderChanged = errors.New("raft: leader changed")
)
