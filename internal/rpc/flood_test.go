package rpc

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/testkit/wire"
)

// Clients that want too much: memory stays bounded, and others are served.

func heapNow() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// fill writes a frame again and again, without ever reading, until the server takes
// no more or total bytes are written.
func fill(t *testing.T, conn net.Conn, frame []byte, total int) (written int) {
	t.Helper()
	many := bytes.Repeat(frame, max(1, 64<<10/len(frame)))
	for written < total {
		conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := conn.Write(many)
		written += n
		if err != nil {
			break
		}
	}
	return written
}

func TestFloodsOfWhoNeverReads(t *testing.T) {
	for what, frame := range map[string][]byte{
		"settings": appendSettings(nil),
		"resets of nothing": append(appendFrameHead(nil, 0, http2.FrameData, http2.FlagDataEndStream, 1),
			appendFrameHead(nil, 0, http2.FrameData, http2.FlagDataEndStream, 1)...),
	} {
		_, _, addr := serveOurs(t, testLimits)
		w := wire.Dial(t, addr)
		w.Call(unaryPath, encoded("echo x")) // stream 1 is closed
		before := heapNow()
		written := fill(t, w.Net, frame, 64<<20)
		if now := heapNow(); now > before+8<<20 {
			t.Errorf("%s: the heap grew from %d to %d by %d bytes", what, before, now, written)
		}
		if _, err := ask(t.Context(), dialGRPC(t, addr), hotPath, "echo x"); err != nil {
			t.Errorf("%s: another client is not served: %v", what, err)
		}
	}
}

func TestPingsWithoutEnd(t *testing.T) {
	limits := testLimits
	limits.PingMinimum = time.Nanosecond
	_, hot, addr := serveOurs(t, limits)
	w := wire.Dial(t, addr)
	begin(w, hotPath, "later") // pings without calls end the connection
	call := <-hot.later
	before := heapNow()
	if written := fill(t, w.Net, appendPing(nil, 0, [8]byte{1}), 64<<20); written == 64<<20 {
		t.Error("the server takes pings whose answers nobody reads, without end")
	}
	if now := heapNow(); now > before+8<<20 {
		t.Errorf("the heap grew from %d to %d", before, now)
	}
	call.Push(host.Result{Response: []byte("x")})
}

func TestAHeaderBlockWithoutEnd(t *testing.T) {
	for what, piece := range map[string][]byte{"empty": nil, "large": bytes.Repeat([]byte{0x82}, 16000)} {
		_, _, addr := serveOurs(t, testLimits)
		w := wire.Dial(t, addr)
		w.Must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x83}}))
		for range 5000 {
			if w.WriteContinuation(1, false, piece) != nil {
				break
			}
		}
		for w.Gone == nil {
			w.Pump()
		}
		if len(w.GoAway) != 1 || !strings.Contains(w.GoAway[0], "ENHANCE_YOUR_CALM") {
			t.Errorf("%s: %q", what, w.GoAway)
		}
	}
}

// Calls begun and reset at once stay charged: from some number on the connection is
// not read until they have ended. Then it goes on.
func TestRapidReset(t *testing.T) {
	// No stream is refused for being one too many: each is to be begun.
	limits := testLimits
	limits.MaxConcurrentStreams = 100 * mostAbandoned
	s, hot, addr := serveOurs(t, limits)
	w := wire.Dial(t, addr)
	if a := w.Call(hotPath, encoded("echo x")); a.Code != codes.OK {
		t.Fatalf("before: %v", a)
	}
	c := onlyConn(t, s)
	const many = 3 * mostAbandoned
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range many {
			id := begin(w, hotPath, "later")
			if w.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				t.Error("the connection was ended")
				return
			}
		}
	}()
	other := dialGRPC(t, addr)
	peak := 0
	for ended := 0; ended < many; {
		select {
		case call := <-hot.later:
			c.mu.Lock()
			peak = max(peak, c.abandoned)
			c.mu.Unlock()
			ended++
			call.Push(host.Result{Response: []byte("x")})
		default:
			if _, err := ask(t.Context(), other, unaryPath, "echo x"); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-sent
	// What one read brings is taken in before anybody looks.
	if most := mostAbandoned + mostRead/40; peak > most {
		t.Errorf("%d calls were in flight for nobody, more than %d", peak, most)
	}
	if a := w.Call(hotPath, encoded("echo x")); a.Code != codes.OK {
		t.Errorf("afterwards: %v", a)
	}
}

// Large answers that nobody reads are made one after the other, as they go out.
func TestAnswersThatNobodyReads(t *testing.T) {
	s, _, addr := serveOurs(t, testLimits)
	w := wire.DialNarrow(t, addr, 0)
	const calls = 100
	before := heapNow()
	var ids []uint32
	for range calls {
		ids = append(ids, begin(w, hotPath, "grow "+strings.Repeat("x", 100)))
	}
	w.Must(w.WritePing(false, [8]byte{}))
	for w.Pongs == 0 {
		w.Pump()
	}
	c := onlyConn(t, s)
	for quiet := false; !quiet; runtime.Gosched() {
		c.mu.Lock()
		quiet = c.asleep
		c.mu.Unlock()
	}
	c.mu.Lock()
	parked := c.parked
	c.mu.Unlock()
	if parked > mostParked+2<<20 {
		t.Errorf("%d bytes are parked", parked)
	}
	// The handler of this test makes its answers when they are begun; of these the
	// connection keeps no copy but those that are parked.
	if now := heapNow(); now > before+calls*(1<<20)+3*mostParked {
		t.Errorf("the heap grew from %d to %d", before, now)
	}
	w.Must(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
	for _, id := range slices.Backward(ids) {
		if a := w.Await(id); a.Code != codes.OK || len(a.Body) < 1_000_000 {
			t.Fatalf("%v, %d bytes", a, len(a.Body))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parked != 0 || c.held != nil || len(c.streams) != 0 || c.extra != 0 {
		t.Errorf("left over: %d parked, %v held, %d streams, %d extra", c.parked, c.held, len(c.streams), c.extra)
	}
}

// A crowd of calls that never come entirely costs what was sent, not what was promised.
func TestMessagesThatNeverEnd(t *testing.T) {
	s, _, addr := serveOurs(t, testLimits)
	w := wire.Dial(t, addr)
	before := heapNow()
	for i := range 900 {
		id := w.Headers([]string{hotPath, unaryPath, bothPath}[i%3], false)
		w.Data(id, false, []byte{0, 0, 0x10, 0, 0, 1, 2, 3})
	}
	w.Must(w.WritePing(false, [8]byte{}))
	for w.Pongs == 0 {
		w.Pump()
	}
	if now := heapNow(); now > before+16<<20 {
		t.Errorf("the heap grew from %d to %d", before, now)
	}
	c := onlyConn(t, s)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.extra > mostExtra+2<<20 {
		t.Errorf("%d bytes were granted beyond the windows", c.extra)
	}
}

func ExampleServer() {
	s := NewServer(Limits{MaxRequestBytes: 1 << 20}, nil, nil)
	s.RegisterService(&testService, struct{}{})
	fmt.Println(s.unknown("/test.Test/Nothing"))
	// Output: unknown method Nothing for service test.Test
}
