package ctl

import (
	"os"

	"golang.org/x/sys/unix"
)

// isTerminal says whether somebody may be looking.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
