//go:build defects

package sim

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/defect"
)

// A world that fails is shrunk to one with less in it that fails too, and the
// command that the story ends with runs the smaller world again.
func TestDefectStoryIsShrunk(t *testing.T) {
	defer defect.Plant(defect.None)
	args := []string{"--defect", "vote-for-shorter-log", "--replicas", "3", "--shrink", "--count", "20"}
	var out bytes.Buffer
	if code := Main(args, &out, noClock); code != 1 {
		t.Fatalf("code %d:\n%.3000s", code, &out)
	}
	told := out.String()
	if lines := strings.Count(told, "\n"); lines > 500 {
		t.Errorf("the story has %d lines", lines)
	}
	if strings.Contains(told, "went another way") || strings.Contains(told, " sync done") {
		t.Errorf("no brief story of one world:\n%.3000s", told)
	}
	_, again, found := strings.Cut(told, "go run -tags defects ./cmd/simulate ")
	if !found || !strings.Contains(again, "--without ") {
		t.Fatalf("says not how to see it again:\n%s", told)
	}
	_, why, _ := strings.Cut(told, "  FAILED: ")
	why, _, _ = strings.Cut(why, "\n")
	out.Reset()
	if code := Main(strings.Fields(again), &out, noClock); code != 1 || !strings.Contains(out.String(), why) {
		t.Errorf("again: code %d, without %q:\n%.3000s", code, why, &out)
	}
}
