package rpc

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/testkit/wire"
)

// Hot calls that wait end in any order, from any goroutine, and are all answered.
func TestHotCallsEndInAnyOrder(t *testing.T) {
	_, hot, addr := serveOurs(t, testLimits)
	w := wire.Dial(t, addr)
	const calls = 200
	ids := make([]uint32, calls)
	for i := range ids {
		ids[i] = w.Headers(hotPath, false)
		w.Data(ids[i], true, wire.Framed(false, encoded("later")))
	}
	waiting := make([]*Call, calls)
	for i := range waiting {
		waiting[i] = <-hot.later
	}
	var wg sync.WaitGroup
	for i, call := range slices.Backward(waiting) {
		wg.Go(func() {
			if i%10 == 9 {
				call.Refuse(status.Error(codes.Aborted, "the tenth"))
			} else if i%10 == 8 {
				call.Push(host.Result{Response: []byte("elsewhere")})
			} else {
				call.Push(host.Result{Response: []byte("here")})
			}
		})
	}
	wg.Wait()
	got := map[string]int{}
	for _, id := range ids {
		a := w.Await(id)
		got[fmt.Sprint(a.Code, strings.TrimLeft(string(a.Body), "\x00\x06\x04\x0b\x09\n"))]++
	}
	if want := "map[Aborted:20 OKelsewhere:20 OKhere:160]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}

// A call that the client gave up is charged to its connection until its result comes,
// and its result goes to nobody.
func TestADetachedCallIsDropped(t *testing.T) {
	s, hot, addr := serveOurs(t, testLimits)
	w := wire.Dial(t, addr)
	given := w.Headers(hotPath, false)
	w.Data(given, true, wire.Framed(false, encoded("later")))
	call := <-hot.later
	w.Must(w.WriteRSTStream(given, http2.ErrCodeCancel))
	w.Call(hotPath, encoded("echo in between")) // by now the reset was read
	c := onlyConn(t, s)
	c.mu.Lock()
	charged := c.abandoned
	c.mu.Unlock()
	if charged != 1 {
		t.Errorf("%d calls are charged, want 1", charged)
	}
	call.Push(host.Result{Response: []byte("too late")})
	if a := w.Call(hotPath, encoded("echo after")); !strings.HasSuffix(string(a.Body), "after") {
		t.Errorf("%v %q", a, a.Body)
	}
	c.mu.Lock()
	charged = c.abandoned
	c.mu.Unlock()
	if charged != 0 || len(w.Got[given].Body) != 0 {
		t.Errorf("%d calls are charged, the client got %q", charged, w.Got[given].Body)
	}
	// A call whose connection is lost may end, too.
	begin(w, hotPath, "later")
	call = <-hot.later
	w.Net.Close()
	for s.count() > 0 {
		runtime.Gosched()
	}
	call.Push(host.Result{Response: []byte("nobody")})
}

// begin sends a call as a whole, and does not wait for its answer.
func begin(w *wire.Conn, path, say string) uint32 {
	id := w.Headers(path, false)
	w.Data(id, true, wire.Framed(false, encoded(say)))
	return id
}

func (s *Server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func onlyConn(t *testing.T, s *Server) *conn {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		return c
	}
	t.Fatal("no connection")
	return nil
}

// The deadline of a hot call ends it for its client, whatever it waits for.
func TestADeadlineEndsAHotCall(t *testing.T) {
	_, hot, addr := serveOurs(t, testLimits)
	w := wire.Dial(t, addr)
	id := w.Headers(hotPath, false, "grpc-timeout", "30m")
	w.Data(id, true, wire.Framed(false, encoded("later")))
	call := <-hot.later
	if at, ok := call.Deadline(); !ok || time.Until(at) > 30*time.Millisecond {
		t.Errorf("the deadline is %v, %v", at, ok)
	}
	if a := w.Await(id); a.Code != codes.DeadlineExceeded || a.Text != "context deadline exceeded" {
		t.Errorf("%v", a)
	}
	call.Push(host.Result{Response: []byte("too late")})
	// One whose message never comes entirely, and one of a unary method.
	for _, path := range []string{hotPath, unaryPath} {
		id = w.Headers(path, false, "grpc-timeout", "30m")
		w.Data(id, false, []byte{0, 0, 0})
		if a := w.Await(id); a.Code != codes.DeadlineExceeded {
			t.Errorf("%s: %v", path, a)
		}
	}
	if a := w.Call(hotPath, encoded("echo x"), "grpc-timeout", "1H"); a.Code != codes.OK {
		t.Errorf("%v", a)
	}
}

// Windows of one byte: everything arrives, byte by byte, and others are not held up.
func TestTinyWindows(t *testing.T) {
	_, _, addr := serveOurs(t, testLimits)
	w := wire.DialNarrow(t, addr, 0)
	var ids []uint32
	for _, path := range []string{hotPath, unaryPath, hotPath} {
		ids = append(ids, begin(w, path, "echo hello"))
	}
	for _, id := range ids {
		for n := 0; n < 12; n++ {
			w.Must(w.WriteWindowUpdate(id, 1))
			for len(w.Got[id].Body) <= n {
				w.Pump()
			}
		}
		if a := w.Await(id); a.Code != codes.OK || !strings.HasSuffix(string(a.Body), "hello") {
			t.Errorf("%v %q", a, a.Body)
		}
	}
	// All at once by SETTINGS, also for a stream that waits.
	id := begin(w, hotPath, "grow abc")
	w.Must(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
	if a := w.Await(id); a.Code != codes.OK || len(a.Body) < 30000 {
		t.Errorf("%v, %d bytes", a, len(a.Body))
	}
}

// A stream that has much to send is written out of a buffer of the pool, whether its
// messages are answers to hot calls or a goroutine's; one that has little is not.
func TestWhoHasMuchToSendTakesABufferOfThePool(t *testing.T) {
	for bytes, want := range map[int]bool{keptBuffer: false, keptBuffer + 1: true} {
		c := &conn{}
		c.active.push(&stream{out: outbound{bytes: bytes}})
		if buf, _, _ := c.gather(nil); (cap(buf) == pooledBuffer) != want {
			t.Errorf("%d bytes are sent out of a buffer of %d", bytes, cap(buf))
		}
	}
}

// The connection's window is shared, and its streams take turns.
func TestTheConnectionsWindowIsShared(t *testing.T) {
	_, _, addr := serveOurs(t, testLimits)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w := wire.On(t, conn)
	// Both answers wait for their streams' windows until both are there.
	w.Must(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	a, b := begin(w, hotPath, "grow 0123456789"), begin(w, unaryPath, "grow 0123456789")
	for w.Got[a].Blocks == 0 || w.Got[b].Blocks == 0 {
		w.Pump()
	}
	w.Must(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}))
	for len(w.Got[a].Body)+len(w.Got[b].Body) < firstWindow {
		w.Pump()
	}
	if len(w.Got[a].Body) == 0 || len(w.Got[b].Body) == 0 {
		t.Errorf("the streams got %d and %d bytes", len(w.Got[a].Body), len(w.Got[b].Body))
	}
	w.Must(w.WriteWindowUpdate(0, 1<<20))
	for _, id := range []uint32{a, b} {
		if x := w.Await(id); x.Code != codes.OK || len(x.Body) < 100000 {
			t.Errorf("%v, %d bytes", x, len(x.Body))
		}
	}
}

// Many messages larger than a window at once, on one connection: all arrive, though
// they may not all be on their way at the same time.
func TestLargeMessagesShareWhatIsBeyondTheirWindows(t *testing.T) {
	_, _, addr := serveOurs(t, testLimits)
	conn := dialGRPC(t, addr)
	long := "echo " + strings.Repeat("x", 1<<20)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if out, err := ask(t.Context(), conn, hotPath, long); err != nil || len(out) != 1<<20 {
				t.Errorf("%d bytes, %v", len(out), err)
			}
		})
	}
	wg.Wait()
}

// A client that sees the first step of a graceful stop goes elsewhere: the official
// one loses no call.
func TestAGracefulStopFailsNoCall(t *testing.T) {
	s, _, addr := serveOurs(t, testLimits)
	other := serveBody(t, NewServer(testLimits, passUnary, passStream))
	conn := dialGRPC(t, "passthrough:///"+addr, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		var d net.Dialer
		if c, err := d.DialContext(ctx, "tcp", addr); err == nil {
			return c, nil
		}
		return d.DialContext(ctx, "tcp", other)
	}))
	stop, calls := make(chan struct{}), 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				path := []string{hotPath, unaryPath}[(i+n)%2]
				if _, err := ask(t.Context(), conn, path, "echo x"); err != nil {
					t.Errorf("%s: %v", path, err)
					return
				}
				mu.Lock()
				calls++
				mu.Unlock()
			}
		})
	}
	reach := func(n int) {
		for {
			mu.Lock()
			have := calls
			mu.Unlock()
			if have >= n || t.Failed() {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	reach(200)
	s.GracefulStop()
	mu.Lock()
	n := calls
	mu.Unlock()
	reach(n + 200)
	close(stop)
	wg.Wait()
}

// Stop cuts a graceful stop short; handlers learn it by their contexts.
func TestStopEndsAGracefulStop(t *testing.T) {
	s, _, addr := serveOurs(t, testLimits)
	conn := dialGRPC(t, addr)
	ended := make(chan error, 1)
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, bothPath)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- stream.RecvMsg(new(bytesValue)) }()
	graceful := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(graceful)
	}()
	select {
	case <-graceful:
		t.Error("an open stream did not keep the server")
	case <-time.After(50 * time.Millisecond):
	}
	s.Stop()
	<-graceful
	if err := <-ended; status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	if err := s.Serve(closedListener{}); err != grpc.ErrServerStopped {
		t.Errorf("a stopped server serves: %v", err)
	}
}

type closedListener struct{ net.Listener }

func (closedListener) Close() error { return nil }

// A silent client is pinged, and given up when it does not answer.
func TestKeepaliveOfASilentClient(t *testing.T) {
	limits := testLimits
	limits.PingInterval, limits.PingTimeout = 50*time.Millisecond, 100*time.Millisecond
	_, _, addr := serveOurs(t, limits)
	w := wire.Dial(t, addr)
	for w.Pinged < 3 {
		w.Pump()
	}
	if w.Gone != nil {
		t.Fatalf("a client that answers is given up: %v", w.Gone)
	}
	w.Quiet = true
	begin := time.Now()
	for w.Gone == nil {
		w.Pump()
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("given up after %v", took)
	}
}

// A connection that says too little is closed, one after the other way of it.
func TestConnectionTimeout(t *testing.T) {
	for _, c := range []struct{ what, said string }{
		{"another preface", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"},
		{"no settings", http2.ClientPreface + "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"},
		{"a frame too large", http2.ClientPreface + "\xff\xff\xff\x00\x00\x00\x00\x00\x01"},
	} {
		_, _, addr := serveOurs(t, testLimits)
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(9 * time.Second)) // less than the time-out: it is closed at once
		io.WriteString(conn, c.said)
		if _, err := io.Copy(io.Discard, conn); err != nil && isTimeout(err) {
			t.Errorf("%s: the connection stays open", c.what)
		}
		conn.Close()
	}
}

func isTimeout(err error) bool {
	nerr, ok := err.(net.Error)
	return ok && nerr.Timeout()
}

// The client's table of header fields may be of any size, and change.
func TestTheClientsHeaderTable(t *testing.T) {
	_, _, addr := serveOurs(t, testLimits)
	for _, size := range []uint32{0, 1, 100, 256, 4096, 1 << 20} {
		w := wire.Dial(t, addr)
		for _, size := range []uint32{4096, size, 4096, size} {
			w.Must(w.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: size}))
			w.ReadMetaHeaders.SetAllowedMaxDynamicTableSize(size)
			for range 2 {
				for _, path := range []string{hotPath, unaryPath} {
					if a := w.Call(path, encoded("echo x")); a.Code != codes.OK || a.HTTP != "200" || a.Kind != "application/grpc" {
						t.Fatalf("table of %d: %v", size, a)
					}
					if a := w.Call(path, encoded("fail x")); a.Code != codes.FailedPrecondition {
						t.Fatalf("table of %d: %v", size, a)
					}
				}
			}
		}
		w.Net.Close()
	}
}

// What was promised of the limits of streams and header lists.
func TestLimitsOfStreamsAndHeaders(t *testing.T) {
	limits := testLimits
	limits.MaxConcurrentStreams = 3
	_, hot, addr := serveOurs(t, limits)
	w := wire.Dial(t, addr)
	for range 3 {
		begin(w, hotPath, "later")
	}
	fourth := begin(w, unaryPath, "echo x")
	if a := w.Await(fourth); a.Reset != http2.ErrCodeRefusedStream {
		t.Errorf("the fourth: %v", a)
	}
	for range 3 {
		(<-hot.later).Push(host.Result{Response: []byte("x")})
	}
	w.Await(5)
	if a := w.Call(unaryPath, encoded("echo x"), "large", strings.Repeat("x", 900_000)); a.Code != codes.OK {
		t.Errorf("large headers: %v", a)
	}
	if a := w.Call(unaryPath, encoded("echo x"), "large", strings.Repeat("x", 800_000), "larger", strings.Repeat("\xff", 400_000)); a.Code == codes.OK && a.Reset == 0 && w.Gone == nil {
		t.Errorf("headers that are too large: %v", a)
	}
}
