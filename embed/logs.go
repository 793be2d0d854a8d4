package embed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/grpclog"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/telemetry"
)

// logs are the outputs of a process's log.
type logs struct {
	*slog.Logger
	files []logOutput
}

// logOutput is a file that can be opened again, after somebody has moved it away.
type logOutput interface {
	io.WriteCloser
	Reopen() error
}

// openLog opens the outputs that the configuration names.
func openLog(cfg *Config) (*logs, error) { return openLogTo(cfg, systemdJournal) }

// openLogTo is openLog with another journal than systemd's.
func openLogTo(cfg *Config, journal journald) (_ *logs, err error) {
	l := &logs{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	var outputs []io.Writer
	noJournal := false
	for _, name := range cfg.LogOutputs {
		switch name {
		case config.LogDefault, "stderr":
			outputs = append(outputs, os.Stderr)
		case "stdout":
			outputs = append(outputs, os.Stdout)
		case config.LogJournal:
			if noJournal = !journal.enabled(); noJournal {
				outputs = append(outputs, os.Stderr)
			} else {
				outputs = append(outputs, &journalOutput{journal, os.Stderr})
			}
		default:
			file, err := openOutput(cfg, name)
			if err != nil {
				return nil, err
			}
			l.files, outputs = append(l.files, file), append(outputs, file)
		}
	}
	level, err := telemetry.ParseLevel(cfg.LogLevel)
	if err != nil {
		return nil, err
	}
	format, err := telemetry.ParseFormat(cfg.LogFormat)
	if err != nil {
		return nil, err
	}
	l.Logger = telemetry.New(io.MultiWriter(outputs...), time.Now, format, level)
	if noJournal {
		l.Warn("there is no journal of systemd here; its lines go to standard error", "output", config.LogJournal)
	}
	return l, nil
}

// openOutput opens a file, one that is rotated if that is wanted.
func openOutput(cfg *Config, name string) (logOutput, error) {
	if !cfg.EnableLogRotation {
		f := &logFile{name: name}
		if err := f.Reopen(); err != nil {
			return nil, fmt.Errorf("cannot open the log output: %w", err)
		}
		return f, nil
	}
	r := rotated{&lumberjack.Logger{}}
	if err := r.configure(cfg.LogRotation); err != nil {
		return nil, err
	}
	r.Filename = name
	// It opens its file with the first line: what is wrong shall be known now.
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log output: %w", err)
	}
	return r, f.Close()
}

// close closes the files. Lines written afterwards are lost, but for those that also
// go elsewhere.
func (l *logs) close() {
	for _, f := range l.files {
		f.Close()
	}
}

// followSignals opens the files again at every SIGHUP: who rotates logs from outside
// has moved them away then.
func (l *logs) followSignals() {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			l.reopen()
		}
	}()
}

func (l *logs) reopen() {
	for _, f := range l.files {
		if err := f.Reopen(); err != nil {
			l.Error("the log output could not be opened again; what was open stays in use", "error", err.Error())
		}
	}
	l.Info("received signal; opened the log outputs again", "signal", syscall.SIGHUP.String(), "files", len(l.files))
}

// silenceLibraries has what gRPC's client says of errors told as debugging, in lines
// of our form: callers are told of errors by themselves.
func (l *logs) silenceLibraries() {
	errors := slog.NewLogLogger(l.Handler(), slog.LevelDebug).Writer()
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, errors))
}

// logFile is a file that lines are appended to.
type logFile struct {
	name string
	mu   sync.Mutex
	f    *os.File
}

// Write appends a line.
func (l *logFile) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Write(line)
}

// Reopen opens the file of this name, whichever it is now. On an error the file that
// was open stays.
func (l *logFile) Reopen() error {
	next, err := os.OpenFile(l.name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	l.mu.Lock()
	before := l.f
	l.f = next
	l.mu.Unlock()
	if before != nil {
		return before.Close()
	}
	return nil
}

// Close closes the file.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}

// rotated is a file that moves itself away when it is large.
type rotated struct{ *lumberjack.Logger }

// configure reads --log-rotation-config-json: sizes in MB, ages in days.
func (r rotated) configure(text string) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch err := json.Unmarshal([]byte(text), r.Logger); {
	case errors.As(err, &syntax):
		return fmt.Errorf("improperly formatted log rotation config: %w", err)
	case errors.As(err, &kind):
		return fmt.Errorf("invalid log rotation config: %w", err)
	case err != nil:
		return fmt.Errorf("fail to unmarshal log rotation config: %w", err)
	}
	return nil
}

// Reopen has the next line go into the file of this name, whichever it is then.
func (r rotated) Reopen() error { return r.Logger.Close() }
