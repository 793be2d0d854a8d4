package rpc

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/wire"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// The same calls to grpc-go's server and to ours, and what a client can see of the
// answers: header blocks as sets, bodies byte for byte, resets and GOAWAYs.

// twoBodies runs a scene against both and compares what it saw, line by line.
func twoBodies(t *testing.T, limits Limits, scene func(t *testing.T, addr string, hot bool) []string) {
	t.Helper()
	theirs := serveBody(t, NewGRPCGo(limits, passUnary, passStream))
	_, _, ours := serveOurs(t, limits)
	want, got := scene(t, theirs, false), scene(t, ours, true)
	for i := range max(len(want), len(got)) {
		var a, b string
		if i < len(want) {
			a = want[i]
		}
		if i < len(got) {
			b = got[i]
		}
		if a != b {
			t.Errorf("grpc-go: %.600s\nours:    %.600s", a, b)
		}
	}
	if len(want) == 0 {
		t.Error("the scene saw nothing")
	}
}

func encoded(say string) []byte {
	b, err := proto.Marshal(&bytesValue{Value: []byte(say)})
	if err != nil {
		panic(err)
	}
	return b
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

// seen is all of an answer that clients see.
func seen(a *wire.Answer) string {
	slices.Sort(a.Fields)
	return fmt.Sprintf("%s; body %.80q of %d; reset %v", strings.Join(a.Fields, ", "), a.Body, len(a.Body), a.Reset)
}

func TestUnaryCallsAreAnsweredAlike(t *testing.T) {
	twoBodies(t, testLimits, func(t *testing.T, addr string, _ bool) (saw []string) {
		w := wire.Dial(t, addr)
		for _, path := range []string{unaryPath, hotPath} {
			for _, say := range []string{"echo ", "echo hello", "grow 0123456789", "fail no", "fail 100% 世界 \x01", "fail \xff", "plain thing", "details a", "metadata x", "what"} {
				saw = append(saw, path+" "+say+": "+seen(w.Call(path, encoded(say), "x", "y")))
			}
			for _, say := range []string{"headers", "headers early", "headers fail", "context"} {
				saw = append(saw, say+": "+seen(w.Call(unaryPath, encoded(say), "grpc-timeout", "1H")))
			}
		}
		return saw
	})
}

func TestOddCallsAreAnsweredAlike(t *testing.T) {
	twoBodies(t, testLimits, func(t *testing.T, addr string, _ bool) (saw []string) {
		say := encoded("echo hello")
		for _, c := range []struct {
			what, path string
			more       []string
		}{
			{"service", "/test.Nothing/Unary", nil},
			{"method", "/test.Test/Nothing", nil},
			{"no method", "/test.Test", nil},
			{"no slash", "test.Test/Unary", nil},
			{"content type", unaryPath, []string{"content-type", "text/html"}},
			{"no content type", unaryPath, []string{"content-type", "-"}},
			{"subtype", unaryPath, []string{"content-type", "application/grpc+proto"}},
			{"another subtype", unaryPath, []string{"content-type", "application/grpc+json"}},
			{"hot subtype", hotPath, []string{"content-type", "application/grpc+proto"}},
			{"parameter", unaryPath, []string{"content-type", "application/grpc;x"}},
			{"GET", unaryPath, []string{":method", "GET"}},
			{"no te", hotPath, []string{"te", "-"}},
			{"connection", unaryPath, []string{"connection", "close"}},
			{"host too", unaryPath, []string{"host", "other"}},
			{"time-out unit", unaryPath, []string{"grpc-timeout", "1x"}},
			{"time-out length", hotPath, []string{"grpc-timeout", "123456789S"}},
			{"time-out short", unaryPath, []string{"grpc-timeout", "S"}},
			{"time-out number", unaryPath, []string{"grpc-timeout", "-1S"}},
			{"time-out", hotPath, []string{"grpc-timeout", "5S"}},
			{"time-out large", unaryPath, []string{"grpc-timeout", "99999999H"}},
			{"time-out of nothing", hotPath, []string{"grpc-timeout", "0n"}},
			{"time-out of next to nothing", hotPath, []string{"grpc-timeout", "1n"}},
			{"the same, with a goroutine", unaryPath, []string{"grpc-timeout", "1n"}},
			{"bad binary", unaryPath, []string{"x-bin", "%%%"}},
			{"hot bad binary", hotPath, []string{"x-bin", "%%%"}},
			{"encoding", unaryPath, []string{"grpc-encoding", "brotli"}},
			{"hot encoding", hotPath, []string{"grpc-encoding", "brotli"}},
			{"identity", hotPath, []string{"grpc-encoding", "identity"}},
		} {
			w := wire.Dial(t, addr)
			a := w.Call(c.path, say, c.more...)
			if a.HTTP == "415" { // we say why in the body, too
				saw = append(saw, c.what, a.HTTP, a.Code.String(), a.Text)
			} else {
				saw = append(saw, c.what+": "+seen(a))
			}
			w.Net.Close()
		}
		return saw
	})
}

func TestOddMessagesAreAnsweredAlike(t *testing.T) {
	twoBodies(t, testLimits, func(t *testing.T, addr string, _ bool) (saw []string) {
		w := wire.Dial(t, addr)
		say := wire.Framed(false, encoded("echo hello"))
		bomb := gzipped(make([]byte, 10<<20))
		for _, path := range []string{unaryPath, hotPath} {
			for what, c := range []struct {
				payload  []byte
				encoding string
			}{
				{nil, ""}, {[]byte{0, 0}, ""}, {say[:9], ""},
				{append([]byte{7}, say[1:]...), ""},
				{append(slices.Clone(say), say...), ""},
				{wire.Framed(false, []byte("\xff\xff\xff")), ""},
				{wire.Framed(false, nil), ""},
				{wire.Framed(true, gzipped(encoded("echo packed"))), "gzip"},
				{wire.Framed(true, gzipped(encoded("grow packed"))), "gzip"},
				{wire.Framed(true, gzipped(encoded("fail packed"))), "gzip"},
				{wire.Framed(false, encoded("echo unpacked")), "gzip"},
				{wire.Framed(true, []byte("not gzip")), "gzip"},
				{wire.Framed(true, bomb), "gzip"},
				{wire.Framed(true, gzipped(encoded("x"))), ""},
				{wire.Framed(true, gzipped(encoded("x"))), "identity"},
				{wire.Framed(false, make([]byte, 1<<20+grpcOverhead+1)), ""},
				{append([]byte{0, 0xff, 0xff, 0xff, 0xff}, 0, 0), ""},
				{wire.Framed(false, encoded("echo "+strings.Repeat("x", 1<<20))), ""},
			} {
				id := w.Headers(path, false, "grpc-encoding", map[bool]string{true: c.encoding, false: "-"}[c.encoding != ""])
				w.Data(id, true, c.payload)
				saw = append(saw, fmt.Sprint(path, what, ": ", seen(w.Await(id))))
			}
		}
		if a := w.Call(unaryPath, encoded("echo still")); !strings.Contains(string(a.Body), "still") {
			t.Errorf("the connection is of no use afterwards: %v", a)
		}
		return saw
	})
}

// play drives a stream by what the client says and returns what it sees.
func play(ctx context.Context, conn *grpc.ClientConn, path string, options []grpc.CallOption, say ...string) (saw []string) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, path, options...)
	if err != nil {
		return []string{err.Error()}
	}
	for _, s := range say {
		if err := stream.SendMsg(&bytesValue{Value: []byte(s)}); err != nil {
			break
		}
	}
	stream.CloseSend()
	for {
		out := new(bytesValue)
		err := stream.RecvMsg(out)
		if err != nil {
			header, _ := stream.Header()
			return append(saw, fmt.Sprint(status.Convert(err).Proto(), " ", err == io.EOF, header, stream.Trailer()))
		}
		saw = append(saw, fmt.Sprintf("%d %.20s", len(out.Value), out.Value))
	}
}

func TestStreamsAreAnsweredAlike(t *testing.T) {
	twoBodies(t, testLimits, func(t *testing.T, addr string, _ bool) (saw []string) {
		conn := dialGRPC(t, addr)
		for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor("gzip")}} {
			long := strings.Repeat("0123456789", 50000)
			for _, c := range [][]string{
				{upPath}, {upPath, "a"}, {upPath, "a", "b", "", "c"}, {upPath, long, long, "c"}, {upPath, long + long + long},
				{downPath}, {downPath, ""}, {downPath, "0123456789"}, {downPath, strings.Repeat("x", 2000)}, {downPath, "a", "b"},
				{bothPath}, {bothPath, "a", "b"}, {bothPath, "a", long, "b"}, {bothPath, "a", "end", "b"}, {bothPath, "a", "quit", "b"},
			} {
				saw = append(saw, c[0])
				saw = append(saw, play(t.Context(), conn, c[0], options, c[1:]...)...)
			}
		}
		return saw
	})
}

func TestMetadataOfTheGoClientIsAnsweredAlike(t *testing.T) {
	twoBodies(t, testLimits, func(t *testing.T, addr string, _ bool) (saw []string) {
		conn := dialGRPC(t, addr)
		ctx := metadata.AppendToOutgoingContext(t.Context(), "k", "v", "k", "w", "b-bin", "\x00\x01\xff", "large", strings.Repeat("l", 20000))
		for range 3 {
			for _, key := range []string{"k", "b-bin", "large", ":authority", "none", "content-type"} {
				var header, trailer metadata.MD
				out, err := ask(ctx, conn, unaryPath, "metadata "+key, grpc.Header(&header), grpc.Trailer(&trailer))
				saw = append(saw, fmt.Sprint(key, strings.ReplaceAll(out, addr, "ADDR"), err, header, trailer))
			}
			out, err := ask(ctx, conn, hotPath, "metadata k")
			if strings.HasPrefix(out, "v") { // a hot call sees the first value only
				out = "v"
			}
			saw = append(saw, fmt.Sprint(out, err))
		}
		limited, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		_, err := ask(limited, conn, unaryPath, "wait")
		return append(saw, status.Code(err).String()) // who notices first words it
	})
}

// What ends a connection: the code that a client is told.
func TestBrokenConnectionsEndAlike(t *testing.T) {
	for what, scene := range map[string]func(w *wire.Conn){
		"too many pings": func(w *wire.Conn) {
			for range 4 {
				w.Must(w.WritePing(false, [8]byte{1}))
			}
		},
		"an even stream": func(w *wire.Conn) {
			w.Next = 2
			w.Headers(unaryPath, true)
		},
	} {
		t.Run(what, func(t *testing.T) {
			twoBodies(t, testLimits, func(t *testing.T, addr string, _ bool) []string {
				w := wire.Dial(t, addr)
				scene(w)
				for w.Gone == nil {
					w.Pump()
				}
				if len(w.GoAway) == 0 {
					return []string{"no GOAWAY"}
				}
				return []string{strings.Join(strings.Fields(w.GoAway[0])[:2], " ")}
			})
		})
	}
}

// A graceful stop: the warning, the ping, and the last stream; what was begun is
// answered, and so is what the client sends before it has seen the warning.
func TestGracefulStopLooksAlike(t *testing.T) {
	scene := func(b Body) (saw []string) {
		addr := serveBody(t, b)
		w := wire.Dial(t, addr)
		w.Quiet = true // the answer to the ping comes later
		slow := w.Headers(bothPath, false)
		for w.Got[slow].Blocks == 0 {
			w.Pump()
		}
		stopped := make(chan struct{})
		go func() {
			b.GracefulStop()
			close(stopped)
		}()
		for len(w.GoAway) == 0 || w.FirstPing == nil {
			w.Pump()
		}
		late := w.Call(unaryPath, encoded("echo late"))
		saw = append(saw, seen(late))
		w.Must(w.WritePing(true, [8]byte(w.FirstPing)))
		for len(w.GoAway) < 2 {
			w.Pump()
		}
		refused := w.Headers(unaryPath, true)
		w.Data(slow, true, wire.Framed(false, encoded("end")))
		saw = append(saw, seen(w.Await(slow)))
		for w.Gone == nil {
			w.Pump()
		}
		saw = append(saw, fmt.Sprint(w.Got[refused].Blocks), strings.Join(w.GoAway, "; "))
		<-stopped
		return saw
	}
	want, got := scene(NewGRPCGo(testLimits, passUnary, passStream)), scene(NewServer(testLimits, passUnary, passStream))
	if !slices.Equal(want, got) {
		t.Errorf("grpc-go: %q\nours:    %q", want, got)
	}
}
