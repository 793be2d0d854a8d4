package bench

import (
	"io/fs"
	"syscall"
)

// allocated is what a file takes on disk: st_blocks counts units of 512 bytes.
func allocated(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return info.Size()
}
