package embed

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// collector is somebody who takes traces.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	address string

	mu       sync.Mutex
	resource map[string]string
	spans    []*tracepb.Span
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{address: l.Addr().String()}
	s := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(s, c)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return c
}

// Export is collectorpb.TraceServiceServer's.
func (c *collector) Export(_ context.Context, in *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range in.ResourceSpans {
		c.resource = plain(of.Resource.Attributes)
		for _, scope := range of.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// plain are attributes as texts.
func plain(list []*commonpb.KeyValue) map[string]string {
	all := map[string]string{}
	for _, kv := range list {
		switch v := kv.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			all[kv.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			all[kv.Key] = fmt.Sprint(v.IntValue)
		default:
			all[kv.Key] = kv.Value.String()
		}
	}
	return all
}

// of finds the spans of a trace.
func (c *collector) of(traceID string) (found []*tracepb.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if hex.EncodeToString(s.TraceId) == traceID {
			found = append(found, s)
		}
	}
	return found
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.spans)
}

const callersSpan = "00f067aa0ba902b7"

// traceOf is the nth trace of a test.
func traceOf(n int) string { return fmt.Sprintf("4bf92f3577b34da6a3ce929d0e%06x", n) }

// under has calls say that they belong to a trace, as what instruments gRPC's clients
// does; flags are 01 if it is to be recorded.
func under(ctx context.Context, traceID, flags string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "traceparent", "00-"+traceID+"-"+callersSpan+"-"+flags, "tracestate", "vendor=x")
}

func eventsOf(s *tracepb.Span) string {
	var names []string
	for _, e := range s.Events {
		names = append(names, e.Name)
	}
	return strings.Join(names, " ")
}

// tracedCall is a step of the story: a call, and the span that it becomes.
type tracedCall struct {
	do     func(ctx context.Context, c *clientv3.Client) error
	name   string
	events string
	status string // of gRPC
}

func tracedCalls() []tracedCall {
	return []tracedCall{
		{func(ctx context.Context, c *clientv3.Client) error { _, err := c.Put(ctx, "a", "1"); return err },
			"etcdserverpb.KV/Put", "committed applied", "OK"},
		{func(ctx context.Context, c *clientv3.Client) error { _, err := c.Get(ctx, "a"); return err },
			"etcdserverpb.KV/Range", "readable", "OK"},
		{func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version("a"), "=", 1)).Then(clientv3.OpPut("b", "2")).Commit()
			return err
		}, "etcdserverpb.KV/Txn", "committed applied", "OK"},
		{func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Get(ctx, "a", clientv3.WithSort(clientv3.SortByValue, clientv3.SortDescend))
			return err
		}, "etcdserverpb.KV/Range", "readable", "OK"},
		{func(ctx context.Context, c *clientv3.Client) error { _, err := c.Delete(ctx, "b"); return err },
			"etcdserverpb.KV/DeleteRange", "committed applied", "OK"},
		{func(ctx context.Context, c *clientv3.Client) error { _, err := c.Grant(ctx, 100); return err },
			"etcdserverpb.Lease/LeaseGrant", "", "OK"},
		{func(ctx context.Context, c *clientv3.Client) error {
			if _, err := c.Put(ctx, "c", "3", clientv3.WithLease(4711)); err == nil {
				return fmt.Errorf("a lease that is none was taken")
			}
			return nil
		}, "etcdserverpb.KV/Put", "", "NOT_FOUND"},
		{func(ctx context.Context, c *clientv3.Client) error {
			if _, err := c.MoveLeader(ctx, 4711); err == nil {
				return fmt.Errorf("a member that is none was made leader")
			}
			return nil
		}, "etcdserverpb.Maintenance/MoveLeader", "", "FAILED_PRECONDITION"},
	}
}

// check looks at the one span of a call.
func (want *tracedCall) check(t *testing.T, c *collector, traceID string, begun, ended time.Time) {
	t.Helper()
	spans := c.of(traceID)
	if len(spans) != 1 {
		t.Errorf("%s: %d spans", want.name, len(spans))
		return
	}
	s, got := spans[0], plain(spans[0].Attributes)
	if s.Name != want.name || hex.EncodeToString(s.ParentSpanId) != callersSpan || s.Kind != tracepb.Span_SPAN_KIND_SERVER || s.TraceState != "vendor=x" {
		t.Errorf("%s: %v", want.name, s)
	}
	service, _, _ := strings.Cut(want.name, "/")
	if got["rpc.system.name"] != "grpc" || got["rpc.method"] != want.name || got["rpc.service"] != service || got["network.peer.address"] != "127.0.0.1" ||
		got["rpc.response.status_code"] != want.status {
		t.Errorf("%s: %v", want.name, got)
	}
	if s.Status.GetCode() != tracepb.Status_STATUS_CODE_UNSET {
		t.Errorf("%s: %v", want.name, s.Status)
	}
	moments := []uint64{uint64(begun.UnixNano()), s.StartTimeUnixNano}
	for _, e := range s.Events {
		moments = append(moments, e.TimeUnixNano)
	}
	if moments = append(moments, s.EndTimeUnixNano, uint64(ended.UnixNano())); !slices.IsSorted(moments) {
		t.Errorf("%s: the moments %v are out of order", want.name, moments)
	}
	if eventsOf(s) != want.events {
		t.Errorf("%s: events %q, want %q", want.name, eventsOf(s), want.events)
	}
}

// A caller whose calls belong to a trace finds them there, each as a span with what
// became of it; who says nothing, or that nothing is to be recorded, is not traced at a
// rate of nought. What was not sent when the member stops is sent then. Either body of
// gRPC does it; only ours knows what happened within a call.
func TestTracesOfCallers(t *testing.T) {
	for _, body := range []string{"", "grpc-go"} {
		t.Run("body "+body, func(t *testing.T) {
			t.Setenv(otherServer, body)
			to := newCollector(t)
			m := startMember(t, t.TempDir(), "--enable-distributed-tracing", "--distributed-tracing-address", to.address,
				"--distributed-tracing-service-name=store", "--distributed-tracing-instance-id=first", "--distributed-tracing-sampling-rate=0")
			client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.client}, Logger: zap.NewNop()})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			begun, calls := time.Now(), tracedCalls()
			for i, call := range calls {
				if err := call.do(under(t.Context(), traceOf(i), "01"), client); err != nil {
					t.Fatal(err)
				}
				if body != "" {
					calls[i].events = ""
				}
			}
			const silent, watched, gateway = 0xfffffe, 0xffffff, 0xfffffd
			if code, _ := post(t, m, "/v3/kv/range", `{"key":"YQ=="}`, "traceparent", "00-"+traceOf(gateway)+"-"+callersSpan+"-01"); code != 200 {
				t.Fatal(code)
			}
			if _, err := client.Put(under(t.Context(), traceOf(silent), "00"), "a", "2"); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Put(t.Context(), "a", "3"); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(under(t.Context(), traceOf(watched), "01"))
			watch := client.Watch(ctx, "a", clientv3.WithRev(2))
			if first := <-watch; len(first.Events) == 0 {
				t.Fatal(first.Err())
			}
			cancel()
			m.stop()
			ended := time.Now()
			for i := range calls {
				calls[i].check(t, to, traceOf(i), begun, ended)
			}
			if stream := to.of(traceOf(watched)); len(stream) != 1 || stream[0].Name != "etcdserverpb.Watch/Watch" || len(plain(stream[0].Attributes)) != 8 {
				t.Errorf("the watch: %v", stream)
			}
			if json := to.of(traceOf(gateway)); len(json) != 1 || json[0].Name != "etcdserverpb.KV/Range" {
				t.Errorf("the call of the gateway: %v", json)
			}
			if want := len(calls) + 2; to.count() != want {
				t.Errorf("%d spans, want %d", to.count(), want)
			}
			if r := to.resource; r["service.name"] != "store" || r["service.instance.id"] != "first" || r["service.version"] == "" {
				t.Errorf("they are of %v", r)
			}
		})
	}
}

// At a rate of a million of a million every call is a trace of its own, but for those of
// callers who want none; a member without a name of its own is known by its ID.
func TestTracesOfEverybody(t *testing.T) {
	to := newCollector(t)
	m := startMember(t, t.TempDir(), "--enable-distributed-tracing", "--distributed-tracing-address", to.address, "--distributed-tracing-sampling-rate=1000000")
	kv, member := pb.NewKVClient(m.conn), m.home.Member.String()
	const calls = 20
	for i := range calls {
		if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte{byte('a' + i)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(under(t.Context(), traceOf(i), "00"), &pb.PutRequest{Key: []byte{byte('a' + i)}}); err != nil {
			t.Fatal(err)
		}
	}
	m.stop()
	traces := map[string]bool{}
	for _, s := range to.spans {
		traces[hex.EncodeToString(s.TraceId)] = true
		if len(s.ParentSpanId) != 0 || s.Name != "etcdserverpb.KV/Put" {
			t.Errorf("%v", s)
		}
	}
	if len(traces) != calls || len(to.spans) != calls {
		t.Errorf("%d spans of %d traces", len(to.spans), len(traces))
	}
	if to.resource["service.instance.id"] != member || to.resource["service.name"] != "etcd" {
		t.Errorf("they are of %v, by %s", to.resource, member)
	}
}

// A slow call's span says what the log says of it.
func TestTheCauseInATrace(t *testing.T) {
	to := newCollector(t)
	m := startMember(t, t.TempDir(), "--enable-distributed-tracing", "--distributed-tracing-address", to.address, "--warning-unary-request-duration=1ns")
	if _, err := pb.NewKVClient(m.conn).Put(under(t.Context(), traceOf(1), "01"), &pb.PutRequest{Key: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	m.stop()
	spans := to.of(traceOf(1))
	if len(spans) != 1 {
		t.Fatalf("%v", spans)
	}
	if got := plain(spans[0].Attributes); got["kvorum.cause"] == "" || got["kvorum.slowest_sync.seconds"] == "" || got["kvorum.request.bytes"] != "3" {
		t.Errorf("%v", got)
	}
}

// A member that is to tell everything keeps what it did last for whoever looks, beside
// what it sends to a collector.
func TestWhatHappenedLately(t *testing.T) {
	to := newCollector(t)
	m := startMember(t, t.TempDir(), "--log-level=debug", "--enable-distributed-tracing", "--distributed-tracing-address", to.address)
	kv := pb.NewKVClient(m.conn)
	for _, ctx := range []context.Context{t.Context(), under(t.Context(), traceOf(1), "01")} {
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("a-secret")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kv.Put(t.Context(), &pb.PutRequest{}); err == nil {
		t.Fatal("a key that is none was put")
	}
	requests, events := fetched(t, "http://"+m.client+"/debug/requests"), fetched(t, "http://"+m.client+"/debug/events")
	if !strings.Contains(requests, "etcdserverpb.KV/Put\n  >= 0s: 3\n") || strings.Count(requests, "applied after") != 2 ||
		!strings.Contains(requests, "failed: 1") || !strings.Contains(requests, `"etcdserver: key is not provided"`) || strings.Contains(requests, "a-secret") {
		t.Error(requests)
	}
	if !strings.Contains(events, "opened data directory") || !strings.Contains(events, "ready to serve client requests") {
		t.Error(events)
	}
	m.stop()
	if to.count() != 1 || len(to.of(traceOf(1))) != 1 {
		t.Errorf("%d spans", to.count())
	}
}

// Without its collector a member starts, serves and stops as it does with one.
func TestTracesThatNobodyTakes(t *testing.T) {
	said := &lines{}
	cfg, client := configFor(t, t.TempDir(), "--enable-distributed-tracing", "--distributed-tracing-address", ports.Reserve(t), "--distributed-tracing-sampling-rate=1000000")
	s, err := Start(cfg, slog.New(slog.NewTextHandler(said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{client}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 100 {
		if _, err := c.Put(t.Context(), "a", "1"); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
	if text := said.String(); !strings.Contains(text, "distributed tracing enabled") || strings.Count(text, "traces could not be sent") > 1 {
		t.Errorf("the log: %s", text)
	}
}
