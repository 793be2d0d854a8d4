package command

import "github.com/kvorum/kvorum/internal/id"

// Kind says what a command asks. The numbers are durable.
type Kind uint16

// The kinds of commands.
const (
	KindPut         Kind = 1
	KindDeleteRange Kind = 2
	KindTxn         Kind = 3
	KindCompact     Kind = 4
	// KindLeaseGrant makes a lease, KindLeaseRevoke ends one for a client,
	// KindLeaseExpire ends many whose time is over, KindLeaseCheckpoint tells what
	// time is left.
	KindLeaseGrant      Kind = 8
	KindLeaseRevoke     Kind = 9
	KindLeaseExpire     Kind = 10
	KindLeaseCheckpoint Kind = 11
	// KindMemberPublish tells a member's name and client URLs.
	KindMemberPublish Kind = 16
	// KindMemberGenesis names the first members, KindMemberUpdate a member's peer URLs.
	KindMemberGenesis Kind = 17
	KindMemberUpdate  Kind = 18
	// KindClusterVersion sets the version of the cluster.
	KindClusterVersion Kind = 19
	// KindDowngradeEnable and KindDowngradeCancel are what clients ask for,
	// KindDowngradeEnd is the leader's word that a downgrade is over.
	KindDowngradeEnable Kind = 20
	KindDowngradeCancel Kind = 21
	KindDowngradeEnd    Kind = 22
	// KindAlarmRaise and KindAlarmDisarm are what clients ask for, KindAlarmReport and
	// KindAlarmWithdraw a member's own word.
	KindAlarmRaise    Kind = 24
	KindAlarmDisarm   Kind = 25
	KindAlarmReport   Kind = 26
	KindAlarmWithdraw Kind = 27
	// Users, roles and permissions (auth.go).
	KindAuthEnable     Kind = 32
	KindAuthDisable    Kind = 33
	KindAuthenticate   Kind = 34
	KindUserAdd        Kind = 35
	KindUserDelete     Kind = 36
	KindUserPassword   Kind = 37
	KindUserGrantRole  Kind = 38
	KindUserRevokeRole Kind = 39
	KindRoleAdd        Kind = 40
	KindRoleDelete     Kind = 41
	KindRoleGrant      Kind = 42
	KindRoleRevoke     Kind = 43
)

// Class says who may propose a command and what becomes of it (rule 14).
type Class uint8

// The classes.
const (
	// Client commands are proposed for a client, exactly once (rule 13).
	Client Class = 1
	// Duty commands are bound to the term in which a leader made them.
	Duty Class = 2
)

// Origin names a proposal for ever: the member that took it, in which run, and
// the how-manieth it was.
type Origin struct {
	Member id.Member
	Boot   id.Boot
	Seq    id.Seq
}

// Header stands before every command's body.
type Header struct {
	Kind   Kind
	Class  Class
	Origin Origin
	// Term is the leader's term in which the proposal may be appended.
	Term id.Term
	// User and AuthRevision are what permissions were judged under; empty and 0
	// without authentication.
	User         string
	AuthRevision uint64
	// Wall is the proposer's wall clock in nanoseconds since 1970: stamped,
	// stored, never compared.
	Wall int64
	// IdempotencyKey is the client's own name for the request, or empty.
	IdempotencyKey string
	Needs          Version
}

// Outcome is what applying one command gave.
type Outcome struct {
	Origin Origin
	Term   id.Term
	Index  id.Index
	// Response is a *PutResponse, *DeleteRangeResponse, *TxnResponse,
	// *CompactResponse, *LeaseGrantResponse, *LeaseRevokeResponse,
	// *LeaseExpireResponse, *AlarmResponse, *AuthResponse, *DowngradeResponse or nil.
	Response any
	// Err is the command's refusal by the state, the same on every replica.
	Err error
}
