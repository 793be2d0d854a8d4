package tracing

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"github.com/kvorum/kvorum/internal/rpc"
)

const (
	someTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	someSpan   = "00f067aa0ba902b7"
	sampled    = "00-" + someTrace + "-" + someSpan + "-01"
	notSampled = "00-" + someTrace + "-" + someSpan + "-00"
)

// start makes a tracer whose collector is at an address.
func start(t testing.TB, address string, perMillion int) *Tracer {
	t.Helper()
	tracer, err := Start(Options{
		Address: address, Service: "s", Instance: "i", Version: "v", PerMillion: perMillion, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = tracer.Close(ctx)
	})
	return tracer
}

// deaf is the address of somebody who takes connections and never says a word.
func deaf(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// The caller's mark decides; where there is none, or none that can be read, the lot.
func TestWhoIsTraced(t *testing.T) {
	for _, c := range []struct {
		parent    string
		none, all bool
	}{
		{sampled, true, true},
		{notSampled, false, false},
		{"", false, true},
		{"rubbish", false, true},
		{sampled[:len(sampled)-1], false, true},
		{strings.ToUpper(sampled), false, true},
		{"ff" + sampled[2:], false, true},
		{"01" + sampled[2:] + "-more", true, true}, // a version to come
		{"00-" + strings.Repeat("0", 32) + "-" + someSpan + "-01", false, true},
		{"00-" + someTrace + "-" + strings.Repeat("0", 16) + "-01", false, true},
	} {
		for perMillion, want := range map[int]bool{0: c.none, million: c.all} {
			if got := (&Tracer{opts: Options{PerMillion: perMillion}}).Wants(c.parent); got != want {
				t.Errorf("%q, %d of a million: %v", c.parent, perMillion, got)
			}
		}
	}
	const calls, rate = 100_000, 100_000 // 10,000 of them, give or take 95
	drawn, tracer := 0, &Tracer{opts: Options{PerMillion: rate}}
	for range calls {
		if tracer.Wants("") {
			drawn++
		}
	}
	if drawn < 9_000 || drawn > 11_000 {
		t.Errorf("%d of %d calls were drawn, at %d of a million", drawn, calls, rate)
	}
}

// failing is an exporter that sends nothing.
type failing struct{ err error }

func (f *failing) ExportSpans(context.Context, []sdk.ReadOnlySpan) error { return f.err }
func (f *failing) Shutdown(context.Context) error                        { return nil }

// What is lost is told once in a while, with how much it was, and never an error of
// the process.
func TestLostSpansAreToldOnceInAWhile(t *testing.T) {
	var log bytes.Buffer
	to := &failing{err: errors.New("nobody there")}
	e := &exporter{SpanExporter: to, address: "there:4317", log: slog.New(slog.NewTextHandler(&log, nil))}
	send := func(spans int) (said string) {
		t.Helper()
		if err := e.ExportSpans(t.Context(), make([]sdk.ReadOnlySpan, spans)); err != nil {
			t.Errorf("the process is told: %v", err)
		}
		said = log.String()
		log.Reset()
		return said
	}
	if said := send(3); !strings.Contains(said, "spans=3") || !strings.Contains(said, "nobody there") || !strings.Contains(said, "there:4317") {
		t.Errorf("the first: %q", said)
	}
	if said := send(4) + send(5); said != "" {
		t.Errorf("right after it: %q", said)
	}
	e.told = e.told.Add(-quiet)
	if said := send(6); !strings.Contains(said, "spans=15") {
		t.Errorf("a while later: %q", said)
	}
	to.err = nil
	e.told = e.told.Add(-quiet)
	if said := send(7); said != "" {
		t.Errorf("what was sent: %q", said)
	}
}

func someCall(parent string) rpc.TracedCall {
	now := time.Now()
	return rpc.TracedCall{
		Method: "/etcdserverpb.KV/Put", Code: codes.OK, Parent: parent, Begun: now.Add(-time.Millisecond), Ready: now, Ended: now,
		Wrote: true, Index: 7, Peer: &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4000}}, RequestBytes: 10,
	}
}

// A collector that takes nothing holds nobody up: what has no room is dropped, and the
// end does not wait for it.
func TestACollectorThatTakesNothing(t *testing.T) {
	tracer := start(t, deaf(t), million)
	for range 4 * mostQueued {
		tracer.Trace(someCall(""))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := tracer.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// Every code has a name, and those are failures that a server can do something about.
func TestStatuses(t *testing.T) {
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		if strings.ReplaceAll(strings.ToLower(statusName(code)), "_", "") != strings.ReplaceAll(strings.ToLower(code.String()), "canceled", "cancelled") {
			t.Errorf("%v is told as %s", code, statusName(code))
		}
	}
	if statusName(99) != "99" || ours(codes.NotFound) || ours(codes.ResourceExhausted) || !ours(codes.Unavailable) || !ours(codes.DataLoss) {
		t.Error("codes that are not known, or whose failure they are")
	}
}

// A peer without a port, and a stream, have no attributes that say nothing.
func TestAttributesOfOddCalls(t *testing.T) {
	tracer := &Tracer{opts: Options{Notes: func(time.Duration) Notes { return Notes{Cause: "the moon"} }}}
	has := func(call rpc.TracedCall) map[attribute.Key]attribute.Value {
		got := map[attribute.Key]attribute.Value{}
		for _, kv := range tracer.attributes(&call, "a.B/C") {
			got[kv.Key] = kv.Value
		}
		return got
	}
	call := someCall("")
	if got := has(call); got[keyPeer].AsString() != "127.0.0.1" || got[keyPeerPort].AsInt64() != 4000 || got[keyCause].AsString() != "the moon" || got[keyOldService].AsString() != "a.B" {
		t.Error(got)
	}
	call.Stream, call.RequestBytes, call.Peer = true, -1, &peer.Peer{Addr: &net.UnixAddr{Name: "/run/etcd", Net: "unix"}}
	got := has(call)
	for _, key := range []attribute.Key{keyPeerPort, keyBytes, keyCause, keySync} {
		if v, ok := got[key]; ok {
			t.Errorf("%s is %v", key, v.String())
		}
	}
	if got[keyPeer].AsString() != "/run/etcd" {
		t.Error(got)
	}
}

// BenchmarkTrace is what a call costs: one that is not wanted, and one that is, with a
// collector that takes nothing.
func BenchmarkTrace(b *testing.B) {
	for _, c := range []struct {
		name, parent string
		perMillion   int
	}{{"nobody", "", 0}, {"by-lot", "", 1000}, {"not-sampled", notSampled, 0}, {"sampled", sampled, 0}} {
		b.Run(c.name, func(b *testing.B) {
			tracer := start(b, deaf(b), c.perMillion)
			call := someCall(c.parent)
			b.ReportAllocs()
			for b.Loop() {
				if tracer.Wants(c.parent) {
					tracer.Trace(call)
				}
			}
		})
	}
}
