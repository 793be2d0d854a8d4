package script

import (
	"os"
	"os/exec"
	"testing"
)

const (
	// raceVariable has the options of Go's race detector, which a process reads as it starts.
	raceVariable = "GORACE"
	// raceCode is the exit code of a process that the detector ends.
	raceCode = 66
)

// WatchChildren sets the options of the race detector for the programs that a test
// binary starts, where nobody has set them: a race ends the process at once, so that no
// story goes on as if nothing had been found, and no process waits at its end (for a
// second by default) for what its other goroutines may still do. Programs that were
// built without the detector do not look at it.
func WatchChildren() {
	if _, given := os.LookupEnv(raceVariable); !given {
		_ = os.Setenv(raceVariable, "halt_on_error=1 atexit_sleep_ms=0")
	}
}

// ReportRace fails the test of a program that was waited for and that the race
// detector has ended.
func ReportRace(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == raceCode {
		t.Errorf("the race detector has ended %s", cmd)
	}
}
