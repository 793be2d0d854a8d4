//go:build !linux

package bench

import "io/fs"

// allocated is what a file takes on disk, as far as its length tells.
func allocated(info fs.FileInfo) int64 { return info.Size() }
