package osenv

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kvorum/kvorum/internal/env"
)

// lock takes an open-file-description lock (fcntl(2), F_OFD_SETLK). The classic
// record lock belongs to the process: a second one in the same process succeeds,
// and closing any other descriptor of the file drops it. This one has neither
// flaw, still excludes classic locks of other programs, and ends with the
// process. The file is not truncated, since somebody may hold it.
func lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	whole := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &whole)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		err = env.ErrLocked
	}
	return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
}
