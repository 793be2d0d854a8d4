package mvcc

import (
	"errors"
	"fmt"
)

// DamageError says that a row which must be there is missing or is not what this
// program writes, or that the engine could not read it. The data asked for is
// not known; nothing is ever served in its place.
type DamageError struct {
	// Row names the row, or the walk that failed.
	Row string
	Err error
}

// Error names the row.
func (e *DamageError) Error() string { return fmt.Sprintf("mvcc: row %s: %v", e.Row, e.Err) }

// Unwrap returns what the engine or the decoder said.
func (e *DamageError) Unwrap() error { return e.Err }

// ErrReplaced ends a read whose state was replaced by a snapshot meanwhile; the
// next View can be read.
var ErrReplaced = errors.New("mvcc: state was replaced by a snapshot during the read")
