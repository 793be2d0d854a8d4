// Package telemetry turns what a member does into log lines. A line carries
// level, ts, caller and msg, in this order, and then its fields: the layout
// that the tools around etcd read (rule 36; spec/server-ops.md section 8).
//
// The package opens nothing and reads no clock: it is handed an io.Writer and
// a function that tells the time.
package telemetry

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Format is the layout of a line.
type Format uint8

const (
	// JSON is one object on each line.
	JSON Format = iota
	// Console is tab-separated: time, level, caller, message, fields.
	Console
)

// timeLayout is RFC 3339 with microseconds and a zone without a colon.
const timeLayout = "2006-01-02T15:04:05.000000Z0700"

// New returns a logger that writes whole lines to w, one Write for each, never
// two at once. now gives the time and its zone.
func New(w io.Writer, now func() time.Time, format Format, lowest slog.Level) *slog.Logger {
	return slog.New(&handler{sink: &sink{w: w}, now: now, format: format, lowest: lowest})
}

// sink is where lines end; handlers made from one another share it.
type sink struct {
	mu sync.Mutex
	w  io.Writer
}

// handler is a slog.Handler. It is immutable: WithAttrs and WithGroup copy.
type handler struct {
	sink   *sink
	now    func() time.Time
	format Format
	lowest slog.Level
	// fields are the attributes given so far, encoded; open groups in them are
	// still to be closed.
	fields []byte
	open   int
	// pending are groups that have no attribute yet: an empty one is not written.
	pending []string
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.lowest }

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	e := encoder{buf: append([]byte(nil), h.fields...), spaced: h.format == Console}
	if !e.fields(h.pending, attrs) {
		return h
	}
	n := *h
	n.fields, n.open, n.pending = e.buf, h.open+len(h.pending), nil
	return &n
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	n := *h
	n.pending = append(append([]string(nil), h.pending...), name)
	return &n
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// maxPooled keeps one huge line from living for ever.
const maxPooled = 64 << 10

// Handle implements slog.Handler. The time is the handler's, not the record's.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	p := buffers.Get().(*[]byte)
	e := encoder{buf: (*p)[:0], spaced: h.format == Console}
	if h.format == Console {
		h.console(&e, r)
	} else {
		h.json(&e, r)
	}
	e.buf = append(e.buf, '\n')

	h.sink.mu.Lock()
	_, err := h.sink.w.Write(e.buf)
	h.sink.mu.Unlock()

	if cap(e.buf) <= maxPooled {
		*p = e.buf
		buffers.Put(p)
	}
	return err
}

func (h *handler) json(e *encoder, r slog.Record) {
	e.buf = append(e.buf, `{"level":"`...)
	e.buf = append(e.buf, levelName(r.Level)...)
	e.buf = append(e.buf, `","ts":"`...)
	e.buf = h.now().AppendFormat(e.buf, timeLayout)
	e.buf = append(e.buf, `","caller":`...)
	e.quote(caller(r.PC))
	e.buf = append(e.buf, `,"msg":`...)
	e.quote(r.Message)
	h.rest(e, r)
	e.buf = append(e.buf, '}')
}

func (h *handler) console(e *encoder, r slog.Record) {
	e.buf = h.now().AppendFormat(e.buf, timeLayout)
	e.buf = append(e.buf, '\t')
	e.buf = append(e.buf, levelName(r.Level)...)
	e.buf = append(e.buf, '\t')
	e.buf = append(e.buf, caller(r.PC)...)
	e.buf = append(e.buf, '\t')
	e.line(r.Message)
	mark := len(e.buf)
	e.buf = append(e.buf, "\t{"...)
	h.rest(e, r)
	if len(e.buf) == mark+2 {
		e.buf = e.buf[:mark]
		return
	}
	e.buf = append(e.buf, '}')
}

// rest writes the fields of the handler and of the record, and closes the
// groups of both.
func (h *handler) rest(e *encoder, r slog.Record) {
	if len(h.fields) > 0 {
		e.separate()
		e.buf = append(e.buf, h.fields...)
	}
	open := h.open
	if r.NumAttrs() > 0 {
		var few [8]slog.Attr
		attrs := few[:0]
		r.Attrs(func(a slog.Attr) bool { attrs = append(attrs, a); return true })
		if e.fields(h.pending, attrs) {
			open += len(h.pending)
		}
	}
	for range open {
		e.buf = append(e.buf, '}')
	}
}

// caller is the last directory, file and line of the call.
func caller(pc uintptr) string {
	if pc == 0 {
		return "undefined"
	}
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	file := frame.File
	if i := strings.LastIndexByte(file, '/'); i > 0 {
		if j := strings.LastIndexByte(file[:i], '/'); j >= 0 {
			file = file[j+1:]
		}
	}
	return file + ":" + strconv.Itoa(frame.Line)
}
