package osenv

import (
	crand "crypto/rand"

	"golang.org/x/sys/unix"
)

// Secret returns random bytes, at most a page of them, that lie outside of what
// becomes an image of the process: in memory of memfd_secret, which not even the kernel
// maps, or else in a page that is not swapped and is left out of core dumps. It is never
// given back.
func Secret(size int) []byte {
	page := hidden(size)
	crand.Read(page) // never fails: the runtime ends the process instead
	return page
}

func hidden(size int) []byte {
	if fd, err := unix.MemfdSecret(unix.O_CLOEXEC); err == nil {
		defer unix.Close(fd)
		if err := unix.Ftruncate(fd, int64(size)); err == nil {
			if page, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
				return page
			}
		}
	}
	page, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return make([]byte, size)
	}
	// What the system does not allow leaves a page like any other.
	_ = unix.Mlock(page)
	_ = unix.Madvise(page, unix.MADV_DONTDUMP)
	return page
}
