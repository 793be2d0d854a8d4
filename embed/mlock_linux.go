package embed

import "golang.org/x/sys/unix"

// lockMemory keeps every page that is touched from now on in memory.
func lockMemory() error { return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT) }
