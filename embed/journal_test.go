package embed

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/telemetry"
)

// Each line is told to the journal with its priority, in either format; what it does not
// take is not lost.
func TestTheJournalIsTold(t *testing.T) {
	type entry struct {
		message  string
		priority journal.Priority
		vars     map[string]string
	}
	var told []entry
	gone := false
	instead := &lines{}
	j := &journalOutput{instead: instead, journald: journald{send: func(message string, priority journal.Priority, vars map[string]string) error {
		if gone {
			return errors.New("nobody listens")
		}
		told = append(told, entry{message, priority, vars})
		return nil
	}}}
	levels := []struct {
		level    slog.Level
		priority journal.Priority
	}{
		{slog.LevelDebug, journal.PriDebug}, {slog.LevelInfo, journal.PriInfo}, {slog.LevelWarn, journal.PriWarning},
		{slog.LevelError, journal.PriErr}, {slog.LevelError + 12, journal.PriCrit},
	}
	for _, format := range []string{config.FormatJSON, config.FormatConsole} {
		parsed, err := telemetry.ParseFormat(format)
		if err != nil {
			t.Fatal(err)
		}
		log := telemetry.New(j, time.Now, parsed, slog.LevelDebug)
		for _, l := range levels {
			told = nil
			log.Log(t.Context(), l.level, "it is\nsaid", "k", 1)
			if len(told) != 1 {
				t.Fatalf("%s, level %v: told %+v", format, l.level, told)
			}
			got := told[0]
			if got.priority != l.priority || got.vars["SYSLOG_IDENTIFIER"] != "etcd" || !strings.Contains(got.message, "said") || strings.HasSuffix(got.message, "\n") {
				t.Errorf("%s, level %v: %+v", format, l.level, got)
			}
		}
	}
	if text := instead.String(); text != "" {
		t.Errorf("lines went elsewhere, too: %s", text)
	}
	gone = true
	slog.New(slog.NewTextHandler(j, nil)).Info("a line for nobody")
	if !instead.has("a line for nobody") {
		t.Error("a line is lost")
	}
}

// Where there is no journal the lines go to standard error, and one says so.
func TestNoJournal(t *testing.T) {
	stderr := os.Stderr
	defer func() { os.Stderr = stderr }()
	file := filepath.Join(t.TempDir(), "stderr")
	var err error
	if os.Stderr, err = os.Create(file); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.LogOutputs = []string{config.LogJournal}
	l, err := openLogTo(&cfg, journald{enabled: func() bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	l.Info("a line")
	l.close()
	if text := readAll(t, file); strings.Count(text, "\n") != 2 || !strings.Contains(text, "no journal of systemd") || !strings.Contains(text, `"a line"`) {
		t.Errorf("standard error has %s", text)
	}
}
