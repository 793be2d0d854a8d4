package embed

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/telemetry"
)

// fields takes a datagram of the journal's protocol apart: NAME=VALUE, or the name, the
// value's length in 8 bytes, and the value, each with a line's end behind it.
func fields(t *testing.T, datagram []byte) map[string]string {
	t.Helper()
	all := map[string]string{}
	for len(datagram) > 0 {
		line, rest, _ := bytes.Cut(datagram, []byte("\n"))
		if name, value, one := strings.Cut(string(line), "="); one {
			all[name], datagram = value, rest
			continue
		}
		size := int(binary.LittleEndian.Uint64(rest))
		if len(rest) < 8+size+1 || rest[8+size] != '\n' {
			t.Fatalf("%q", datagram)
		}
		all[string(line)], datagram = string(rest[8:8+size]), rest[8+size+1:]
	}
	return all
}

// Each line is told to the journal with its priority, in either format; what it does not
// take, and all when it has gone, is not lost.
func TestTheJournalIsTold(t *testing.T) {
	dir, err := os.MkdirTemp("", "journal") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	instead := &lines{}
	j, err := openJournal(socket, instead)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	levels := []struct {
		level    slog.Level
		priority string
	}{{slog.LevelDebug, "7"}, {slog.LevelInfo, "6"}, {slog.LevelWarn, "4"}, {slog.LevelError, "3"}, {slog.LevelError + 12, "2"}}
	buf := make([]byte, 1<<16)
	for _, format := range []string{config.FormatJSON, config.FormatConsole} {
		parsed, err := telemetry.ParseFormat(format)
		if err != nil {
			t.Fatal(err)
		}
		log := telemetry.New(j, time.Now, parsed, slog.LevelDebug)
		for _, l := range levels {
			log.Log(t.Context(), l.level, "it is\nsaid", "k", 1)
			if err := listener.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := listener.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got := fields(t, buf[:n])
			if got["PRIORITY"] != l.priority || got["SYSLOG_IDENTIFIER"] != "etcd" || !strings.Contains(got["MESSAGE"], "said") || len(got) != 3 {
				t.Errorf("%s, level %v: %q", format, l.level, got)
			}
		}
	}
	if text := instead.String(); text != "" {
		t.Errorf("lines went elsewhere, too: %s", text)
	}
	log := slog.New(slog.NewTextHandler(j, nil))
	log.Info(strings.Repeat("x", 4<<20))
	listener.Close()
	log.Info("nobody listens")
	if !instead.has("xxx") || !instead.has("nobody listens") {
		t.Error("lines are lost")
	}
}

// Where there is no journal the lines go to standard error, and one says so.
func TestNoJournal(t *testing.T) {
	dir := t.TempDir()
	stderr := os.Stderr
	defer func() { os.Stderr = stderr }()
	file := filepath.Join(dir, "stderr")
	var err error
	if os.Stderr, err = os.Create(file); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.LogOutputs = []string{config.LogJournal}
	l, err := openLogsTo(&cfg, filepath.Join(dir, "none"))
	if err != nil {
		t.Fatal(err)
	}
	l.Info("a line")
	l.close()
	if text := readAll(t, file); strings.Count(text, "\n") != 2 || !strings.Contains(text, "no journal of systemd") || !strings.Contains(text, `"a line"`) {
		t.Errorf("standard error has %s", text)
	}
}
