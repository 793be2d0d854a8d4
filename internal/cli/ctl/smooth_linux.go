package ctl

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// smooth has the disk begin with the bytes of a file from a place to another, and waits for
// those before it: what gathers in the system's memory would go there all at once in the
// end, and whoever else syncs on that disk, a member perhaps, would wait behind it.
// Errors: those of writing, which a later sync would not tell again.
func smooth(file *os.File, before, from, to int64) error {
	err := unix.SyncFileRange(int(file.Fd()), from, to-from, unix.SYNC_FILE_RANGE_WRITE)
	if err == nil && before < from {
		err = unix.SyncFileRange(int(file.Fd()), before, from-before,
			unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	}
	for _, none := range []error{unix.ENOSYS, unix.EOPNOTSUPP, unix.EINVAL, unix.ESPIPE} {
		if errors.Is(err, none) {
			return nil // no such file system
		}
	}
	return err
}
