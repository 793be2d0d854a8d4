package rpc

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/kvorum/kvorum/internal/host"
)

// tellTale is a Tracer that wants the calls whose traceparent begins with "yes".
type tellTale struct {
	mu     sync.Mutex
	asked  int
	traced []TracedCall
	came   chan struct{}
}

func (t *tellTale) Wants(parent string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked++
	return strings.HasPrefix(parent, "yes")
}

func (t *tellTale) Trace(c TracedCall) {
	t.mu.Lock()
	t.traced = append(t.traced, c)
	t.mu.Unlock()
	t.came <- struct{}{}
}

func (t *tellTale) Applying() time.Duration { return 3 * time.Millisecond }

// next waits for the next call that is told.
func (t *tellTale) next() TracedCall {
	<-t.came
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.traced[len(t.traced)-1]
}

// marked is a call's metadata.
func marked(ctx context.Context, parent string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "traceparent", parent, "tracestate", "of="+parent)
}

// Whatever serves a call, it is traced as it was; one that is not wanted is not.
func TestTracedCalls(t *testing.T) {
	for _, c := range []struct{ name, path string }{{"hot", hotPath}, {"goroutine", unaryPath}, {"grpc-go", unaryPath}} {
		t.Run(c.name, func(t *testing.T) {
			tale := &tellTale{came: make(chan struct{}, 16)}
			limits := testLimits
			limits.Tracer = tale
			var addr string
			if c.name == "grpc-go" {
				addr = serveBody(t, NewGRPCGo(limits, passUnary, passStream))
			} else {
				_, _, addr = serveOurs(t, limits)
			}
			conn := dialGRPC(t, addr)
			for _, step := range []struct {
				parent, say string
				code        codes.Code
				message     string
			}{
				{"no", "echo x", 0, ""},
				{"yes one", "echo x", codes.OK, ""},
				{"yes two", "fail it did", codes.FailedPrecondition, "it did"},
				{"yes three", "plain words", codes.Unknown, "words"},
				{"yes four", "grow 0123456789", codes.OK, ""}, // more than a window
			} {
				begun := time.Now()
				_, err := ask(marked(t.Context(), step.parent), conn, c.path, step.say)
				if (err == nil) != (step.code == codes.OK) {
					t.Fatal(err)
				}
				if step.parent == "no" {
					continue
				}
				got := tale.next()
				if got.Method != c.path || got.Code != step.code || got.Message != step.message || got.Parent != step.parent || got.State != "of="+step.parent ||
					got.Stream || got.Peer == nil || got.Begun.Before(begun) || got.Ended.Before(got.Begun) || got.Ended.After(time.Now()) {
					t.Errorf("%q: %+v", step.parent, got)
				}
				if hot := c.name == "hot"; hot != (got.RequestBytes > 0) || hot == got.Ready.IsZero() ||
					hot && (got.Ready.Before(got.Begun) || got.Ready.After(got.Ended)) {
					t.Errorf("%q: ready at %v of %v to %v, %d bytes", step.parent, got.Ready, got.Begun, got.Ended, got.RequestBytes)
				}
			}
			if tale.asked != 5 || len(tale.traced) != 4 {
				t.Errorf("%d of %d calls were traced", len(tale.traced), tale.asked)
			}
		})
	}
}

// A stream is one span, from its first message to its end.
func TestATracedStream(t *testing.T) {
	tale := &tellTale{came: make(chan struct{}, 1)}
	limits := testLimits
	limits.Tracer = tale
	_, _, addr := serveOurs(t, limits)
	stream, err := dialGRPC(t, addr).NewStream(marked(t.Context(), "yes"), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, bothPath)
	if err != nil {
		t.Fatal(err)
	}
	for _, say := range []string{"a", "quit"} {
		if err := stream.SendMsg(&bytesValue{Value: []byte(say)}); err != nil {
			t.Fatal(err)
		}
		_ = stream.RecvMsg(new(bytesValue))
	}
	if got := tale.next(); got.Method != bothPath || !got.Stream || got.Code != codes.DataLoss || got.Parent != "yes" {
		t.Errorf("%+v", got)
	}
}

// A hot call that nobody waits for any more is traced once, as it ended; its result
// may come at that very moment, or later.
func TestTracedCallsThatNobodyWaitsFor(t *testing.T) {
	tale := &tellTale{came: make(chan struct{}, 16)}
	limits := testLimits
	limits.Tracer = tale
	_, h, addr := serveOurs(t, limits)
	conn := dialGRPC(t, addr)
	left := make(chan error, 1)
	late := func(ctx context.Context) *Call {
		go func() {
			_, err := ask(marked(ctx, "yes"), conn, hotPath, "later")
			left <- err
		}()
		return <-h.later
	}
	ctx, cancel := context.WithCancel(t.Context())
	call := late(ctx)
	go call.Push(host.Result{Response: []byte("too late, or not")})
	cancel()
	<-left
	if got := tale.next(); got.Code != codes.Canceled && got.Code != codes.OK {
		t.Errorf("%+v", got)
	}
	limited, stop := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer stop()
	call = late(limited)
	<-left
	if got := tale.next(); got.Code != codes.DeadlineExceeded && got.Code != codes.Canceled || !got.Ready.IsZero() {
		t.Errorf("%+v", got)
	}
	call.Push(host.Result{Response: []byte("too late")})
	call = late(t.Context())
	call.Push(host.Result{Response: []byte("in time"), Index: 7})
	if err := <-left; err != nil {
		t.Fatal(err)
	}
	if got := tale.next(); got.Code != codes.OK || !got.Wrote || got.Index != 7 || got.Applying != tale.Applying() {
		t.Errorf("%+v", got)
	}
	if len(tale.traced) != 3 {
		t.Errorf("%d calls were traced", len(tale.traced))
	}
}
