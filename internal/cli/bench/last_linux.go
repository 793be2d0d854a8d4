package bench

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// goLast lets every other process go before this one, from now on. Linux has a
// priority for each thread, which those that it starts later inherit.
func goLast() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		number, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, number, 19); err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}
