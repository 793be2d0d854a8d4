package rpc

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Programs that others wrote judge the server. scripts/h2spec makes them and runs
// these tests; without them they are skipped.

// TestH2spec runs all cases of h2spec (KVORUM_H2SPEC), the strict ones too; most of its
// requests are none of gRPC's.
func TestH2spec(t *testing.T) {
	program := os.Getenv("KVORUM_H2SPEC")
	if program == "" {
		t.Skip("KVORUM_H2SPEC does not say where h2spec is")
	}
	s, _, addr := serveOurs(t, testLimits)
	judge := func(what string) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), program, "-h", host, "-p", port, "-S", "-o", "3").CombinedOutput()
		passed := regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`).FindString(string(out))
		t.Log(what, passed)
		if err != nil || !strings.HasSuffix(passed, " 0 skipped, 0 failed") {
			_, failures, _ := strings.Cut(string(out), "Failures:")
			t.Errorf("%s: %v %s", what, err, failures)
		}
	}
	judge("gRPC alone:")
	s.ServeWeb(Web{Handler: http.NotFoundHandler()})
	judge("with requests that are not gRPC's:")
}

// interopCases are those of grpc-go's client that need no credentials of a cloud.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
	"special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service",
	"client_compressed_unary", "server_compressed_unary", "client_compressed_streaming", "server_compressed_streaming",
	"pick_first_unary",
}

// TestInterop runs grpc-go's interop client (KVORUM_INTEROP).
func TestInterop(t *testing.T) {
	program := os.Getenv("KVORUM_INTEROP")
	if program == "" {
		t.Skip("KVORUM_INTEROP does not say where the client is")
	}
	limits := testLimits
	limits.MaxRequestBytes = 4 << 20
	s := NewServer(limits, passUnary, passStream)
	grpc_testing.RegisterTestServiceServer(s, interopServer{})
	addr := serveBody(t, s)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range interopCases {
		out, err := exec.CommandContext(t.Context(), program, "-server_host", host, "-server_port", port, "-test_case", c).CombinedOutput()
		switch {
		case strings.Contains(string(out), "Unsupported test case"):
			t.Logf("%s: the client has no such case", c)
		case err != nil:
			t.Errorf("%s: %v\n%s", c, err, out)
		default:
			t.Logf("%s: passed", c)
		}
	}
}

// interopServer is the service that the interop cases are about.
type interopServer struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (interopServer) EmptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, nil
}

func payload(size int32) *grpc_testing.Payload {
	return &grpc_testing.Payload{Body: make([]byte, size)}
}

func echoed(ctx context.Context) (header, trailer metadata.MD) {
	md, _ := metadata.FromIncomingContext(ctx)
	header, trailer = metadata.MD{}, metadata.MD{}
	if v := md.Get("x-grpc-test-echo-initial"); len(v) > 0 {
		header.Set("x-grpc-test-echo-initial", v...)
	}
	if v := md.Get("x-grpc-test-echo-trailing-bin"); len(v) > 0 {
		trailer.Set("x-grpc-test-echo-trailing-bin", v...)
	}
	return header, trailer
}

func (interopServer) UnaryCall(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	header, trailer := echoed(ctx)
	if err := grpc.SetHeader(ctx, header); err != nil {
		return nil, err
	}
	if err := grpc.SetTrailer(ctx, trailer); err != nil {
		return nil, err
	}
	if st := in.GetResponseStatus(); st.GetCode() != 0 {
		return nil, status.Error(codes.Code(st.Code), st.Message)
	}
	return &grpc_testing.SimpleResponse{Payload: payload(in.ResponseSize), ServerId: "the only one"}, nil
}

func (interopServer) StreamingOutputCall(in *grpc_testing.StreamingOutputCallRequest, stream grpc_testing.TestService_StreamingOutputCallServer) error {
	for _, p := range in.GetResponseParameters() {
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: payload(p.Size)}); err != nil {
			return err
		}
	}
	return nil
}

func (interopServer) StreamingInputCall(stream grpc_testing.TestService_StreamingInputCallServer) error {
	sum := 0
	for {
		in, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		}
		if err != nil {
			return err
		}
		sum += len(in.GetPayload().GetBody())
	}
}

func (interopServer) FullDuplexCall(stream grpc_testing.TestService_FullDuplexCallServer) error {
	header, trailer := echoed(stream.Context())
	if err := stream.SetHeader(header); err != nil {
		return err
	}
	stream.SetTrailer(trailer)
	for {
		in, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if st := in.GetResponseStatus(); st.GetCode() != 0 {
			return status.Error(codes.Code(st.Code), st.Message)
		}
		for _, p := range in.GetResponseParameters() {
			if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: payload(p.Size)}); err != nil {
				return fmt.Errorf("send: %w", err)
			}
		}
	}
}
