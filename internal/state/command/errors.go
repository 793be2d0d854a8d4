package command

import (
	"errors"
	"fmt"
)

// What the key-value store refuses. The texts are those that etcd's clients
// compare (spec 1.3); the doors map the values to codes with errors.Is.
var (
	ErrEmptyKey       = errors.New("etcdserver: key is not provided")
	ErrKeyNotFound    = errors.New("etcdserver: key not found")
	ErrValueProvided  = errors.New("etcdserver: value is provided")
	ErrLeaseProvided  = errors.New("etcdserver: lease is provided")
	ErrTooManyOps     = errors.New("etcdserver: too many operations in txn request")
	ErrDuplicateKey   = errors.New("etcdserver: duplicate key given in txn request")
	ErrBadSort        = errors.New("etcdserver: invalid sort option")
	ErrStreamSort     = errors.New("RangeStream does not support custom sort orders")
	ErrStreamFilter   = errors.New("RangeStream does not support revision filters")
	ErrCompacted      = errors.New("etcdserver: mvcc: required revision has been compacted")
	ErrFutureRevision = errors.New("etcdserver: mvcc: required revision is a future revision")
	ErrLeaseNotFound  = errors.New("etcdserver: requested lease not found")
)

// ErrMalformed is wrapped by the error of every command or batch whose bytes
// are not what an encoder of format version 1 writes.
var ErrMalformed = errors.New("command: malformed")

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// UnknownError says that a command is of a format version, kind or class that
// this program does not know. It stops the member: a command is never skipped
// (rule 18).
type UnknownError struct {
	// What is "format version", "kind" or "class".
	What   string
	Number uint64
}

// Error names what is unknown.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("command: unknown %s %d: written by a newer version of this program?", e.What, e.Number)
}
