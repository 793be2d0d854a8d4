package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/credentials"
)

// Web serves requests that come over HTTP/2 and are not gRPC's: those whose content
// type is another one. Without it they are answered with 415, as by grpc-go.
type Web struct {
	Handler http.Handler
	// Log is told of handlers that panic.
	Log *slog.Logger
}

// ServeWeb has w answer what is not gRPC from now on.
func (s *Server) ServeWeb(w Web) { s.web.Store(&w) }

// webStream is a request that a handler of HTTP answers on a goroutine of its own.
// What the connection and the goroutine share is guarded by conn.mu. Bodies flow as
// messages do: at most a window of a request waits to be read, and a handler waits
// while the client has no window for what it wrote. There are no trailers.
type webStream struct {
	by     *Web
	conn   *conn
	stream *stream
	ctx    context.Context
	cancel context.CancelFunc

	changed  sync.Cond // body or an end came, or there is room to send
	body     []byte    // what came and was not read
	err      error     // why nothing comes after body
	status   int       // with fields what goes before the body of the answer
	fields   [][2]string
	returned bool
}

// startWeb begins the answer to what is no call. c.mu is held.
func (c *conn) startWeb(s *stream, by *Web) {
	w := &webStream{by: by, conn: c, stream: s}
	w.changed.L = &c.mu
	w.ctx, w.cancel = context.WithCancel(c.ctx)
	if s.ended {
		w.err = io.EOF
	}
	s.web = w
	go w.run()
}

// put takes a part of the body in. conn.mu is held.
func (w *webStream) put(data []byte) {
	w.body = append(w.body, data...)
	w.changed.Broadcast()
}

// fail says why no more of the body comes: io.EOF is its proper end. conn.mu is held.
func (w *webStream) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.changed.Broadcast()
}

// sent says that there is room to send. conn.mu is held.
func (w *webStream) sent() {
	if w.stream.out.bytes < mostUnsent {
		w.changed.Broadcast()
	}
}

// end says that the stream is gone. conn.mu is held.
func (w *webStream) end() {
	w.cancel()
	w.changed.Broadcast()
}

// run answers the request.
func (w *webStream) run() {
	answer := &webAnswer{w: w, header: http.Header{}}
	whole := false
	defer func() {
		if !whole {
			broken := recover()
			if log := w.by.Log; log != nil && broken != http.ErrAbortHandler {
				log.Error("a handler of HTTP panicked", "panic", fmt.Sprint(broken), "stack", string(debug.Stack()))
			}
		}
		w.finish(answer, whole)
	}()
	r, err := w.request()
	if err != nil {
		http.Error(answer, "400 Bad Request: "+err.Error(), http.StatusBadRequest)
	} else {
		answer.bodiless = r.Method == http.MethodHead
		w.by.Handler.ServeHTTP(answer, r)
	}
	whole = true
}

// finish ends the answer; one that a panic cut short is reset, so that nobody takes it
// for a whole one.
func (w *webStream) finish(answer *webAnswer, whole bool) {
	if whole {
		answer.WriteHeader(http.StatusOK)
	}
	c, s := w.conn, w.stream
	c.mu.Lock()
	defer c.mu.Unlock()
	w.cancel()
	w.returned = true
	switch {
	case s.gone:
		c.abandonedEnded()
	case whole:
		c.end(s, &ending{})
	default:
		c.reset(s, http2.ErrCodeInternal)
	}
}

// request is the request as handlers know it. Errors: a path that is none.
func (w *webStream) request() (*http.Request, error) {
	h := w.stream.headers
	r := &http.Request{
		Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{}, Body: webBody{w},
		ContentLength: h.length, RemoteAddr: w.conn.peer.Addr.String(), RequestURI: h.path,
	}
	if h.length < 0 && w.endedAtOnce() {
		r.ContentLength, r.Body = 0, http.NoBody
	}
	for _, f := range h.fields {
		switch f.Name {
		case ":method":
			r.Method = f.Value
		case ":authority":
			r.Host = f.Value
		case ":scheme", ":path":
		case "host":
			if r.Host == "" {
				r.Host = f.Value
			}
		case "cookie": // may come in pieces (RFC 9113, 8.2.3)
			if have := r.Header.Get("Cookie"); have != "" {
				r.Header.Set("Cookie", have+"; "+f.Value)
				continue
			}
			fallthrough
		default:
			r.Header.Add(f.Name, f.Value)
		}
	}
	if t, ok := w.conn.peer.AuthInfo.(credentials.TLSInfo); ok {
		r.TLS = &t.State
	}
	var err error
	if r.URL, err = url.ParseRequestURI(h.path); err != nil {
		return nil, errors.New("a path that cannot be parsed")
	}
	return r.WithContext(w.ctx), nil
}

func (w *webStream) endedAtOnce() bool {
	w.conn.mu.Lock()
	defer w.conn.mu.Unlock()
	return w.err == io.EOF && len(w.body) == 0
}

// over says whether nothing can be sent any more. conn.mu is held.
func (w *webStream) over() error {
	if w.stream.gone || w.conn.phase == dead {
		return errors.New("rpc: the client is gone")
	}
	return nil
}

// appendFields appends what goes before the body of the answer. conn.mu is held.
func (w *webStream) appendFields(dst []byte, e *encoder) []byte {
	dst = e.httpStatus(e.begin(dst), w.status)
	for _, f := range w.fields {
		dst = appendField(dst, f[0], f[1])
	}
	return dst
}

// webBody is the body of a request.
type webBody struct{ w *webStream }

// Read waits for a part of the body.
func (b webBody) Read(p []byte) (int, error) {
	w := b.w
	c := w.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(w.body) == 0 {
		if w.err != nil {
			return 0, w.err
		}
		if err := w.over(); err != nil {
			return 0, err
		}
		w.changed.Wait()
	}
	n := copy(p, w.body)
	if w.body = w.body[n:]; len(w.body) == 0 {
		w.body = nil
	}
	c.taken(w.stream, n)
	return n, nil
}

// Close has the rest of the body dropped.
func (b webBody) Close() error {
	c := b.w.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	b.w.stream.stop = true
	b.w.body = nil
	b.w.fail(http.ErrBodyReadAfterClose)
	return nil
}

// webAnswer is the http.ResponseWriter of a webStream, and its http.Flusher.
type webAnswer struct {
	w        *webStream
	header   http.Header
	begun    bool
	bodiless bool // of a request that wants no body, or a status that has none
}

// Header is http.ResponseWriter's.
func (a *webAnswer) Header() http.Header { return a.header }

// WriteHeader sends the status and the fields, once. Informational ones are left out.
func (a *webAnswer) WriteHeader(status int) {
	if a.begun || status < 200 {
		return
	}
	a.begun = true
	a.bodiless = a.bodiless || status == http.StatusNoContent || status == http.StatusNotModified
	fields := sendable(a.header)
	w := a.w
	w.conn.mu.Lock()
	defer w.conn.mu.Unlock()
	w.status, w.fields = status, fields
	w.stream.out.begun = true
	w.conn.activate(w.stream)
}

// sendable are the fields that HTTP/2 carries, in an order that does not vary.
func sendable(header http.Header) (fields [][2]string) {
	for name, values := range header {
		name = strings.ToLower(name)
		switch name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "trailer":
			continue // RFC 9113, 8.2.2
		}
		if !validName(name) {
			continue
		}
		for _, v := range values {
			if httpguts.ValidHeaderFieldValue(v) {
				fields = append(fields, [2]string{name, v})
			}
		}
	}
	slices.SortStableFunc(fields, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return fields
}

// Write sends a part of the body. It waits while the client lets too much of what was
// written before wait, and fails once the client is gone.
func (a *webAnswer) Write(p []byte) (n int, err error) {
	if !a.begun {
		if a.header.Get("Content-Type") == "" {
			a.header.Set("Content-Type", http.DetectContentType(p))
		}
		a.WriteHeader(http.StatusOK)
	}
	if a.bodiless {
		return len(p), nil
	}
	for len(p) > 0 {
		part := p[:min(len(p), mostUnsent)]
		if err := a.w.write(part); err != nil {
			return n, err
		}
		n += len(part)
		p = p[len(part):]
	}
	return n, nil
}

// Flush sends the fields; bodies are sent as they are written.
func (a *webAnswer) Flush() { a.WriteHeader(http.StatusOK) }

func (w *webStream) write(part []byte) error {
	own := slices.Clone(part)
	c, o := w.conn, &w.stream.out
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := w.over(); err != nil {
			return err
		}
		if o.bytes < mostUnsent {
			break
		}
		w.changed.Wait()
	}
	o.pieces = append(o.pieces, piece{bytes: own})
	o.bytes += len(own)
	if !o.needsWindow {
		c.activate(w.stream)
	}
	return nil
}

// httpStatus appends the status of an answer.
func (e *encoder) httpStatus(dst []byte, status int) []byte {
	if status == 200 {
		return append(dst, 0x80|8)
	}
	return appendString(append(dst, 8), strconv.Itoa(status))
}
