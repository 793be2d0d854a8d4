//go:build !linux

package ctl

import "os"

// isTerminal cannot be told here: nothing moves on the screen then.
func isTerminal(*os.File) bool { return false }
