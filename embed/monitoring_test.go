package embed

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// Every command of the guide's page about monitoring is run.
func TestCommandsOfTheMonitoringPage(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	m := startMember(t, t.TempDir())
	page, err := os.ReadFile("../docs/guide/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	said := []string{`{"health":"true","reason":""}`, "[+]linearizable_read ok", "etcd_server_has_leader 1", `"revision":"2"`, `"value":"YmFy"`}
	ran := 0
	for _, block := range regexp.MustCompile("(?s)```\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		for _, line := range strings.Split(strings.TrimSpace(block[1]), "\n") {
			line = strings.ReplaceAll(line, "127.0.0.1:2379", m.client)
			out, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput()
			if err != nil || ran >= len(said) || !strings.Contains(string(out), said[ran]) {
				t.Errorf("%s: %v\n%.1000s", line, err, out)
			}
			ran++
		}
	}
	if ran != len(said) {
		t.Errorf("%d commands", ran)
	}
}
