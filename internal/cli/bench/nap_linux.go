package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// nap sleeps for at most d, without Go's timers. A signal may cut it short.
func nap(d time.Duration) {
	wish := unix.NsecToTimespec(int64(d))
	_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &wish, nil)
}
