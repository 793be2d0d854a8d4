//go:build !linux

package ctl

import (
	"errors"
	"io"
)

// readPassword refuses: this system's terminal cannot be told to be silent here.
func readPassword(io.Reader, io.Writer, string) (string, error) {
	return "", errors.New("give the password by --password or as --user name:password")
}
