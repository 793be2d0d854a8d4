package bench

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is what /proc says of a process; all zero when its PID is unknown (0).
type usage struct {
	// CPU is user and system time so far, in ticks of 10 ms.
	CPU time.Duration
	// Resident memory in bytes, mapped files included; Anonymous is the part without them.
	Resident, Anonymous int64
	// Peak of the resident memory since the start, or since resetPeak.
	Peak int64
}

// plus is the usage of two processes together.
func (u usage) plus(v usage) usage {
	return usage{u.CPU + v.CPU, u.Resident + v.Resident, u.Anonymous + v.Anonymous, u.Peak + v.Peak}
}

// clockTick is the length of a tick in /proc/PID/stat: USER_HZ is 100 on every
// Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// observe reads the usage of a process. It fails when there is no such process.
func observe(pid int) (usage, error) {
	if pid == 0 {
		return usage{}, nil
	}
	stat, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return usage{}, fmt.Errorf("process %d: %w", pid, err)
	}
	status, err := os.ReadFile(procFile(pid, "status"))
	if err != nil {
		return usage{}, fmt.Errorf("process %d: %w", pid, err)
	}
	u, err := parseUsage(string(stat), string(status))
	if err != nil {
		return usage{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return u, nil
}

func procFile(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

func parseUsage(stat, status string) (usage, error) {
	// The name may hold blanks and brackets: fields are counted after the last one.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return usage{}, errors.New("its stat is cut short")
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return usage{}, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return usage{}, err
	}
	u := usage{CPU: time.Duration(user+system) * clockTick}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		kilobytes, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			u.Resident = kilobytes << 10
		case "RssAnon":
			u.Anonymous = kilobytes << 10
		case "VmHWM":
			u.Peak = kilobytes << 10
		}
	}
	return u, nil
}

// resetPeak makes the peak of a process count from now. Without the right to do
// so the peak stays that of its whole life.
func resetPeak(pid int) {
	if pid != 0 {
		_ = os.WriteFile(procFile(pid, "clear_refs"), []byte("5"), 0)
	}
}
