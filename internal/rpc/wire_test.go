package rpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// wire speaks HTTP/2 frame by frame, for what no gRPC library would send. It has
// one goroutine: the test's.
type wire struct {
	t    testing.TB
	conn net.Conn
	*http2.Framer
	enc       *hpack.Encoder
	block     bytes.Buffer
	next      uint32
	window    int64 // what the connection may still be sent
	fresh     int64 // what a new stream may be sent: servers change it as they like
	got       map[uint32]*answer
	gone      error    // the connection's end, once seen
	goAway    []string // "last stream, code, text" of each
	pongs     int
	pinged    int
	firstPing []byte // since quiet
	quiet     bool   // settings are not acknowledged, pings not answered
}

// answer is what came back on one stream.
type answer struct {
	window int64
	http   string
	kind   string // content-type
	code   codes.Code
	text   string
	body   []byte
	reset  http2.ErrCode
	ended  bool     // END_STREAM, RST_STREAM or the end of the connection
	status bool     // a grpc-status came
	fields []string // of all header blocks: "block name: value", in alphabetical order
	blocks int
}

func (a *answer) String() string {
	return fmt.Sprintf("http %s, %v %q, reset %v, ended %v", a.http, a.code, a.text, a.reset, a.ended)
}

// dialWire opens a connection and exchanges the prefaces.
func dialWire(t testing.TB, addr string) *wire {
	t.Helper()
	return dialNarrow(t, addr, 1<<30)
}

// dialNarrow opens a connection whose streams may each be sent window bytes.
func dialNarrow(t testing.TB, addr string, window uint32) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w := wireOn(t, conn)
	w.must(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}))
	w.must(w.WriteWindowUpdate(0, 1<<30))
	return w
}

// wireOn speaks on a connection; no settings were said.
func wireOn(t testing.TB, conn net.Conn) *wire {
	t.Helper()
	w := &wire{t: t, conn: conn, Framer: http2.NewFramer(conn, conn), next: 1, window: firstWindow, fresh: firstWindow, got: map[uint32]*answer{}}
	w.enc = hpack.NewEncoder(&w.block)
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.must(conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err := conn.Write([]byte(http2.ClientPreface))
	w.must(err)
	return w
}

func (w *wire) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// headers sends a header block on a new stream: the usual ones of a gRPC call,
// then more, in pairs; a pair with the value "-" takes a usual one away.
func (w *wire) headers(path string, end bool, more ...string) uint32 {
	w.t.Helper()
	fields := []string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "hostile",
		"content-type", "application/grpc", "te", "trailers"}
	for i := 0; i < len(more); i += 2 {
		known := false
		for j := 0; j < len(fields); j += 2 {
			if fields[j] == more[i] {
				fields[j+1], known = more[i+1], true
			}
		}
		if !known {
			fields = append(fields, more[i], more[i+1])
		}
	}
	w.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		if fields[i+1] != "-" {
			w.must(w.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
		}
	}
	id := w.next
	w.next += 2
	w.got[id] = &answer{window: w.fresh}
	block := w.block.Bytes()
	first := block[:min(len(block), 16384)]
	w.must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(block)}))
	for block = block[len(first):]; len(block) > 0; {
		piece := block[:min(len(block), 16384)]
		block = block[len(piece):]
		w.must(w.WriteContinuation(id, len(block) == 0, piece))
	}
	return id
}

// data sends as much as the windows allow, piece by piece, until all is sent or
// the server has ended the stream.
func (w *wire) data(id uint32, end bool, p []byte) {
	w.t.Helper()
	a := w.got[id]
	for {
		for (w.window <= 0 || a.window <= 0) && len(p) > 0 && !a.ended && w.gone == nil {
			w.pump()
		}
		if a.ended || w.gone != nil {
			return
		}
		n := min(int64(len(p)), w.window, a.window, 16384)
		last := n == int64(len(p))
		if w.WriteData(id, end && last, p[:n]) != nil {
			return // the server closed the connection; pump will say why
		}
		w.window -= n
		a.window -= n
		if p = p[n:]; last {
			return
		}
	}
}

// pump takes one frame in.
func (w *wire) pump() {
	frame, err := w.ReadFrame()
	if err != nil {
		var stream http2.StreamError
		if errors.As(err, &stream) {
			w.t.Fatalf("the server's own frames are bad: %v", err)
		}
		w.gone = err
		for _, a := range w.got {
			a.ended = true
		}
		return
	}
	a := w.got[frame.Header().StreamID]
	if a == nil {
		a = &answer{}
	}
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				for _, open := range w.got {
					open.window += int64(v) - w.fresh
				}
				w.fresh = int64(v)
			}
			if !w.quiet {
				w.WriteSettingsAck()
			}
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			w.pinged++
		}
		switch {
		case f.IsAck():
			w.pongs++
		case w.quiet:
			if w.firstPing == nil {
				w.firstPing = bytes.Clone(f.Data[:])
			}
		case !w.quiet:
			w.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		w.goAway = append(w.goAway, fmt.Sprintf("%d %v %s", f.LastStreamID, f.ErrCode, f.DebugData()))
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			w.window += int64(f.Increment)
		}
		a.window += int64(f.Increment)
	case *http2.RSTStreamFrame:
		a.reset, a.ended = f.ErrCode, true
	case *http2.DataFrame:
		a.body = append(a.body, f.Data()...)
		a.ended = a.ended || f.StreamEnded()
	case *http2.MetaHeadersFrame:
		a.blocks++
		for _, field := range f.Fields {
			a.fields = append(a.fields, fmt.Sprintf("%d %s: %s", a.blocks, field.Name, field.Value))
			switch field.Name {
			case ":status":
				a.http = field.Value
			case "content-type":
				a.kind = field.Value
			case "grpc-status":
				n, err := strconv.Atoi(field.Value)
				w.must(err)
				a.code, a.status = codes.Code(n), true
			case "grpc-message":
				text, err := url.PathUnescape(field.Value)
				w.must(err)
				a.text = text
			}
		}
		a.ended = a.ended || f.StreamEnded()
	}
}

// await reads until a stream has ended.
func (w *wire) await(id uint32) *answer {
	w.t.Helper()
	for !w.got[id].ended {
		w.pump()
	}
	return w.got[id]
}

// framed is a message with gRPC's five bytes before it.
func framed(compressed bool, message []byte) []byte {
	head := make([]byte, 5, 5+len(message))
	if compressed {
		head[0] = 1
	}
	binary.BigEndian.PutUint32(head[1:], uint32(len(message)))
	return append(head, message...)
}

// call sends one whole unary call and returns its answer.
func (w *wire) call(path string, message []byte, more ...string) *answer {
	w.t.Helper()
	id := w.headers(path, false, more...)
	w.data(id, true, framed(false, message))
	return w.await(id)
}
