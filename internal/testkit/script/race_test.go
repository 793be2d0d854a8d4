package script

import (
	"fmt"
	"os/exec"
	"testing"
)

// failing is a test that remembers that it failed.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Errorf(string, ...any) { f.failed = true }

// A program that the race detector has ended fails its test, and no other end does.
func TestARaceFailsTheTest(t *testing.T) {
	for code, want := range map[int]bool{0: false, 1: false, raceCode: true} {
		cmd := exec.Command("sh", "-c", fmt.Sprint("exit ", code))
		f := &failing{TB: t}
		if ReportRace(f, cmd); f.failed {
			t.Errorf("code %d: failed before it ended", code)
		}
		_ = cmd.Run()
		if ReportRace(f, cmd); f.failed != want {
			t.Errorf("code %d: failed %v, want %v", code, f.failed, want)
		}
	}
}
