package rpc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/testkit/wire"
)

const (
	longPath   = "/test.Test/Long"
	longStream = "/test.Test/LongStream"
)

// longTester answers "KIND BYTES" with so many bytes of a pattern.
type longTester struct {
	open  atomic.Int64 // sources that were not closed
	wrong atomic.Int64 // used in a way that they must not be
	held  atomic.Int64 // by sources that asked for it
	most  atomic.Int64 // there ever was of that
}

func (h *longTester) Begin(call *Call, message []byte) {
	call.State = string(message)
	call.Push(host.Result{})
}

func (h *longTester) Answer(dst []byte, _ *Call, _ host.Result) ([]byte, error) {
	return dst, ErrElsewhere
}

func (h *longTester) Source(call *Call, _ host.Result) (Source, bool, error) {
	s := &patterned{h: h}
	if _, err := fmt.Sscanf(call.State.(string), "%s %d", &s.kind, &s.total); err != nil {
		return nil, false, status.Error(codes.InvalidArgument, err.Error())
	}
	h.open.Add(1)
	return s, call.Method() == longStream, nil
}

type patterned struct {
	h               *longTester
	kind            string
	total, made     int64
	measured        int64
	known, needed   bool
	running, closed atomic.Bool
}

var pattern = func() []byte {
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return p
}()

func patternAt(dst []byte, from int64, n int) []byte {
	for n > 0 {
		part := pattern[from%int64(len(pattern)):]
		part = part[:min(n, len(part))]
		dst = append(dst, part...)
		from, n = from+int64(len(part)), n-len(part)
	}
	return dst
}

func (s *patterned) Next(dst []byte, measure bool) ([]byte, error) {
	if !s.running.CompareAndSwap(false, true) || s.closed.Load() {
		s.h.wrong.Add(1)
	}
	defer s.running.Store(false)
	switch {
	case s.kind == "early":
		return dst, status.Error(codes.DataLoss, "early")
	case s.kind == "late" && s.made > s.total/2:
		return dst, status.Error(codes.Unavailable, "late")
	case s.kind == "need" && !s.needed:
		s.needed = true
		return dst, &NeedError{Bytes: s.total}
	case s.kind == "need" && !s.known:
		s.known = true
		if now := s.h.held.Add(s.total); now > s.h.most.Load() {
			s.h.most.Store(now)
		}
		return dst, nil
	case measure:
		if s.measured = max(s.measured, s.made) + 1<<20; s.measured >= s.total {
			s.known = true
		}
		return dst, nil
	}
	n := int(min(s.total-s.made, int64(cap(dst)-len(dst)), 100_000))
	if s.kind == "many" && s.made%3 == 1 && n > 1 {
		n = 1
	}
	dst = patternAt(dst, s.made, n)
	s.made += int64(n)
	s.known = s.known || s.made == s.total
	return dst, nil
}

func (s *patterned) Left() int64 {
	if !s.known {
		return -1
	}
	return s.total - s.made
}

func (s *patterned) Head(dst []byte) []byte { return append(dst, "head"...) }

func (s *patterned) Close() {
	if s.running.Load() || s.closed.Swap(true) {
		s.h.wrong.Add(1)
	}
	if s.kind == "need" && s.known {
		s.h.held.Add(-s.total)
	}
	s.h.open.Add(-1)
}

func serveLong(t testing.TB, budget int) (*Server, *longTester, string) {
	t.Helper()
	limits := testLimits
	limits.AnswerBytes = budget
	s := NewServer(limits, passUnary, passStream)
	h := &longTester{}
	s.RegisterHot(longPath, h)
	s.RegisterHotStream(longStream, h, "cold")
	addr := serveBody(t, s)
	t.Cleanup(func() {
		eventually(t, "everything is given back", func() bool {
			return h.open.Load() == 0 && s.budget.left.Load() == s.budget.size
		})
		if n := h.wrong.Load(); n != 0 {
			t.Errorf("%d times a source was used as it must not be", n)
		}
	})
	return s, h, addr
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// whole says what is wrong with the one message of an answer.
func whole(a *wire.Answer, total int) error {
	want := wire.Framed(false, patternAt([]byte("head"), 0, total))
	if a.Code != codes.OK || !a.Status || !bytes.Equal(a.Body, want) {
		return fmt.Errorf("%v, %d bytes of %d", a, len(a.Body), len(want))
	}
	return nil
}

// Answers of all lengths come whole, with a budget and with next to none, to clients
// with wide windows and narrow ones.
func TestLongAnswersComeWhole(t *testing.T) {
	for _, budget := range []int{1 << 10, 600 << 10, 32 << 20} {
		t.Run(fmt.Sprint(budget), func(t *testing.T) {
			_, _, addr := serveLong(t, budget)
			var all sync.WaitGroup
			for _, window := range []uint32{1 << 30, 70_000, 20_000} {
				w := wire.DialNarrow(t, addr, window)
				all.Go(func() {
					totals := []int{0, 1, 16_000, 65_000, chunkBytes, chunkBytes + 1, 1_000_000, mostBuffered + 5}
					var ids []uint32
					for _, total := range totals {
						id := w.Headers(longPath, false)
						w.Data(id, true, wire.Framed(false, fmt.Appendf(nil, "one %d", total)))
						ids = append(ids, id)
					}
					for i, id := range ids {
						a := w.Got[id]
						for given := 0; !a.Ended; w.Pump() {
							if n := len(a.Body); n > given {
								w.Must(w.WriteWindowUpdate(id, uint32(n-given)))
								given = n
							}
						}
						if err := whole(a, totals[i]); err != nil {
							t.Errorf("window %d, %d bytes: %v", window, totals[i], err)
						}
					}
				})
			}
			all.Wait()
		})
	}
}

// A source of messages sends them one by one.
func TestLongStreamsOfMessages(t *testing.T) {
	for _, budget := range []int{1 << 10, 32 << 20} {
		_, _, addr := serveLong(t, budget)
		w := wire.Dial(t, addr)
		const total = 3_000_000
		a := w.Call(longStream, fmt.Appendf(nil, "many %d", total))
		var got []byte
		messages := 0
		for rest := a.Body; len(rest) > 0; messages++ {
			n := binary.BigEndian.Uint32(rest[1:])
			got = append(got, rest[messageHead:messageHead+n]...)
			rest = rest[messageHead+n:]
		}
		if a.Code != codes.OK || !a.Status || !bytes.Equal(got, patternAt(nil, 0, total)) || messages < total/100_000 {
			t.Errorf("budget %d: %v, %d bytes in %d messages", budget, a, len(got), messages)
		}
	}
}

// What goes wrong before the first byte is a status; later only a reset is left.
func TestLongAnswersThatFail(t *testing.T) {
	_, _, addr := serveLong(t, 32<<20)
	w := wire.Dial(t, addr)
	for _, c := range []struct {
		path, say string
		code      codes.Code
		reset     http2.ErrCode
	}{
		{longPath, "what", codes.InvalidArgument, 0},
		{longPath, "early 100", codes.DataLoss, 0},
		{longPath, "late 1000000", codes.Unavailable, 0}, // its length was not known yet
		{longPath, "late 50000000", codes.OK, http2.ErrCodeRefusedStream},
		{longPath, "one 3000000000", codes.ResourceExhausted, 0},
		{longStream, "late 1000000", codes.Unavailable, 0},
		{"/test.Test/Unary", "", codes.Unimplemented, 0}, // the connection goes on
	} {
		a := w.Call(c.path, []byte(c.say))
		if a.Code != c.code || a.Reset != c.reset {
			t.Errorf("%s: %v", c.say, a)
		}
	}
}

// Clients that take nothing: they hold what the budget allows and little more, others
// are served meanwhile, and when they go or their time is up it is given back.
func TestSlowReadersOfLongAnswers(t *testing.T) {
	const budget = 2 << 20
	s, h, addr := serveLong(t, budget)
	var slow []*wire.Conn
	for i := range 20 {
		w := wire.DialNarrow(t, addr, 1000)
		for j := range 5 {
			path := []string{longPath, longStream}[j%2]
			timeout := []string{"-", "500m"}[i%2]
			w.Data(w.Headers(path, false, "grpc-timeout", timeout), true, wire.Framed(false, []byte("one 20000000")))
		}
		slow = append(slow, w)
	}
	for _, w := range slow {
		for id := uint32(1); id < w.Next; id += 2 {
			for len(w.Got[id].Body) < 1000 && !w.Got[id].Ended {
				w.Pump()
			}
		}
	}
	least := s.budget.left.Load()
	if over := -least; over > 100*leastChunk {
		t.Errorf("100 slow readers hold %d bytes more than there are", over)
	}
	var all sync.WaitGroup
	for range 2 {
		w := wire.Dial(t, addr)
		all.Go(func() {
			for range 3 {
				if err := whole(w.Call(longPath, []byte("one 5000000")), 5_000_000); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for i, w := range slow {
		switch i % 4 {
		case 0: // goes on: all is there
			w.Must(w.WriteWindowUpdate(1, 1<<30))
			if err := whole(w.Await(1), 20_000_000); err != nil {
				t.Error(err)
			}
		case 1, 3: // its time is up
			for id := uint32(1); id < w.Next; id += 2 {
				if a := w.Await(id); a.Reset != http2.ErrCodeCancel && a.Code != codes.DeadlineExceeded {
					t.Errorf("after the deadline: %v", a)
				}
			}
		case 2:
			w.Must(w.WriteRSTStream(1, http2.ErrCodeCancel))
		}
		w.Net.Close()
	}
	eventually(t, "the sources are closed", func() bool { return h.open.Load() == 0 })
}

// Answers that have to be in memory as a whole take turns; one that wants more than
// there is comes alone; long answers go on beside them.
func TestAnswersInMemoryTakeTurns(t *testing.T) {
	const budget = 8 << 20
	_, h, addr := serveLong(t, budget)
	var all sync.WaitGroup
	for i := range 9 {
		w := wire.Dial(t, addr)
		total := []int{3_000_000, 500_000, 12_000_000}[i%3]
		all.Go(func() {
			if err := whole(w.Call(longPath, fmt.Appendf(nil, "need %d", total)), total); err != nil {
				t.Error(err)
			}
		})
		beside := wire.Dial(t, addr)
		all.Go(func() {
			if err := whole(beside.Call(longPath, []byte("one 5000000")), 5_000_000); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most := h.most.Load(); most > 12_000_000+budget/4 {
		t.Errorf("%d bytes were in memory at once", most)
	}
}

// Small calls on the same connection do not wait behind a long answer that nobody
// reads, though its budget is spent and the windows are small.
func TestSmallCallsBesideLongAnswers(t *testing.T) {
	_, _, addr := serveLong(t, 2<<20)
	w := wire.DialNarrow(t, addr, 30_000)
	long := w.Headers(longPath, false)
	w.Data(long, true, wire.Framed(false, []byte("one 6000000")))
	for len(w.Got[long].Body) < 30_000 {
		w.Pump()
	}
	for range 20 {
		small := w.Headers(longPath, false)
		w.Data(small, true, wire.Framed(false, []byte("one 10")))
		if err := whole(w.Await(small), 10); err != nil || w.Got[long].Ended {
			t.Fatalf("%v; the long answer has ended: %v", err, w.Got[long].Ended)
		}
	}
	w.Must(w.WriteWindowUpdate(long, 1<<30))
	if err := whole(w.Await(long), 6_000_000); err != nil {
		t.Error(err)
	}
}
