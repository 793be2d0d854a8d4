package embed

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/rpc"
)

func readAll(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func openLogs(t *testing.T, change func(*Config)) *logs {
	t.Helper()
	cfg := config.Default()
	change(&cfg)
	l, err := openLog(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

// Every file gets every line; one that was moved away is begun anew when the outputs
// are opened again.
func TestLogFilesAreOpenedAgain(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	l := openLogs(t, func(c *Config) { c.LogOutputs = []string{one, two} })
	l.Info("first")
	if err := os.Rename(one, one+".1"); err != nil {
		t.Fatal(err)
	}
	l.Info("second")
	l.reopen()
	l.Info("third")
	for name, want := range map[string]string{one + ".1": "first second", one: "received third", two: "first second received third"} {
		var said []string
		for _, line := range strings.Split(strings.TrimSpace(readAll(t, name)), "\n") {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Fatalf("%s: %s", name, line)
			}
			said = append(said, strings.Fields(strings.ReplaceAll(fields["msg"].(string), ";", ""))[0])
		}
		if got := strings.Join(said, " "); got != want {
			t.Errorf("%s: %s, want %s", filepath.Base(name), got, want)
		}
	}
	if info, err := os.Stat(one); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// A file of more than a megabyte moves itself away.
func TestLogRotation(t *testing.T) {
	dir := t.TempDir()
	l := openLogs(t, func(c *Config) {
		c.LogOutputs, c.EnableLogRotation, c.LogRotation = []string{filepath.Join(dir, "log")}, true, `{"maxsize": 1, "maxbackups": 5}`
	})
	long := strings.Repeat("x", 100_000)
	for range 25 {
		l.Info(long)
	}
	files, err := filepath.Glob(filepath.Join(dir, "log*"))
	if err != nil || len(files) != 3 {
		t.Errorf("%v, %v", files, err)
	}
	lines := 0
	for _, f := range files {
		text := readAll(t, f)
		if len(text) > 1<<20 {
			t.Errorf("%s has %d bytes", f, len(text))
		}
		lines += strings.Count(text, "\n")
	}
	if lines != 25 {
		t.Errorf("%d lines", lines)
	}
}

func TestLogRotationIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"maxsize": `:     "improperly formatted log rotation config: unexpected end of JSON input",
		`{"maxsize": "1"}`: "invalid log rotation config: json: cannot unmarshal string into Go struct field Logger.maxsize of type int",
	} {
		cfg := config.Default()
		cfg.LogOutputs, cfg.EnableLogRotation, cfg.LogRotation = []string{filepath.Join(t.TempDir(), "log")}, true, text
		if _, err := openLog(&cfg); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What takes longer than it may is told with what it waited for, and the rest is
// counted: a log is not flooded.
func TestSlowRequestsAreTold(t *testing.T) {
	lines := newTold()
	dir := t.TempDir()
	cfg, client := configFor(t, dir, "--warning-unary-request-duration", "1ns", "--warning-apply-duration", "1ns")
	s, err := Start(cfg, slog.New(lines))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := &member{Server: s, client: client}
	post(t, m, "/v3/kv/put", `{"key":"YQ=="}`)
	for _, msg := range []string{"request stats", "apply request took too long"} {
		for begun := time.Now(); lines.count(msg) == 0; time.Sleep(time.Millisecond) {
			if time.Since(begun) > 10*time.Second {
				t.Fatalf("nobody says %q", msg)
			}
		}
	}
	for range 10 * slowKept {
		s.slowCall(rpc.SlowCall{Method: "/a/b", Took: time.Second})
		s.slowApply(1, host.SlowApply{})
	}
	if n := s.slow.unsaid.Load(); n == 0 {
		t.Error("nothing was left out")
	}
}

func TestTheCauseOfASlowRequest(t *testing.T) {
	m := startMember(t, t.TempDir())
	for _, c := range []struct {
		took, sync, apply time.Duration
		want              string
	}{
		{time.Second, 600 * time.Millisecond, 0, "the disk was slow to sync the log"},
		{time.Second, 0, 500 * time.Millisecond, "applying was slow"},
		{time.Second, time.Second, time.Second, "the disk was slow to sync the log; applying was slow"},
		{time.Second, time.Millisecond, time.Millisecond, "there was much to do"},
	} {
		if got := m.cause(c.took, c.sync, c.apply); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
