//go:build unix

package utl

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// share takes part in the lock of a file until it is closed: free is false while
// somebody has it alone.
func share(file *os.File) (free bool, err error) {
	err = unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
