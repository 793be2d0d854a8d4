package tracing

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"

	"github.com/kvorum/kvorum/internal/rpc"
)

// Attributes of a span. Those of calls are what etcd 3.7 has, by the semantic
// conventions 1.40 of OpenTelemetry, and those of etcd 3.5 and 3.6 beside them where
// the names differ: rpc.method alone means something else now. The others are ours.
const (
	keySystem     = attribute.Key("rpc.system.name")
	keyMethod     = attribute.Key("rpc.method")
	keyStatus     = attribute.Key("rpc.response.status_code")
	keyOldSystem  = attribute.Key("rpc.system")
	keyOldService = attribute.Key("rpc.service")
	keyOldStatus  = attribute.Key("rpc.grpc.status_code")
	keyPeer       = attribute.Key("network.peer.address")
	keyPeerPort   = attribute.Key("network.peer.port")

	keyBytes = attribute.Key("kvorum.request.bytes")
	keyIndex = attribute.Key("kvorum.log.index")
	keySync  = attribute.Key("kvorum.slowest_sync.seconds")
	keyApply = attribute.Key("kvorum.slowest_apply.seconds")
	keyCause = attribute.Key("kvorum.cause")
)

// Events within a span.
const (
	// eventCommitted: a command is in the logs of a quorum, and its turn to be
	// applied has begun.
	eventCommitted = "committed"
	// eventApplied: a command has been applied here. What follows is the answer.
	eventApplied = "applied"
	// eventReadable: what was to be read may be: this member has caught up.
	eventReadable = "readable"
)

// statusNames are the codes of gRPC as their specification writes them.
var statusNames = [...]string{
	codes.OK: "OK", codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN", codes.InvalidArgument: "INVALID_ARGUMENT",
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED", codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS",
	codes.PermissionDenied: "PERMISSION_DENIED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
	codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Aborted: "ABORTED", codes.OutOfRange: "OUT_OF_RANGE",
	codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: "INTERNAL", codes.Unavailable: "UNAVAILABLE",
	codes.DataLoss: "DATA_LOSS", codes.Unauthenticated: "UNAUTHENTICATED",
}

func statusName(code codes.Code) string {
	if int(code) < len(statusNames) {
		return statusNames[code]
	}
	return strconv.FormatUint(uint64(code), 10)
}

// ours says which codes are the server's failure; the others are what a caller asked for.
func ours(code codes.Code) bool {
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	}
	return false
}

// carrier shows a call's metadata to OpenTelemetry.
type carrier struct{ parent, state string }

// Get is propagation.TextMapCarrier's.
func (c carrier) Get(key string) string {
	switch key {
	case "traceparent":
		return c.parent
	case "tracestate":
		return c.state
	}
	return ""
}

// Set is propagation.TextMapCarrier's; nothing is sent on.
func (c carrier) Set(string, string) {}

// Keys is propagation.TextMapCarrier's.
func (c carrier) Keys() []string { return []string{"traceparent", "tracestate"} }

// parentOf reads who made a call; it is not valid if nobody is named, or in a way that
// is none.
func parentOf(traceparent, tracestate string) trace.SpanContext {
	ctx := propagation.TraceContext{}.Extract(context.Background(), carrier{traceparent, tracestate})
	return trace.SpanContextFromContext(ctx)
}

// Trace is rpc.Tracer's.
func (t *Tracer) Trace(call rpc.TracedCall) {
	ctx := context.Background()
	if call.Parent != "" {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parentOf(call.Parent, call.State))
	}
	name := strings.TrimPrefix(call.Method, "/")
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(call.Begun), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(t.attributes(&call, name)...))
	if !call.Ready.IsZero() {
		if call.Wrote {
			span.AddEvent(eventCommitted, trace.WithTimestamp(latest(call.Begun, call.Ready.Add(-call.Applying))))
			span.AddEvent(eventApplied, trace.WithTimestamp(call.Ready), trace.WithAttributes(keyIndex.Int64(int64(call.Index))))
		} else if call.Code == codes.OK {
			span.AddEvent(eventReadable, trace.WithTimestamp(call.Ready))
		}
	}
	if ours(call.Code) {
		span.SetStatus(otelcodes.Error, call.Message)
	}
	span.End(trace.WithTimestamp(call.Ended))
}

// latest is the later of two moments.
func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// attributes are those of a call.
func (t *Tracer) attributes(call *rpc.TracedCall, name string) []attribute.KeyValue {
	service, _, _ := strings.Cut(name, "/")
	all := append(make([]attribute.KeyValue, 0, 12),
		keySystem.String("grpc"), keyMethod.String(name), keyStatus.String(statusName(call.Code)),
		keyOldSystem.String("grpc"), keyOldService.String(service), keyOldStatus.Int64(int64(call.Code)))
	if call.Peer != nil && call.Peer.Addr != nil {
		host, port, err := net.SplitHostPort(call.Peer.Addr.String())
		if err != nil { // a socket has a path
			host = call.Peer.Addr.String()
		}
		all = append(all, keyPeer.String(host))
		if n, err := strconv.Atoi(port); err == nil {
			all = append(all, keyPeerPort.Int(n))
		}
	}
	if call.RequestBytes >= 0 {
		all = append(all, keyBytes.Int(call.RequestBytes))
	}
	if t.opts.Notes == nil || call.Stream {
		return all
	}
	notes := t.opts.Notes(call.Ended.Sub(call.Begun))
	all = append(all, keySync.Float64(notes.SlowestSync.Seconds()), keyApply.Float64(notes.SlowestApply.Seconds()))
	if notes.Cause != "" {
		all = append(all, keyCause.String(notes.Cause))
	}
	return all
}
