package telemetry

import (
	"fmt"
	"log/slog"
)

// Levels above slog's own. They only name a line: whoever logs a fatal line
// ends the process itself.
const (
	LevelDPanic slog.Level = 10
	LevelPanic  slog.Level = 12
	LevelFatal  slog.Level = 16
)

// ParseLevel reads a word of --log-level.
func ParseLevel(word string) (slog.Level, error) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError, LevelDPanic, LevelPanic, LevelFatal} {
		if levelName(l) == word {
			return l, nil
		}
	}
	return 0, fmt.Errorf("unrecognized level: %q", word)
}

// ParseFormat reads a word of --log-format.
func ParseFormat(word string) (Format, error) {
	switch word {
	case "json":
		return JSON, nil
	case "console":
		return Console, nil
	}
	return 0, fmt.Errorf("unknown log format: %q", word)
}

// levelName is the word for the highest level that is not above l.
func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	case l < LevelDPanic:
		return "error"
	case l < LevelPanic:
		return "dpanic"
	case l < LevelFatal:
		return "panic"
	}
	return "fatal"
}
