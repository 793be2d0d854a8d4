package rpc

import (
	"bytes"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/wire"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// FuzzFrames cuts bytes into frames as x/net's Framer does.
func FuzzFrames(f *testing.F) {
	f.Add(appendPing(appendSettings(nil, http2.Setting{ID: 1, Val: 2}), 0, [8]byte{1}))
	f.Add(append(appendWindowUpdate(nil, 3, 4), appendReset(nil, 1, 2)...))
	f.Add(appendGoAway(appendFrameHead(nil, 5, http2.FrameData, 8, 1), 1, 2, "x"))
	f.Fuzz(func(t *testing.T, in []byte) {
		theirs := http2.NewFramer(io.Discard, bytes.NewReader(in))
		rest := in
		for {
			frame, after, need, err := parseFrame(rest)
			h, herr := http2.ReadFrameHeader(bytes.NewReader(rest))
			switch {
			case err != nil:
				if herr != nil || h.Length <= maxFrame {
					t.Fatalf("%v, but %v %v", err, h, herr)
				}
				return
			case need > 0:
				if herr == nil && len(rest) >= frameHead+int(h.Length) {
					t.Fatalf("%d bytes are needed of %v", need, h)
				}
				return
			}
			if herr != nil || h.Type != frame.kind || h.Flags != frame.flags || h.StreamID != frame.stream || int(h.Length) != len(frame.payload) {
				t.Fatalf("%+v, want %v %v", frame, h, herr)
			}
			if again := append(appendFrameHead(nil, len(frame.payload), frame.kind, frame.flags, frame.stream), frame.payload...); rest[5] < 0x80 && !bytes.Equal(again, rest[:len(again)]) {
				t.Fatalf("%x made again is %x", rest[:len(again)], again)
			}
			if frame.kind == http2.FrameData && theirs != nil {
				fuzzPadding(t, &frame)
			}
			rest = after
		}
	})
}

func fuzzPadding(t *testing.T, frame *frame) {
	t.Helper()
	framer := http2.NewFramer(io.Discard, bytes.NewReader(append(appendFrameHead(nil, len(frame.payload), frame.kind, frame.flags, 1), frame.payload...)))
	want, werr := framer.ReadFrame()
	got, err := frame.unpad()
	if (err == nil) != (werr == nil) {
		t.Fatalf("%v, want %v", err, werr)
	}
	if err == nil && !bytes.Equal(got, want.(*http2.DataFrame).Data()) {
		t.Fatalf("%x, want %x", got, want.(*http2.DataFrame).Data())
	}
}

// FuzzHeaderBlocks decodes the blocks of a connection, which remembers some, as a
// decoder does that remembers none.
func FuzzHeaderBlocks(f *testing.F) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for range 3 {
		for _, h := range []string{":method", "POST", ":scheme", "http", ":path", "/a/b", ":authority", "x", "content-type", "application/grpc", "te", "trailers", "grpc-timeout", "1S"} {
			enc.WriteField(hpack.HeaderField{Name: h, Value: h})
		}
	}
	f.Add(block.Bytes(), uint8(20))
	f.Add([]byte{0x82, 0x84, 0x82, 0x84}, uint8(2))
	f.Add([]byte{0x40, 1, 'a', 1, 'b', 0xbe, 0xbe, 0xbe, 0x20, 0x3f, 0xe1, 0x1f}, uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		size := max(1, int(cut))
		ours := newDecoder(func(string) *method { return nil })
		theirs := hpack.NewDecoder(4096, nil)
		for len(in) > 0 {
			block := in[:min(size, len(in))]
			in = in[len(block):]
			want, werr := theirs.DecodeFull(block)
			h, _, err := ours.decode(block)
			if (err == nil) != (werr == nil) {
				t.Fatalf("%x: %v, want %v", block, err, werr)
			}
			if err != nil {
				return
			}
			if !h.large && !slices.Equal(h.fields, want) {
				t.Fatalf("%x: %v, want %v", block, h.fields, want)
			}
			if h.refused == nil && !h.malformed && !h.trailers && !h.large && h.path == "" {
				t.Fatalf("%v was taken for a call", h.fields)
			}
			h.metadata()
		}
	})
}

// FuzzAnswers encodes answers that any decoder reads.
func FuzzAnswers(f *testing.F) {
	f.Add("no", "x", "y", uint16(4096))
	f.Add("100% 世界\xff", "", "", uint16(0))
	f.Fuzz(func(t *testing.T, message, name, value string, table uint16) {
		e := encoder{limit: 4096}
		dec := hpack.NewDecoder(4096, nil)
		for i := range 4 {
			if i == 1 {
				e.resize(uint32(table))
				dec.SetAllowedMaxDynamicTableSize(uint32(table))
			}
			first, err := dec.DecodeFull(e.headers(nil, 200, ""))
			if err != nil || len(first) != 2 || first[0].Value != "200" || first[1].Value != "application/grpc" {
				t.Fatalf("%v, %v", first, err)
			}
			block := appendField(e.status(e.begin(nil), uint32(i), message), name, value)
			last, err := dec.DecodeFull(block)
			if err != nil || len(last) != 3 || last[2].Name != name || last[2].Value != value || last[1].Value != percentEncoded(message) {
				t.Fatalf("%v, %v", last, err)
			}
		}
	})
}

// memoryConn is a connection whose client has said all.
type memoryConn struct {
	net.Conn
	said *bytes.Reader
}

func (c *memoryConn) Read(p []byte) (int, error)      { return c.said.Read(p) }
func (c *memoryConn) Write(p []byte) (int, error)     { return len(p), nil }
func (c *memoryConn) Close() error                    { return nil }
func (c *memoryConn) SetReadDeadline(time.Time) error { return nil }
func (c *memoryConn) RemoteAddr() net.Addr            { return &net.TCPAddr{} }
func (c *memoryConn) LocalAddr() net.Addr             { return &net.TCPAddr{} }

// FuzzConnection lets a client say anything: the server ends, and every call with it.
func FuzzConnection(f *testing.F) {
	var all bytes.Buffer
	all.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&all, nil)
	framer.WriteSettings()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i, path := range []string{hotPath, unaryPath, bothPath, hotPath} {
		block.Reset()
		for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
			enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		id := uint32(2*i + 1)
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true})
		framer.WriteData(id, i != 2, wire.Framed(false, encoded("echo hello")))
		framer.WriteWindowUpdate(id, 100)
		framer.WritePing(false, [8]byte{})
		framer.WriteRSTStream(id, 2)
		framer.WritePriority(id, http2.PriorityParam{StreamDep: 7})
	}
	f.Add(all.Bytes()[len(http2.ClientPreface):])
	f.Fuzz(func(t *testing.T, said []byte) {
		s := NewServer(testLimits, passUnary, passStream)
		s.RegisterService(&testService, struct{}{})
		s.RegisterHot(hotPath, &hotTester{later: make(chan *Call, 1000)})
		nc := &memoryConn{said: bytes.NewReader(append([]byte(http2.ClientPreface), said...))}
		c := newConn(s, nc)
		c.serve()
		if len(c.streams) != 0 || c.phase != dead {
			t.Errorf("%d streams are left, phase %d", len(c.streams), c.phase)
		}
	})
}
