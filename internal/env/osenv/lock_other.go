//go:build !linux

package osenv

import (
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lock falls back to Pebble's own lock, which belongs to the process and tells
// two spellings of one path apart.
func lock(name string) (io.Closer, error) { return vfs.Default.Lock(name) }
