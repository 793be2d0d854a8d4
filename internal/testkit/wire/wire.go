// Package wire is a client of gRPC that speaks HTTP/2 frame by frame, for tests of what no
// gRPC library would send, and of what a server does when its client does not read.
package wire

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

const (
	// firstWindow is every window before anybody changed it (RFC 9113, 6.9.2).
	firstWindow = 65535
	// mostFrame is how long a frame may be before a server allows more (RFC 9113, 4.2).
	mostFrame = 16384
	// patience is how long a connection may take as a whole.
	patience = time.Minute
)

// Conn is a connection with one goroutine: the test's. What the methods of its Framer
// write goes out as it is; frames are taken in by Pump, Await, Call, and by Data while the
// windows are used up. Every failure of the connection's own, and a server that speaks bad
// HTTP/2, ends the test.
type Conn struct {
	// Net is what the frames go over, for tests that send less than one or end it.
	Net net.Conn
	*http2.Framer
	// Window is what the connection may still be sent. Who writes DATA without Data takes
	// it off.
	Window int64
	// Next is the stream that Headers begins next: odd, and two more each time.
	Next uint32
	// Got has an answer for each stream that Headers began.
	Got map[uint32]*Answer
	// Gone is how the connection ended, once that was seen; GoAway what was said before,
	// "last stream, code, text" of each frame.
	Gone   error
	GoAway []string
	// Pongs and Pinged count the server's answers to pings, and its own pings.
	Pongs, Pinged int
	// Quiet leaves the server's settings and pings without an answer; FirstPing is what the
	// first of those pings carried.
	Quiet     bool
	FirstPing []byte

	t     testing.TB
	enc   *hpack.Encoder
	block bytes.Buffer
	fresh int64 // what a new stream may be sent: servers change it as they like
}

// Answer is what came back on one stream.
type Answer struct {
	// HTTP, Kind, Code and Text are :status, content-type, grpc-status and grpc-message;
	// Status says that a grpc-status came.
	HTTP, Kind string
	Code       codes.Code
	Text       string
	Status     bool
	// Body is all DATA.
	Body []byte
	// Reset is the code of a RST_STREAM. Ended says that such a one came, or END_STREAM, or
	// the end of the connection.
	Reset http2.ErrCode
	Ended bool
	// Fields are those of all header blocks, "block name: value", as they came; Blocks is
	// how many came.
	Fields []string
	Blocks int

	window int64 // what the stream may still be sent
}

func (a *Answer) String() string {
	return fmt.Sprintf("http %s, %v %q, reset %v, ended %v", a.HTTP, a.Code, a.Text, a.Reset, a.Ended)
}

// Dial opens a connection that may be sent whatever the server likes, until the test ends.
func Dial(t testing.TB, addr string) *Conn {
	t.Helper()
	return DialNarrow(t, addr, 1<<30)
}

// DialNarrow is Dial with streams that may each be sent window bytes.
func DialNarrow(t testing.TB, addr string, window uint32) *Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w := On(t, conn)
	w.Must(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}))
	w.Must(w.WriteWindowUpdate(0, 1<<30))
	return w
}

// On speaks on a connection, which stays the caller's to close. The preface is sent, the
// settings that must follow are not.
func On(t testing.TB, conn net.Conn) *Conn {
	t.Helper()
	w := &Conn{t: t, Net: conn, Framer: http2.NewFramer(conn, conn), Next: 1, Window: firstWindow, fresh: firstWindow, Got: map[uint32]*Answer{}}
	w.enc = hpack.NewEncoder(&w.block)
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.Must(conn.SetDeadline(time.Now().Add(patience)))
	_, err := conn.Write([]byte(http2.ClientPreface))
	w.Must(err)
	return w
}

// Must ends the test on an error.
func (w *Conn) Must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// Headers sends a header block on a new stream, which it returns: the fields of any gRPC
// call, then more, in pairs; a pair with the value "-" takes one of the former away.
func (w *Conn) Headers(path string, end bool, more ...string) uint32 {
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
			w.Must(w.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
		}
	}
	id := w.Next
	w.Next += 2
	w.Got[id] = &Answer{window: w.fresh}
	block := w.block.Bytes()
	first := block[:min(len(block), mostFrame)]
	w.Must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(block)}))
	for block = block[len(first):]; len(block) > 0; {
		piece := block[:min(len(block), mostFrame)]
		block = block[len(piece):]
		w.Must(w.WriteContinuation(id, len(block) == 0, piece))
	}
	return id
}

// Block is the header block that Headers sent last, until it is called again.
func (w *Conn) Block() []byte { return w.block.Bytes() }

// Data sends as much as the windows allow, piece by piece, until all is sent or
// the server has ended the stream.
func (w *Conn) Data(id uint32, end bool, p []byte) {
	w.t.Helper()
	a := w.Got[id]
	for {
		for (w.Window <= 0 || a.window <= 0) && len(p) > 0 && !a.Ended && w.Gone == nil {
			w.Pump()
		}
		if a.Ended || w.Gone != nil {
			return
		}
		n := min(int64(len(p)), w.Window, a.window, mostFrame)
		last := n == int64(len(p))
		if w.WriteData(id, end && last, p[:n]) != nil {
			return // the server closed the connection; Pump will say why
		}
		w.Window -= n
		a.window -= n
		if p = p[n:]; last {
			return
		}
	}
}

// Pump takes one frame in.
func (w *Conn) Pump() {
	frame, err := w.ReadFrame()
	if err != nil {
		var stream http2.StreamError
		if errors.As(err, &stream) {
			w.t.Fatalf("the server's own frames are bad: %v", err)
		}
		w.Gone = err
		for _, a := range w.Got {
			a.Ended = true
		}
		return
	}
	a := w.Got[frame.Header().StreamID]
	if a == nil {
		a = &Answer{}
	}
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				for _, open := range w.Got {
					open.window += int64(v) - w.fresh
				}
				w.fresh = int64(v)
			}
			if !w.Quiet {
				w.WriteSettingsAck()
			}
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			w.Pinged++
		}
		switch {
		case f.IsAck():
			w.Pongs++
		case w.Quiet:
			if w.FirstPing == nil {
				w.FirstPing = bytes.Clone(f.Data[:])
			}
		case !w.Quiet:
			w.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		w.GoAway = append(w.GoAway, fmt.Sprintf("%d %v %s", f.LastStreamID, f.ErrCode, f.DebugData()))
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			w.Window += int64(f.Increment)
		}
		a.window += int64(f.Increment)
	case *http2.RSTStreamFrame:
		a.Reset, a.Ended = f.ErrCode, true
	case *http2.DataFrame:
		a.Body = append(a.Body, f.Data()...)
		a.Ended = a.Ended || f.StreamEnded()
	case *http2.MetaHeadersFrame:
		w.headersCame(a, f)
		a.Ended = a.Ended || f.StreamEnded()
	}
}

// headersCame keeps what a header block says.
func (w *Conn) headersCame(a *Answer, f *http2.MetaHeadersFrame) {
	a.Blocks++
	for _, field := range f.Fields {
		a.Fields = append(a.Fields, fmt.Sprintf("%d %s: %s", a.Blocks, field.Name, field.Value))
		switch field.Name {
		case ":status":
			a.HTTP = field.Value
		case "content-type":
			a.Kind = field.Value
		case "grpc-status":
			n, err := strconv.Atoi(field.Value)
			w.Must(err)
			a.Code, a.Status = codes.Code(n), true
		case "grpc-message":
			text, err := url.PathUnescape(field.Value)
			w.Must(err)
			a.Text = text
		}
	}
}

// Await reads until a stream has ended.
func (w *Conn) Await(id uint32) *Answer {
	w.t.Helper()
	for !w.Got[id].Ended {
		w.Pump()
	}
	return w.Got[id]
}

// Framed is a message with gRPC's five bytes before it.
func Framed(compressed bool, message []byte) []byte {
	head := make([]byte, 5, 5+len(message))
	if compressed {
		head[0] = 1
	}
	binary.BigEndian.PutUint32(head[1:], uint32(len(message)))
	return append(head, message...)
}

// Call sends one whole unary call and returns its answer.
func (w *Conn) Call(path string, message []byte, more ...string) *Answer {
	w.t.Helper()
	id := w.Headers(path, false, more...)
	w.Data(id, true, Framed(false, message))
	return w.Await(id)
}
