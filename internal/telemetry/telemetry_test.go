package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/id"
)

// noon is in a zone whose offset is not whole hours, with nanoseconds that the
// layout must cut and zeros that it must keep.
func noon() time.Time {
	return time.Date(2026, 11, 21, 12, 0, 0, 120_000_999, time.FixedZone("", 5*3600+1800))
}

// logged returns what the story writes, with the line number of the caller
// replaced by 0.
func logged(format Format, lowest slog.Level, story func(*slog.Logger)) string {
	var b bytes.Buffer
	story(New(&b, noon, format, lowest))
	return regexp.MustCompile(`_test\.go:\d+`).ReplaceAllString(b.String(), "_test.go:0")
}

type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }

func story(l *slog.Logger) {
	l.Info("ready to serve client requests")
	l.Warn("it said \"no\"\n\tbad byte \xff, bell \a, é", "path", `c:\x`)
	l.Error("kinds", "int", -5, "uint", uint64(math.MaxUint64), "float", 0.25, "nan", math.NaN(), "bool", true, "took", 1500*time.Microsecond, "at", noon(),
		"error", errors.New("broken"), "member", id.Member(0x8e9e05c52164694d), "urls", []string{"http://a:1", "http://b:2"},
		"empty", []string(nil), "nothing", nil, "map", map[string]int{"b": 2, "a": 1}, "typed nil", error((*brokenError)(nil)), "func", noon)
	l.With("a", 1).With("b", "2").Info("with")
	l.WithGroup("g").With("a", 1).WithGroup("h").Info("groups", "b", 2, slog.Group("i", "c", 3), slog.Group("none"))
	l.WithGroup("g").WithGroup("h").Info("no field, no group")
	l.With(slog.Group("", "x", 1)).Info("inlined")
	l.Log(context.Background(), LevelFatal, "the end")
	l.Debug("not seen")
}

func TestJSONLines(t *testing.T) {
	const head = `,"ts":"2026-11-21T12:00:00.120000+0530","caller":"telemetry/telemetry_test.go:0","msg":`
	want := `{"level":"info"` + head + `"ready to serve client requests"}
{"level":"warn"` + head + `"it said \"no\"\n\tbad byte ` + "\ufffd" + `, bell \u0007, é","path":"c:\\x"}
{"level":"error"` + head + `"kinds","int":-5,"uint":18446744073709551615,"float":0.25,"nan":"NaN","bool":true,"took":"1.5ms","at":"2026-11-21T12:00:00.120000+0530",` +
		`"error":"broken","member":"8e9e05c52164694d","urls":["http://a:1","http://b:2"],"empty":[],"nothing":null,"map":{"a":1,"b":2},` +
		`"typed nil":"panic while logging *telemetry.brokenError: runtime error: invalid memory address or nil pointer dereference","func":"FUNC"}
{"level":"info"` + head + `"with","a":1,"b":"2"}
{"level":"info"` + head + `"groups","g":{"a":1,"h":{"b":2,"i":{"c":3}}}}
{"level":"info"` + head + `"no field, no group"}
{"level":"info"` + head + `"inlined","x":1}
{"level":"fatal"` + head + `"the end"}
`
	got := regexp.MustCompile(`"func":"0x[0-9a-f]+"`).ReplaceAllString(logged(JSON, slog.LevelInfo, story), `"func":"FUNC"`)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, line := range strings.Split(strings.TrimSpace(got), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

func TestConsoleLines(t *testing.T) {
	got := logged(Console, slog.LevelInfo, func(l *slog.Logger) {
		l.Info("ready")
		l.With("a", 1).Warn("two\nlines", "b", "x y", slog.Group("g", "c", []string{"d", "e"}))
	})
	const caller = "telemetry/telemetry_test.go:0"
	want := "2026-11-21T12:00:00.120000+0530\tinfo\t" + caller + "\tready\n" +
		"2026-11-21T12:00:00.120000+0530\twarn\t" + caller + "\ttwo\\nlines\t{\"a\": 1, \"b\": \"x y\", \"g\": {\"c\": [\"d\", \"e\"]}}\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestUTCIsZ(t *testing.T) {
	var b bytes.Buffer
	New(&b, func() time.Time { return time.Unix(0, 0).UTC() }, JSON, slog.LevelInfo).Info("x")
	if !strings.Contains(b.String(), `"ts":"1970-01-01T00:00:00.000000Z"`) {
		t.Error(b.String())
	}
}

// The words that config accepts are the words that telemetry understands.
func TestLevelsAndFormatsOfConfig(t *testing.T) {
	for _, word := range []string{"debug", "info", "warn", "error", "dpanic", "panic", "fatal", "loud"} {
		c := config.Default()
		c.LogLevel = word
		_, err := ParseLevel(word)
		if (c.Validate() == nil) != (err == nil) {
			t.Errorf("%s: config %v, telemetry %v", word, c.Validate(), err)
		}
	}
	for _, word := range []string{config.FormatJSON, config.FormatConsole, "xml"} {
		c := config.Default()
		c.LogFormat = word
		_, err := ParseFormat(word)
		if (c.Validate() == nil) != (err == nil) {
			t.Errorf("%s: config %v, telemetry %v", word, c.Validate(), err)
		}
	}
}

func TestLowestLevel(t *testing.T) {
	lowest, err := ParseLevel("error")
	if err != nil {
		t.Fatal(err)
	}
	got := logged(JSON, lowest, func(l *slog.Logger) { l.Warn("no"); l.Error("yes"); l.Log(context.Background(), LevelPanic, "too") })
	if strings.Count(got, "\n") != 2 || strings.Contains(got, `"no"`) {
		t.Error(got)
	}
}

// slog's own rules for handlers, with our names for its keys. Our time is the
// clock's, so the test for records without a time does not apply.
func TestSlogRules(t *testing.T) {
	var b bytes.Buffer
	slogtest.Run(t, func(t *testing.T) slog.Handler {
		if strings.HasSuffix(t.Name(), "/zero-time") {
			t.Skip("ts is on every line")
		}
		b.Reset()
		return New(&b, noon, JSON, slog.LevelDebug).Handler()
	}, func(t *testing.T) map[string]any {
		m := map[string]any{}
		if err := json.Unmarshal(b.Bytes(), &m); err != nil {
			t.Fatalf("%s: %v", b.String(), err)
		}
		m[slog.TimeKey] = m["ts"]
		return m
	})
}

// A writer that would show torn or mixed lines.
type lineWriter struct {
	t     *testing.T
	lines int
}

func (w *lineWriter) Write(p []byte) (int, error) {
	if !json.Valid(p) || p[len(p)-1] != '\n' {
		w.t.Errorf("not one line: %q", p)
	}
	w.lines++
	return len(p), nil
}

func TestLinesAreWholeUnderConcurrency(t *testing.T) {
	w := &lineWriter{t: t}
	l := New(w, noon, JSON, slog.LevelInfo)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			own := l.With("writer", i)
			for n := range 100 {
				own.Info(strings.Repeat("x", n), "n", n)
			}
		}()
	}
	wg.Wait()
	if w.lines != 800 {
		t.Errorf("%d lines", w.lines)
	}
}

func TestFailedWriteIsReported(t *testing.T) {
	r, w := io.Pipe()
	r.Close()
	h := New(w, noon, JSON, slog.LevelInfo).Handler()
	if err := h.Handle(context.Background(), slog.Record{Message: "x"}); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("msg", "key", "value", 1.5)
	f.Add("", "", "\x00\x7f\u2028", math.Inf(1))
	f.Fuzz(func(t *testing.T, msg, key, value string, number float64) {
		for _, format := range []Format{JSON, Console} {
			var b bytes.Buffer
			New(&b, noon, format, slog.LevelInfo).With(key, value).WithGroup(key).Info(msg, key, number, "s", []string{value})
			line := b.Bytes()
			if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
				t.Fatalf("not one line: %q", line)
			}
			if format == JSON && !json.Valid(line) {
				t.Fatalf("not JSON: %q", line)
			}
		}
	})
}

func BenchmarkLine(b *testing.B) {
	l := New(io.Discard, noon, JSON, slog.LevelInfo).With("member", "8e9e05c52164694d")
	b.ReportAllocs()
	for b.Loop() {
		l.Info("slow request", "took", time.Second, "revision", 5)
	}
}
