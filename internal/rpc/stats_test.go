package rpc

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/testkit/wire"
)

// counted finds a method.
func counted(t *testing.T, s *Stats, method string) MethodCount {
	t.Helper()
	for _, m := range s.Methods() {
		if m.Service == "test.Test" && m.Method == method {
			return m
		}
	}
	t.Fatalf("%s is not counted", method)
	return MethodCount{}
}

// text is what was counted but for durations.
func (m *MethodCount) text() string {
	return fmt.Sprint(m.Type, " ", m.Started, " received ", m.Received, " sent ", m.Sent, " handled ", m.Handled, " took ", m.Took.Count(), " failed ", m.Failed.Count())
}

// The same calls are counted alike, whatever serves them.
func TestCallsAreCountedAlike(t *testing.T) {
	ours, _, address := serveOurs(t, testLimits)
	theirs := NewGRPCGo(testLimits, passUnary, passStream)
	for _, c := range []struct {
		name, path, method string
		stats              *Stats
		addr               string
	}{
		{"hot", hotPath, "Hot", ours.Stats(), address}, {"goroutine", unaryPath, "Unary", ours.Stats(), address},
		{"grpc-go", unaryPath, "Unary", theirs.Stats(), serveBody(t, theirs)},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dialGRPC(t, c.addr)
			for range 3 {
				if _, err := ask(t.Context(), conn, c.path, "echo x"); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := ask(t.Context(), conn, c.path, "grow "+fmt.Sprintf("%0100d", 1)); err != nil { // more than a window
				t.Fatal(err)
			}
			for _, say := range []string{"fail x", "plain x", "fail y"} {
				if _, err := ask(t.Context(), conn, c.path, say); err == nil {
					t.Fatal("it went well")
				}
			}
			got := counted(t, c.stats, c.method)
			want := "unary 7 received 7 sent 4 handled map[OK:4 Unknown:1 FailedPrecondition:2] took 4 failed 3"
			if got.text() != want {
				t.Errorf("%s\nwant %s", got.text(), want)
			}
			if c.name == "hot" {
				return
			}
			stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, bothPath)
			if err != nil {
				t.Fatal(err)
			}
			for _, say := range []string{"a", "b"} {
				if err := stream.SendMsg(&bytesValue{Value: []byte(say)}); err != nil {
					t.Fatal(err)
				}
				if err := stream.RecvMsg(new(bytesValue)); err != nil {
					t.Fatal(err)
				}
			}
			if err := stream.SendMsg(&bytesValue{Value: []byte("quit")}); err != nil {
				t.Fatal(err)
			}
			if err := stream.RecvMsg(new(bytesValue)); status.Code(err) != codes.DataLoss {
				t.Fatal(err)
			}
			streams := counted(t, c.stats, "Both")
			if want := "bidi_stream 1 received 3 sent 2 handled map[OK:0 DataLoss:1] took 0 failed 1"; streams.text() != want {
				t.Errorf("%s\nwant %s", streams.text(), want)
			}
		})
	}
	if received, sent := ours.Stats().Bytes(); received < 300 || sent < 1_000_000 {
		t.Errorf("%d bytes received, %d sent", received, sent)
	}
}

// A hot call is counted once, whether its client waits or goes first.
func TestHotCallsThatNobodyWaitsForAreCounted(t *testing.T) {
	var slow []SlowCall
	limits := testLimits
	limits.Slow = SlowLimits{After: time.Nanosecond, Told: func(c SlowCall) {
		if c.Code != codes.OK {
			slow = append(slow, c)
		}
	}}
	s, h, addr := serveOurs(t, limits)
	conn := dialGRPC(t, addr)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := ask(ctx, conn, hotPath, "later")
		left <- err
	}()
	gone := <-h.later
	cancel()
	<-left
	if _, err := ask(t.Context(), conn, hotPath, "echo behind it"); err != nil { // the reset came before
		t.Fatal(err)
	}
	gone.Push(host.Result{Response: []byte("too late")})

	limited, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	go func() {
		_, err := ask(limited, conn, hotPath, "later")
		left <- err
	}()
	late := <-h.later
	if err := <-left; status.Code(err) != codes.DeadlineExceeded && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	for counted(t, s.Stats(), "Hot").Failed.Count() < 2 { // the server's clock, or the client's reset, comes a little later
		time.Sleep(time.Millisecond)
	}
	late.Push(host.Result{Response: []byte("too late")})

	go func() {
		_, err := ask(t.Context(), conn, hotPath, "later")
		left <- err
	}()
	cut := <-h.later
	s.Stop()
	<-left
	cut.Push(host.Result{})
	got := counted(t, s.Stats(), "Hot")
	ended := got.Handled[codes.Canceled] + got.Handled[codes.DeadlineExceeded]
	if got.Started != 4 || ended != 3 || got.Handled[codes.OK] != 1 || got.Sent != 1 || got.Handled[codes.Canceled] < 2 {
		t.Errorf("%s", got.text())
	}
	if len(slow) != 3 || slow[0].Method != hotPath || slow[0].Peer == "" || slow[0].RequestBytes == 0 || slow[0].Code != codes.Canceled {
		t.Errorf("told as slow: %+v", slow)
	}
}

// A message of a stream that cannot be read is counted; a client that says no more, gives
// up or goes is nobody's failure.
func TestStreamsThatFailAreCounted(t *testing.T) {
	ours, _, address := serveOurs(t, testLimits)
	theirs := NewGRPCGo(testLimits, passUnary, passStream)
	for _, c := range []struct {
		name  string
		stats *Stats
		addr  string
	}{{"ours", ours.Stats(), address}, {"grpc-go", theirs.Stats(), serveBody(t, theirs)}} {
		t.Run(c.name, func(t *testing.T) {
			w := wire.Dial(t, c.addr)
			id := w.Headers(bothPath, false)
			w.Data(id, true, nil)
			if a := w.Await(id); a.Code != codes.OK {
				t.Fatal(a)
			}
			ctx, cancel := context.WithCancel(t.Context())
			stream, err := dialGRPC(t, c.addr).NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, bothPath)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Header(); err != nil { // its handler has begun
				t.Fatal(err)
			}
			cancel()
			for counted(t, c.stats, "Both").Handled[codes.Canceled] == 0 {
				time.Sleep(time.Millisecond)
			}
			if got := counted(t, c.stats, "Both"); got.NotReceived != 0 || got.NotSent != 0 {
				t.Errorf("%d messages were not received, %d not sent", got.NotReceived, got.NotSent)
			}
			id = w.Headers(bothPath, false)
			w.Data(id, false, wire.Framed(false, []byte{0xff}))
			if a := w.Await(id); a.Code != codes.Internal {
				t.Fatal(a)
			}
			for counted(t, c.stats, "Both").Handled[codes.Internal] == 0 { // the client may know first
				time.Sleep(time.Millisecond)
			}
			if got := counted(t, c.stats, "Both"); got.NotReceived != 1 || got.NotSent != 0 {
				t.Errorf("%d messages were not received, %d not sent", got.NotReceived, got.NotSent)
			}
		})
	}
}
