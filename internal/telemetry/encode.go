package telemetry

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// encoder appends JSON to buf. It decides about commas by the last byte
// written: none after an opening brace or bracket or at the very start.
type encoder struct {
	buf    []byte
	spaced bool // ": " and ", ", as console lines have them
}

func (e *encoder) separate() {
	if n := len(e.buf); n == 0 || e.buf[n-1] == '{' || e.buf[n-1] == '[' {
		return
	}
	e.buf = append(e.buf, ',')
	if e.spaced {
		e.buf = append(e.buf, ' ')
	}
}

func (e *encoder) key(name string) {
	e.separate()
	e.quote(name)
	e.buf = append(e.buf, ':')
	if e.spaced {
		e.buf = append(e.buf, ' ')
	}
}

// fields writes attrs inside the named groups and leaves those open. It writes
// nothing and reports false when no attribute has anything to say.
func (e *encoder) fields(groups []string, attrs []slog.Attr) bool {
	mark := len(e.buf)
	for _, g := range groups {
		e.key(g)
		e.buf = append(e.buf, '{')
	}
	some := false
	for _, a := range attrs {
		if e.attr(a) {
			some = true
		}
	}
	if !some {
		e.buf = e.buf[:mark]
	}
	return some
}

// attr writes one attribute; it reports whether there was one.
func (e *encoder) attr(a slog.Attr) bool {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		members := v.Group()
		if a.Key == "" {
			return e.fields(nil, members)
		}
		if !e.fields([]string{a.Key}, members) {
			return false
		}
		e.buf = append(e.buf, '}')
		return true
	}
	if a.Key == "" && v.Kind() == slog.KindAny && v.Any() == nil {
		return false
	}
	e.key(a.Key)
	e.value(v)
	return true
}

func (e *encoder) value(v slog.Value) {
	switch v.Kind() {
	case slog.KindString:
		e.quote(v.String())
	case slog.KindInt64:
		e.buf = strconv.AppendInt(e.buf, v.Int64(), 10)
	case slog.KindUint64:
		e.buf = strconv.AppendUint(e.buf, v.Uint64(), 10)
	case slog.KindFloat64:
		e.float(v.Float64())
	case slog.KindBool:
		e.buf = strconv.AppendBool(e.buf, v.Bool())
	case slog.KindDuration:
		e.quote(v.Duration().String())
	case slog.KindTime:
		e.time(v.Time())
	default:
		e.any(v.Any())
	}
}

// any writes values that have a type of their own: an error as its text, what
// prints itself as it prints (ids in hex), the rest as encoding/json has it.
func (e *encoder) any(v any) {
	defer func() {
		// A typed nil, or a faulty String: the line must not end the process.
		if r := recover(); r != nil {
			e.quote(fmt.Sprintf("panic while logging %T: %v", v, r))
		}
	}()
	switch v := v.(type) {
	case nil:
		e.buf = append(e.buf, "null"...)
	case error:
		e.quote(v.Error())
	case []string:
		e.buf = append(e.buf, '[')
		for _, s := range v {
			e.separate()
			e.quote(s)
		}
		e.buf = append(e.buf, ']')
	case json.Marshaler:
		e.marshal(v)
	case fmt.Stringer:
		e.quote(v.String())
	default:
		e.marshal(v)
	}
}

func (e *encoder) marshal(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		e.quote(fmt.Sprintf("%+v", v))
		return
	}
	e.buf = append(e.buf, data...)
}

func (e *encoder) float(f float64) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		e.quote(strconv.FormatFloat(f, 'g', -1, 64))
		return
	}
	e.buf = strconv.AppendFloat(e.buf, f, 'g', -1, 64)
}

func (e *encoder) time(t time.Time) {
	e.buf = append(e.buf, '"')
	e.buf = t.AppendFormat(e.buf, timeLayout)
	e.buf = append(e.buf, '"')
}

// quote writes a JSON string. Bytes that are not UTF-8 become U+FFFD.
func (e *encoder) quote(s string) {
	e.buf = append(e.buf, '"')
	e.escape(s, true)
	e.buf = append(e.buf, '"')
}

// line writes text that must not break the line it stands in.
func (e *encoder) line(s string) { e.escape(s, false) }

const hexDigits = "0123456789abcdef"

func (e *encoder) escape(s string, quoted bool) {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				e.buf = append(e.buf, s[start:i]...)
				e.buf = append(e.buf, "\ufffd"...)
				start = i + size
			}
			i += size
			continue
		}
		if c >= ' ' && c != 0x7f && (!quoted || c != '"' && c != '\\') {
			i++
			continue
		}
		e.buf = append(e.buf, s[start:i]...)
		switch c {
		case '"', '\\':
			e.buf = append(e.buf, '\\', c)
		case '\n':
			e.buf = append(e.buf, `\n`...)
		case '\r':
			e.buf = append(e.buf, `\r`...)
		case '\t':
			e.buf = append(e.buf, `\t`...)
		default:
			e.buf = append(e.buf, `\u00`...)
			e.buf = append(e.buf, hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	e.buf = append(e.buf, s[start:]...)
}
