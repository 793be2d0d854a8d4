package env

import "errors"

// ErrLocked is what FS.Lock fails with when somebody holds the lock already,
// another process or this one. Match it with errors.Is.
var ErrLocked = errors.New("locked by another process")
