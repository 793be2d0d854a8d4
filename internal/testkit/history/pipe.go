package history

import (
	"context"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Pipe is a gRPC connection without a network: services are registered at one
// end, stubs call at the other, and every message crosses as bytes. Calls run on
// the caller's goroutine.
type Pipe struct {
	Unary    grpc.UnaryServerInterceptor
	services map[string]service
}

type service struct {
	desc *grpc.ServiceDesc
	body any
}

var (
	_ grpc.ServiceRegistrar    = (*Pipe)(nil)
	_ grpc.ClientConnInterface = (*Pipe)(nil)
)

// RegisterService is grpc.ServiceRegistrar's.
func (p *Pipe) RegisterService(desc *grpc.ServiceDesc, body any) {
	if p.services == nil {
		p.services = map[string]service{}
	}
	p.services[desc.ServiceName] = service{desc, body}
}

// Invoke is grpc.ClientConnInterface's.
func (p *Pipe) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	service, name, err := p.find(method)
	if err != nil {
		return err
	}
	for _, m := range service.desc.Methods {
		if m.MethodName != name {
			continue
		}
		sent, err := proto.Marshal(args.(proto.Message))
		if err != nil {
			return err
		}
		decode := func(into any) error { return proto.Unmarshal(sent, into.(proto.Message)) }
		response, err := m.Handler(service.body, ctx, decode, p.Unary)
		if err != nil {
			return crossed(err)
		}
		return copyMessage(response, reply)
	}
	return status.Errorf(codes.Unimplemented, "no method %s", method)
}

// NewStream is grpc.ClientConnInterface's, for streams of answers to one message.
// What the server sends is kept until it is asked for.
func (p *Pipe) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	service, name, err := p.find(method)
	if err != nil {
		return nil, err
	}
	for i := range service.desc.Streams {
		if service.desc.Streams[i].StreamName == name && !desc.ClientStreams {
			return &stream{ctx: ctx, service: service, desc: &service.desc.Streams[i]}, nil
		}
	}
	return nil, status.Errorf(codes.Unimplemented, "no stream %s", method)
}

func (p *Pipe) find(method string) (service, string, error) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	if s, ok := p.services[name]; ok {
		return s, rest, nil
	}
	return service{}, "", status.Errorf(codes.Unimplemented, "no service %s", name)
}

// crossed is an error as it arrives at the other end.
func crossed(err error) error {
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	return status.FromContextError(err).Err()
}

func copyMessage(from, to any) error {
	bytes, err := proto.Marshal(from.(proto.Message))
	if err != nil {
		return err
	}
	return proto.Unmarshal(bytes, to.(proto.Message))
}

// stream is both ends of one call.
type stream struct {
	ctx     context.Context
	service service
	desc    *grpc.StreamDesc

	asked   []byte
	read    bool // by the server
	ran     bool
	answers [][]byte
	err     error
}

// The client's end.

func (s *stream) Header() (metadata.MD, error) { return nil, nil }
func (s *stream) Trailer() metadata.MD         { return nil }
func (s *stream) CloseSend() error             { return nil }
func (s *stream) Context() context.Context     { return s.ctx }

func (s *stream) SendMsg(m any) (err error) {
	s.asked, err = proto.Marshal(m.(proto.Message))
	return err
}

func (s *stream) RecvMsg(m any) error {
	if !s.ran {
		s.ran = true
		s.err = s.desc.Handler(s.service.body, (*serverEnd)(s))
	}
	if len(s.answers) > 0 {
		first := s.answers[0]
		s.answers = s.answers[1:]
		return proto.Unmarshal(first, m.(proto.Message))
	}
	if s.err != nil {
		return crossed(s.err)
	}
	return io.EOF
}

// serverEnd is the server's.
type serverEnd stream

func (s *serverEnd) SetHeader(metadata.MD) error  { return nil }
func (s *serverEnd) SendHeader(metadata.MD) error { return nil }
func (s *serverEnd) SetTrailer(metadata.MD)       {}
func (s *serverEnd) Context() context.Context     { return s.ctx }

func (s *serverEnd) SendMsg(m any) error {
	answer, err := proto.Marshal(m.(proto.Message))
	s.answers = append(s.answers, answer)
	return err
}

func (s *serverEnd) RecvMsg(m any) error {
	if s.read {
		return io.EOF
	}
	s.read = true
	if err := proto.Unmarshal(s.asked, m.(proto.Message)); err != nil {
		return fmt.Errorf("the request: %w", err)
	}
	return nil
}
