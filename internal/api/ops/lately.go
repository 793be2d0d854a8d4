package ops

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/kvorum/kvorum/internal/rpc"
)

// Lately keeps what a member did last, in memory, for whoever looks into one that is
// asked to tell everything (--log-level debug): the calls of each method that ended last,
// apart by how long they took (Tracer), and the lines of the log (Write). Any goroutine
// may use it.
type Lately struct {
	mu    sync.Mutex
	calls map[string]*callsOf
	lines ring[[]byte]
}

// NewLately makes one that knows nothing yet.
func NewLately() *Lately {
	return &Lately{calls: map[string]*callsOf{}, lines: ring[[]byte]{most: mostLines}}
}

// Tracer is told of all calls, and tells next, if there is one, of those that it wants.
func (l *Lately) Tracer(next rpc.Tracer) rpc.Tracer { return &keeper{l, next} }

// Register puts /debug/requests and /debug/events on mux. They show addresses of clients
// and words of errors, but no keys or values.
func (l *Lately) Register(mux *http.ServeMux) {
	mux.Handle("/debug/requests", getOnly(l.requests))
	mux.Handle("/debug/events", getOnly(l.events))
}

const (
	// mostCalls are kept of each method and of each class of durations; mostLines of the
	// log.
	mostCalls = 10
	mostLines = 500
)

// classes are the durations from which on calls are kept apart; one more is of those
// that failed.
var classes = [...]time.Duration{0, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 10 * time.Second, 100 * time.Second}

// callsOf are the calls of one method. The last class are those that failed.
type callsOf struct {
	counts [len(classes) + 1]uint64
	kept   [len(classes) + 1]ring[rpc.TracedCall]
}

// ring keeps the newest of what it is given.
type ring[T any] struct {
	most int
	all  []T
	next int // the oldest, once there are most
}

func (r *ring[T]) add(x T) {
	if len(r.all) < r.most {
		r.all = append(r.all, x)
		return
	}
	r.all[r.next] = x
	r.next = (r.next + 1) % r.most
}

// list is what is kept, the oldest first.
func (r *ring[T]) list() []T { return slices.Concat(r.all[r.next:], r.all[:r.next]) }

// keeper is the rpc.Tracer of a Lately.
type keeper struct {
	to   *Lately
	next rpc.Tracer
}

// Wants is rpc.Tracer's: every call is kept.
func (k *keeper) Wants(string) bool { return true }

// Applying is rpc.Tracer's.
func (k *keeper) Applying() time.Duration {
	if k.next == nil {
		return 0
	}
	return k.next.Applying()
}

// Trace is rpc.Tracer's.
func (k *keeper) Trace(call rpc.TracedCall) {
	if k.next != nil && k.next.Wants(call.Parent) {
		k.next.Trace(call)
	}
	k.to.keep(call)
}

// keep keeps a call among those of its method and class.
func (l *Lately) keep(call rpc.TracedCall) {
	call.Parent, call.State = "", ""
	took := call.Ended.Sub(call.Begun)
	class := 0
	for class+1 < len(classes) && took >= classes[class+1] {
		class++
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.calls[call.Method]
	if of == nil {
		of = &callsOf{}
		for i := range of.kept {
			of.kept[i].most = mostCalls
		}
		l.calls[call.Method] = of
	}
	of.counts[class]++
	of.kept[class].add(call)
	if call.Code != codes.OK {
		of.counts[len(classes)]++
		of.kept[len(classes)].add(call)
	}
}

// Write takes a line of the log.
func (l *Lately) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines.add(bytes.Clone(line))
	return len(line), nil
}

func plainText(w http.ResponseWriter) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
}

// events shows the lines of the log, the oldest first.
func (l *Lately) events(w http.ResponseWriter, _ *http.Request) {
	plainText(w)
	l.mu.Lock()
	lines := l.lines.list()
	l.mu.Unlock()
	for _, line := range lines {
		_, _ = w.Write(line)
	}
}

// requests shows the calls by method, the newest first.
func (l *Lately) requests(w http.ResponseWriter, _ *http.Request) {
	plainText(w)
	var page bytes.Buffer
	l.mu.Lock()
	for _, method := range slices.Sorted(maps.Keys(l.calls)) {
		of := l.calls[method]
		fmt.Fprintf(&page, "%s\n", strings.TrimPrefix(method, "/"))
		for i := range of.kept {
			if of.counts[i] == 0 {
				continue
			}
			name := "failed"
			if i < len(classes) {
				name = ">= " + classes[i].String()
			}
			fmt.Fprintf(&page, "  %s: %d\n", name, of.counts[i])
			calls := of.kept[i].list()
			slices.Reverse(calls)
			for k := range calls {
				writeCall(&page, &calls[k])
			}
		}
	}
	l.mu.Unlock()
	_, _ = w.Write(page.Bytes())
}

// writeCall writes one call on a line.
func writeCall(page *bytes.Buffer, c *rpc.TracedCall) {
	fmt.Fprintf(page, "    %s  %-12v %v", c.Ended.UTC().Format("2006-01-02T15:04:05.000000Z"), c.Ended.Sub(c.Begun).Round(time.Microsecond), c.Code)
	if c.Peer != nil && c.Peer.Addr != nil {
		fmt.Fprintf(page, "  %v", c.Peer.Addr)
	}
	if c.RequestBytes >= 0 {
		fmt.Fprintf(page, "  %d bytes", c.RequestBytes)
	}
	switch {
	case c.Ready.IsZero():
	case c.Wrote:
		fmt.Fprintf(page, "  applied after %v at index %d", c.Ready.Sub(c.Begun).Round(time.Microsecond), c.Index)
	default:
		fmt.Fprintf(page, "  readable after %v", c.Ready.Sub(c.Begun).Round(time.Microsecond))
	}
	if c.Message != "" {
		fmt.Fprintf(page, "  %q", c.Message)
	}
	page.WriteByte('\n')
}
