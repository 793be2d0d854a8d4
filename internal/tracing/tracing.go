// Package tracing sends traces of calls to a collector, as OpenTelemetry has them: a
// span for each call that is traced, the child of its caller's where the call says so.
//
// A span is made when its call has ended, with the times that package rpc has kept, and
// goes into a bounded queue; one goroutine sends what is in it. What finds no room there
// is dropped: neither a slow collector nor a missing one costs a call more than that.
// Who is traced is decided by the caller's mark, and for callers that say nothing by lot.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/kvorum/kvorum/internal/rpc"
)

// Bounds of what waits for the collector and of how long it is waited for.
const (
	// mostQueued spans wait, of some 2 KB each; mostSent go in one message.
	mostQueued = 2048
	mostSent   = 512
	// gather is how long spans wait for others to be sent with.
	gather = time.Second
	// One message is tried for as long as sendTime, again after retryFirst to retryMost.
	sendTime   = 10 * time.Second
	retryFirst = 500 * time.Millisecond
	retryMost  = 2 * time.Second
	// reconnect bounds the time between two attempts to connect.
	reconnect = 5 * time.Second
	// quiet is how long nothing is said of spans that are lost, once it was said.
	quiet = time.Minute
)

// million is of what Options.PerMillion is a part.
const million = 1_000_000

// Options are where traces go and whose they are.
type Options struct {
	// Address is the collector's, "host:port", spoken to in OTLP over gRPC without TLS.
	Address string
	// Service, Instance and Version become the resource of all spans: service.name,
	// service.instance.id and service.version.
	Service, Instance, Version string
	// PerMillion is how many of a million calls are traced whose callers say nothing about
	// it, 0 to 1,000,000. Those whose callers do are traced as these say.
	PerMillion int
	// Notes, when set, says what the member knows about the time that a call took, which is
	// no stream. It is asked of traced calls only and must not wait.
	Notes func(took time.Duration) Notes
	// Log is told of spans that are lost, once a minute at most.
	Log *slog.Logger
}

// Notes are what a member knows of the last second or two.
type Notes struct {
	// SlowestSync is of the log, SlowestApply a turn of applying.
	SlowestSync, SlowestApply time.Duration
	// Cause is what a slow call most likely waited for; empty for others.
	Cause string
}

// Tracer is an rpc.Tracer that sends what it is told. Any goroutine may use it.
type Tracer struct {
	opts     Options
	exporter *exporter
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	// applied is how long the newest turn of applying took, in nanoseconds.
	applied atomic.Int64
}

var _ rpc.Tracer = (*Tracer)(nil)

// Start begins to connect to the collector and returns at once, whether there is one or
// not. Errors are of an address that is none.
func Start(opts Options) (*Tracer, error) {
	to, err := otlptracegrpc.New(context.Background(), otlptracegrpc.WithInsecure(), otlptracegrpc.WithEndpoint(opts.Address),
		otlptracegrpc.WithTimeout(sendTime),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMost, MaxElapsedTime: sendTime}),
		otlptracegrpc.WithDialOption(grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryFirst, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnect},
			MinConnectTimeout: reconnect})))
	if err != nil {
		return nil, fmt.Errorf("cannot send traces to %q: %w", opts.Address, err)
	}
	whose := []attribute.KeyValue{attribute.String("service.name", opts.Service), attribute.String("service.version", opts.Version)}
	if opts.Instance != "" {
		whose = append(whose, attribute.String("service.instance.id", opts.Instance))
	}
	t := &Tracer{opts: opts, exporter: &exporter{SpanExporter: to, address: opts.Address, log: opts.Log}}
	t.provider = sdk.NewTracerProvider(
		sdk.WithSampler(sdk.AlwaysSample()), // what is not wanted does not come as far
		sdk.WithResource(resource.NewSchemaless(whose...)),
		sdk.WithBatcher(t.exporter, sdk.WithMaxQueueSize(mostQueued), sdk.WithMaxExportBatchSize(mostSent),
			sdk.WithBatchTimeout(gather), sdk.WithExportTimeout(sendTime)))
	t.tracer = t.provider.Tracer("github.com/kvorum/kvorum", trace.WithInstrumentationVersion(opts.Version))
	return t, nil
}

// Close sends what waits, for as long as ctx allows; what is left then is lost.
func (t *Tracer) Close(ctx context.Context) error {
	err := t.provider.Shutdown(ctx)
	if ctx.Err() != nil {
		// The goroutine that sends is still at it: without a connection it ends.
		err = errors.Join(err, t.exporter.SpanExporter.Shutdown(ctx))
	}
	return err
}

// Wants is rpc.Tracer's.
func (t *Tracer) Wants(traceparent string) bool {
	if traceparent != "" {
		if parent := parentOf(traceparent, ""); parent.IsValid() {
			return parent.IsSampled()
		}
	}
	return t.opts.PerMillion > 0 && rand.IntN(million) < t.opts.PerMillion
}

// Applying is rpc.Tracer's.
func (t *Tracer) Applying() time.Duration { return time.Duration(t.applied.Load()) }

// Applied is told how long a turn of applying took, before it pushes its results.
func (t *Tracer) Applied(took time.Duration) { t.applied.Store(int64(took)) }

// exporter tells of what cannot be sent, and nobody else. It is called by one goroutine
// at a time.
type exporter struct {
	sdk.SpanExporter
	address string
	log     *slog.Logger
	lost    int
	told    time.Time
}

// ExportSpans is that of sdk.SpanExporter. An error would be told to the whole process,
// and in a form of its own: here it has ended.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	e.lost += len(spans)
	if now := time.Now(); e.told.IsZero() || now.Sub(e.told) >= quiet {
		e.log.Warn("traces could not be sent; they are lost", "address", e.address, "spans", e.lost, "error", err.Error())
		e.told, e.lost = now, 0
	}
	return nil
}
