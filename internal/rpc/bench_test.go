package rpc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"github.com/kvorum/kvorum/internal/testkit/wire"
	"golang.org/x/net/http2"
)

// BenchmarkCalls measures what the server costs per call, hot and of a goroutine, and
// grpc-go's: a client that does next to nothing keeps 64 calls of 256 bytes in flight
// on one connection, by frames made beforehand.
func BenchmarkCalls(b *testing.B) {
	ours := func(b *testing.B) string {
		_, _, addr := serveOurs(b, testLimits)
		return addr
	}
	for _, c := range []struct {
		name, path string
		serve      func(b *testing.B) string
	}{
		{"hot", hotPath, ours},
		{"goroutine", unaryPath, ours},
		{"grpc-go", unaryPath, func(b *testing.B) string { return serveBody(b, NewGRPCGo(testLimits, passUnary, passStream)) }},
		{"hot-tracer", hotPath, func(b *testing.B) string { // that wants none of these calls
			limits := testLimits
			limits.Tracer = new(tellTale)
			_, _, addr := serveOurs(b, limits)
			return addr
		}},
	} {
		for _, flight := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/%d", c.name, flight), func(b *testing.B) {
				b.ReportAllocs()
				flood(b, c.serve(b), c.path, flight)
			})
		}
	}
}

func flood(b *testing.B, addr, path string, flight int) {
	w := wire.Dial(b, addr)
	say := wire.Framed(false, encoded(fmt.Sprintf("echo %0256d", 7)))
	w.Call(path, encoded("echo x")) // the table of header fields is filled
	id := w.Headers(path, false)
	block := bytes.Clone(w.Block())
	w.Data(id, true, say)
	w.Await(id)
	next, ends := w.Next, make(chan int, 1024)
	go countEnds(w.Net, ends)
	one := func(dst []byte) []byte {
		dst = appendFrameHead(dst, len(block), http2.FrameHeaders, http2.FlagHeadersEndHeaders, next)
		dst = append(dst, block...)
		dst = appendFrameHead(dst, len(say), http2.FrameData, http2.FlagDataEndStream, next)
		next += 2
		return append(dst, say...)
	}
	out, begun, ended := []byte(nil), 0, 0
	b.ResetTimer()
	for ended < b.N {
		out = out[:0]
		for begun < b.N && begun-ended < flight {
			out = one(out)
			begun++
		}
		if len(out) > 0 {
			if _, err := w.Net.Write(out); err != nil {
				b.Fatal(err)
			}
		}
		n, ok := <-ends
		if !ok {
			b.Fatal("the connection ended")
		}
		ended += n
	}
}

// countEnds reports how many streams each read has seen end, and gives the windows back.
func countEnds(conn net.Conn, ends chan<- int) {
	defer close(ends)
	buf, filled := make([]byte, 256<<10), 0
	for {
		n, err := conn.Read(buf[filled:])
		if err != nil {
			return
		}
		filled += n
		rest, ended := buf[:filled], 0
		for len(rest) >= frameHead {
			length := int(rest[0])<<16 | int(rest[1])<<8 | int(rest[2])
			if len(rest) < frameHead+length {
				break
			}
			if kind := http2.FrameType(rest[3]); kind == http2.FrameHeaders && rest[4]&byte(http2.FlagHeadersEndStream) != 0 && binary.BigEndian.Uint32(rest[5:]) != 0 {
				ended++
			}
			rest = rest[frameHead+length:]
		}
		filled = copy(buf, rest)
		if ended > 0 {
			ends <- ended
		}
	}
}
