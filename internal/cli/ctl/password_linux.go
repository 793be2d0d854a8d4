package ctl

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// readPassword asks for a line on in. A terminal does not show what is typed;
// anything else is read as it is.
func readPassword(in io.Reader, out io.Writer, prompt string) (string, error) {
	fmt.Fprint(out, prompt)
	if f, ok := in.(*os.File); ok {
		if before, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			silent := *before
			silent.Lflag &^= unix.ECHO
			if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &silent); err != nil {
				return "", err
			}
			defer func() {
				_ = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, before)
				fmt.Fprintln(out)
			}()
		}
	}
	return readLine(in)
}
