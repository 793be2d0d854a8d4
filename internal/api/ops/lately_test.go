package ops

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"github.com/kvorum/kvorum/internal/rpc"
)

func page(t *testing.T, l *Lately, path string) string {
	t.Helper()
	mux := http.NewServeMux()
	l.Register(mux)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Fatalf("%s: %d %v", path, w.Code, w.Header())
	}
	return w.Body.String()
}

// The newest calls of each class are shown, newest first, with how many there were; one
// that failed stands among the failed, too.
func TestTheNewestCalls(t *testing.T) {
	l := NewLately()
	calls := l.Tracer(nil)
	at := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
	call := func(took time.Duration, code codes.Code, message string) rpc.TracedCall {
		at = at.Add(time.Second)
		return rpc.TracedCall{Method: "/a.B/C", Code: code, Message: message, Begun: at.Add(-took), Ended: at, RequestBytes: 7,
			Peer: &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 99}}}
	}
	for i := range mostCalls + 3 {
		calls.Trace(call(time.Duration(i)*time.Millisecond, codes.OK, ""))
	}
	slow := call(150*time.Millisecond, codes.OK, "")
	slow.Ready, slow.Wrote, slow.Index = slow.Begun.Add(2*time.Millisecond), true, 42
	calls.Trace(slow)
	calls.Trace(call(200*time.Second, codes.Unavailable, "gone\naway"))
	calls.Trace(rpc.TracedCall{Method: "/a.A/Z", Begun: at, Ended: at, Ready: at, RequestBytes: -1})
	got := page(t, l, "/debug/requests")
	var want strings.Builder
	want.WriteString("a.A/Z\n  >= 0s: 1\n    2026-11-21T22:00:15.000000Z  0s           OK  readable after 0s\na.B/C\n  >= 0s: 13\n")
	for i := mostCalls + 2; i > 2; i-- {
		fmt.Fprintf(&want, "    2026-11-21T22:00:%02d.000000Z  %-12v OK  10.0.0.1:99  7 bytes\n", i+1, time.Duration(i)*time.Millisecond)
	}
	want.WriteString("  >= 100ms: 1\n    2026-11-21T22:00:14.000000Z  150ms        OK  10.0.0.1:99  7 bytes  applied after 2ms at index 42\n")
	for _, class := range []string{">= 1m40s", "failed"} {
		want.WriteString("  " + class + ": 1\n    2026-11-21T22:00:15.000000Z  3m20s        Unavailable  10.0.0.1:99  7 bytes  \"gone\\naway\"\n")
	}
	if got != want.String() {
		t.Errorf("%s\nwant\n%s", got, want.String())
	}
}

func TestTheNewestLines(t *testing.T) {
	l := NewLately()
	var want strings.Builder
	for i := range mostLines + 7 {
		line := fmt.Appendf(nil, "line %d\n", i)
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
		clear(line) // whoever writes uses it again
		if i >= 7 {
			fmt.Fprintf(&want, "line %d\n", i)
		}
	}
	if got := page(t, l, "/debug/events"); got != want.String() {
		t.Errorf("%.200s...", got)
	}
}

// sieve is a tracer that wants some calls.
type sieve struct{ traced []string }

func (s *sieve) Wants(parent string) bool { return parent == "yes" }
func (s *sieve) Trace(c rpc.TracedCall)   { s.traced = append(s.traced, c.Method) }
func (s *sieve) Applying() time.Duration  { return time.Second }

// Whoever traces besides gets what it wants, and no more.
func TestATracerBehind(t *testing.T) {
	behind := &sieve{}
	l := NewLately()
	calls := l.Tracer(behind)
	for _, parent := range []string{"yes", "no", ""} {
		if calls.Wants(parent) {
			calls.Trace(rpc.TracedCall{Method: "/a.B/" + parent, Parent: parent})
		}
	}
	if strings.Join(behind.traced, " ") != "/a.B/yes" || calls.Applying() != time.Second {
		t.Errorf("%v", behind.traced)
	}
	if got := page(t, l, "/debug/requests"); strings.Count(got, "a.B/") != 3 {
		t.Error(got)
	}
}
