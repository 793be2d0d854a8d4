// Package invariant states what must be true. A broken invariant means that the
// process no longer knows what it does, so it ends: the group survives without
// this replica, a wrong answer does not.
package invariant

import "fmt"

// Violation is the value that a failed Check panics with, so that a test or the
// simulator can tell a broken promise from any other panic.
type Violation struct{ Message string }

// Error makes a Violation printable as an error.
func (v Violation) Error() string { return "invariant violated: " + v.Message }

// Check ends the process with a Violation unless ok. The message is formatted
// only on failure, but its arguments are made at every call, which may allocate:
// a hot path asks first and then calls Fail.
func Check(ok bool, format string, args ...any) {
	if !ok {
		Fail(format, args...)
	}
}

// Fail ends the process with a Violation.
func Fail(format string, args ...any) {
	panic(Violation{fmt.Sprintf(format, args...)})
}
