//go:build !linux

package embed

import "errors"

// lockMemory is for Linux only.
func lockMemory() error { return errors.ErrUnsupported }
