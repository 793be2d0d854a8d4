package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kvorum/kvorum/internal/host"
)

// bytesValue is the message of the test service, both ways.
type bytesValue = wrapperspb.BytesValue

// asked is what a unary handler of the test service does with its request: the first
// word is a verb, the rest its argument.
func asked(ctx context.Context, in []byte) ([]byte, error) {
	verb, rest, _ := bytes.Cut(in, []byte(" "))
	switch string(verb) {
	case "echo":
		return rest, nil
	case "grow": // times ten thousand
		return bytes.Repeat(rest, 10000), nil
	case "fail":
		return nil, status.Error(codes.FailedPrecondition, string(rest))
	case "plain":
		return nil, errors.New(string(rest))
	case "details":
		st, err := status.New(codes.ResourceExhausted, string(rest)).WithDetails(durationpb.New(time.Hour))
		if err != nil {
			return nil, err
		}
		return nil, st.Err()
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err()
	case "metadata":
		md, _ := metadata.FromIncomingContext(ctx)
		return []byte(strings.Join(md.Get(string(rest)), "|")), nil
	case "context":
		method, _ := grpc.Method(ctx)
		_, limited := ctx.Deadline()
		p, ok := peer.FromContext(ctx)
		return []byte(strings.Join([]string{method, map[bool]string{true: "limited"}[limited], map[bool]string{true: "peer"}[ok && p.Addr != nil && p.LocalAddr != nil]}, "|")), nil
	case "headers":
		err := grpc.SetHeader(ctx, metadata.Pairs("one", "1", "bytes-bin", "\x00\xff", "te", "reserved"))
		if err == nil {
			err = grpc.SetTrailer(ctx, metadata.Pairs("two", "2", "two", "3", "other-bin", "\x01"))
		}
		if err == nil && string(rest) == "early" {
			if err = grpc.SendHeader(ctx, metadata.Pairs("three", "3")); err == nil && grpc.SetHeader(ctx, metadata.Pairs("four", "4")) == nil {
				return nil, errors.New("headers were set after they had been sent")
			}
		}
		if err == nil && string(rest) == "fail" {
			err = status.Error(codes.Aborted, "with headers")
		}
		return rest, err
	}
	return nil, status.Error(codes.Unimplemented, "what?")
}

func unaryMethod(ask func(ctx context.Context, in []byte) ([]byte, error)) func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
	return func(srv any, ctx context.Context, decode func(any) error, check grpc.UnaryServerInterceptor) (any, error) {
		in := new(bytesValue)
		if err := decode(in); err != nil {
			return nil, err
		}
		handler := func(ctx context.Context, req any) (any, error) {
			out, err := ask(ctx, req.(*bytesValue).Value)
			return &bytesValue{Value: out}, err
		}
		if check == nil {
			return handler(ctx, in)
		}
		return check(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/test.Test/Unary"}, handler)
	}
}

// The streams of the test service.

// up takes all and answers once, with what came joined.
func up(_ any, stream grpc.ServerStream) error {
	var all []byte
	for {
		in := new(bytesValue)
		if err := stream.RecvMsg(in); err == io.EOF {
			return stream.SendMsg(&bytesValue{Value: all})
		} else if err != nil {
			return err
		}
		all = append(all, in.Value...)
	}
}

// down answers as often as the request is long, each time with its own number of bytes.
func down(_ any, stream grpc.ServerStream) error {
	in := new(bytesValue)
	if err := stream.RecvMsg(in); err != nil {
		return err
	}
	stream.SetTrailer(metadata.Pairs("sent", "all"))
	for i := range in.Value {
		if err := stream.SendMsg(&bytesValue{Value: in.Value[:i]}); err != nil {
			return err
		}
	}
	return nil
}

// both echoes what it gets; "end" ends it, "quit" fails it.
func both(_ any, stream grpc.ServerStream) error {
	if err := stream.SendHeader(metadata.Pairs("hello", "there")); err != nil {
		return err
	}
	for {
		in := new(bytesValue)
		if err := stream.RecvMsg(in); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		switch string(in.Value) {
		case "end":
			return nil
		case "quit":
			return status.Error(codes.DataLoss, "quit: 100% 世界\n")
		}
		if err := stream.SendMsg(&wired{in}); err != nil {
			return err
		}
	}
}

// wired is an Encoded: what it says is a body that others could share.
type wired struct{ *bytesValue }

func (w *wired) Wire(head []byte) (_, body []byte) {
	if len(w.Value) == 0 {
		return head, nil
	}
	return binary.AppendUvarint(append(head, 1<<3|2), uint64(len(w.Value))), w.Value
}

type tester interface{}

var testService = grpc.ServiceDesc{
	ServiceName: "test.Test", HandlerType: (*tester)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "Unary", Handler: unaryMethod(asked)},
		{MethodName: "Hot", Handler: unaryMethod(asked)},
	},
	Streams: []grpc.StreamDesc{
		{StreamName: "Up", Handler: up, ClientStreams: true},
		{StreamName: "Down", Handler: down, ServerStreams: true},
		{StreamName: "Both", Handler: both, ClientStreams: true, ServerStreams: true},
	},
}

const (
	unaryPath = "/test.Test/Unary"
	hotPath   = "/test.Test/Hot"
	upPath    = "/test.Test/Up"
	downPath  = "/test.Test/Down"
	bothPath  = "/test.Test/Both"
)

// hotTester serves the verbs of asked without a goroutine. "later" is ended by the
// test, "elsewhere" is answered in the pool.
type hotTester struct {
	later chan *Call // where calls go whose result is awaited
}

func (h *hotTester) Begin(call *Call, message []byte) {
	in := new(bytesValue)
	if err := proto.Unmarshal(message, in); err != nil {
		call.Refuse(status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err))
		return
	}
	verb, rest, _ := bytes.Cut(in.Value, []byte(" "))
	switch string(verb) {
	case "later", "wait":
		h.later <- call
		return
	case "metadata":
		v, _ := call.Metadata(string(rest))
		call.Push(host.Result{Response: []byte(v)})
		return
	}
	out, err := asked(context.Background(), in.Value)
	call.Push(host.Result{Response: out, Err: err})
}

func (h *hotTester) Answer(dst []byte, call *Call, result host.Result) ([]byte, error) {
	if result.Err != nil {
		return dst, result.Err
	}
	out := result.Response.([]byte)
	if bytes.HasPrefix(out, []byte("elsewhere")) && !call.Elsewhere() {
		return dst, ErrElsewhere
	}
	return proto.MarshalOptions{}.MarshalAppend(dst, &bytesValue{Value: out})
}

var testLimits = Limits{
	MaxRequestBytes: 1 << 20, MaxConcurrentStreams: 1000,
	PingMinimum: time.Minute, PingInterval: time.Hour, PingTimeout: time.Minute,
}

func passUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	return next(ctx, req)
}

func passStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return next(srv, stream)
}

// serveBody serves the test service by a body and returns its address.
func serveBody(t testing.TB, b Body) string {
	t.Helper()
	b.RegisterService(&testService, struct{}{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve(l) }()
	t.Cleanup(func() {
		b.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

// serveOurs serves the test service by our server, hot calls included.
func serveOurs(t testing.TB, limits Limits) (*Server, *hotTester, string) {
	t.Helper()
	s := NewServer(limits, passUnary, passStream)
	h := &hotTester{later: make(chan *Call, 10000)}
	s.RegisterHot(hotPath, h)
	return s, h, serveBody(t, s)
}

func dialGRPC(t testing.TB, addr string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func ask(ctx context.Context, conn *grpc.ClientConn, path, say string, options ...grpc.CallOption) (string, error) {
	out := new(bytesValue)
	err := conn.Invoke(ctx, path, &bytesValue{Value: []byte(say)}, out, options...)
	return string(out.Value), err
}
