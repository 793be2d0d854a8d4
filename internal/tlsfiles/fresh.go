package tlsfiles

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// fresh is what was last read from some files. Every get looks at the files and reads
// them when one is another than it was: another file by that name, another size,
// another time of change.
//
// What cannot be read or understood changes nothing: files that are replaced one after
// the other do not fit for a moment, and a mistake must not lock everybody out. It is
// tried again at the next get.
type fresh[T any] struct {
	what  string
	names []string
	parse func(texts [][]byte) (value T, attrs []any, err error)
	log   *slog.Logger

	mu     sync.Mutex
	value  T
	texts  [][]byte
	stamps []stamp
	told   string // the complaint that was logged last
}

// stamp is how a file looked when it was read.
type stamp struct {
	info os.FileInfo
	// settled says that the file had not been changed for a while by then: what
	// changes it later has another time.
	settled bool
}

// settling is how long after a change the time of the next one may be the same.
const settling = 2 * time.Second

// newFresh reads files for the first time. missing makes an error of one that could
// not be read.
func newFresh[T any](log *slog.Logger, what string, parse func([][]byte) (T, []any, error), missing func(error) error, names ...string) (*fresh[T], error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &fresh[T]{what: what, names: names, parse: parse, log: log}
	texts, stamps, err := f.read()
	if err != nil {
		return nil, missing(err)
	}
	if f.value, _, err = parse(texts); err != nil {
		return nil, err
	}
	f.texts, f.stamps = texts, stamps
	return f, nil
}

// get is what the files say now, or what they said when they were last good.
func (f *fresh[T]) get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unchanged() {
		return f.value
	}
	if err := f.take(); err != nil {
		if f.told != err.Error() {
			f.told = err.Error()
			f.log.Warn("cannot take up a changed "+f.what+"; the one that was read before stays in use",
				"files", strings.Join(f.names, ","), "error", err.Error())
		}
	} else {
		f.told = ""
	}
	return f.value
}

func (f *fresh[T]) unchanged() bool {
	for i, name := range f.names {
		was := &f.stamps[i]
		now, err := os.Stat(name)
		if err != nil || !was.settled || !os.SameFile(was.info, now) || !was.info.ModTime().Equal(now.ModTime()) || was.info.Size() != now.Size() {
			return false
		}
	}
	return true
}

// take reads the files and keeps what they say, if all of them are good.
func (f *fresh[T]) take() error {
	texts, stamps, err := f.read()
	if err != nil {
		return err
	}
	if !slices.EqualFunc(texts, f.texts, bytes.Equal) {
		value, attrs, err := f.parse(texts)
		if err != nil {
			return err
		}
		f.value, f.texts = value, texts
		f.log.Info("took up a changed "+f.what, append([]any{"files", strings.Join(f.names, ",")}, attrs...)...)
	}
	f.stamps = stamps
	return nil
}

// maxFile bounds what is read: no bundle of certificates is larger.
const maxFile = 16 << 20

func (f *fresh[T]) read() (texts [][]byte, stamps []stamp, err error) {
	for _, name := range f.names {
		before, err := os.Stat(name)
		if err != nil {
			return nil, nil, plainPath(err)
		}
		if before.Size() > maxFile {
			return nil, nil, errors.New(name + " is too large to be a file of certificates")
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, nil, plainPath(err)
		}
		texts = append(texts, text)
		stamps = append(stamps, stamp{before, time.Since(before.ModTime()) > settling})
	}
	return texts, stamps, nil
}

// plainPath has a missing file complained of as whoever opens it would.
func plainPath(err error) error {
	var path *os.PathError
	if errors.As(err, &path) && path.Op == "stat" {
		return &os.PathError{Op: "open", Path: path.Path, Err: path.Err}
	}
	return err
}
