package grpcproxy

import (
	"context"
	"errors"
	"io"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

// message is any message: it knows none of the fields, and gives all back as they came.
type message = emptypb.Empty

// unary answers one call; decode fills in the request.
type unary func(ctx context.Context, decode func(any) error) (any, error)

// service is one whose calls pass.
type service struct {
	name    string
	unary   []string
	streams []grpc.StreamDesc
	// own are methods that are answered otherwise; a stream's own Handler likewise.
	own map[string]unary
	// after is told of every unary call that has ended, well or not; nil is nobody.
	after func(method string)
}

// pass adds a service to a server.
func (p *Proxy) pass(to grpc.ServiceRegistrar, s service) {
	desc := grpc.ServiceDesc{ServiceName: s.name}
	for _, name := range s.unary {
		full := "/" + s.name + "/" + name
		answer := s.own[name]
		if answer == nil {
			answer = p.invoke(full)
		}
		desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: name, Handler: handler(full, func(ctx context.Context, decode func(any) error) (any, error) {
			if s.after != nil {
				defer s.after(name)
			}
			return answer(ctx, decode)
		})})
	}
	for _, stream := range s.streams {
		if stream.Handler == nil || s.own == nil {
			full := "/" + s.name + "/" + stream.StreamName
			stream.Handler = func(_ any, down grpc.ServerStream) error { return p.stream(full, down) }
		}
		desc.Streams = append(desc.Streams, stream)
	}
	to.RegisterService(&desc, nil)
}

// handler runs the server's interceptor around an answer, as generated code does.
func handler(full string, answer unary) grpc.MethodHandler {
	return func(_ any, ctx context.Context, decode func(any) error, check grpc.UnaryServerInterceptor) (any, error) {
		if check == nil {
			return answer(ctx, decode)
		}
		info := &grpc.UnaryServerInfo{FullMethod: full}
		return check(ctx, nil, info, func(ctx context.Context, _ any) (any, error) { return answer(ctx, decode) })
	}
}

// invoke is a call that passes.
func (p *Proxy) invoke(full string) unary {
	return func(ctx context.Context, decode func(any) error) (any, error) {
		in, out := new(message), new(message)
		if err := decode(in); err != nil {
			return nil, err
		}
		var header, trailer metadata.MD
		err := p.conn.Invoke(outgoing(ctx), full, in, out, grpc.Header(&header), grpc.Trailer(&trailer))
		// The call may have ended meanwhile: then nobody asks for them.
		_ = grpc.SetHeader(ctx, passing(header))
		_ = grpc.SetTrailer(ctx, passing(trailer))
		return out, err
	}
}

// through is a call of which both messages are looked into.
func through[Request, Response any](p *Proxy, full string, up func(*Request), down func(*Response)) unary {
	return func(ctx context.Context, decode func(any) error) (any, error) {
		in, out := new(Request), new(Response)
		if err := decode(in); err != nil {
			return nil, err
		}
		up(in)
		if err := p.conn.Invoke(outgoing(ctx), full, in, out); err != nil {
			return nil, err
		}
		down(out)
		return out, nil
	}
}

// asIs is for what through need not change.
func asIs[Response any](*Response) {}

// stream passes a stream on in which the client says one thing and the cluster many.
func (p *Proxy) stream(full string, down grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(outgoing(down.Context()))
	defer cancel()
	in := new(message)
	if err := down.RecvMsg(in); err != nil {
		return err
	}
	up, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, full)
	if err != nil {
		return err
	}
	if err := errors.Join(ignoreEnd(up.SendMsg(in)), up.CloseSend()); err != nil {
		return err
	}
	if header, err := up.Header(); err == nil && header.Len() > 0 {
		if err := down.SetHeader(passing(header)); err != nil {
			return err
		}
	}
	for {
		m := new(message)
		if err := up.RecvMsg(m); err != nil {
			down.SetTrailer(passing(up.Trailer()))
			return ignoreEnd(err)
		}
		if err := down.SendMsg(m); err != nil {
			return err
		}
	}
}

// ignoreEnd drops io.EOF: as an end it is no error, and as that of a SendMsg it says
// that RecvMsg knows the reason.
func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// outgoing is the context of a call to the cluster on behalf of one to the proxy: it
// ends with it, by the same deadline, and carries the same metadata.
func outgoing(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	return metadata.NewOutgoingContext(ctx, passing(md))
}

// passing leaves out what belongs to one connection.
func passing(md metadata.MD) metadata.MD {
	out := metadata.MD{}
	for name, values := range md {
		switch {
		case name == "content-type", name == "user-agent", name == "te", name == "connection", name == "host", name == "date",
			name == rpctypes.MetadataClientAPIVersionKey, strings.HasPrefix(name, ":"), strings.HasPrefix(name, "grpc-"):
		default:
			out[name] = values
		}
	}
	return out
}

// caller is what a call shows of whoever makes it, and how it is to be judged: calls of
// different callers share nothing.
type caller struct {
	// who has the tokens, each behind its length.
	who string
	// leader says that a call is not to be served where no leader is known.
	leader bool
}

// shown tells the caller of a call.
func shown(ctx context.Context) caller {
	md, _ := metadata.FromIncomingContext(ctx)
	var c caller
	for _, name := range []string{rpctypes.TokenFieldNameGRPC, rpctypes.TokenFieldNameSwagger} {
		for _, value := range md.Get(name) {
			c.who += joined(name, value)
		}
	}
	if values := md.Get(rpctypes.MetadataRequireLeaderKey); len(values) > 0 {
		c.leader = values[0] == rpctypes.MetadataHasLeader
	}
	return c
}

// context is one that shows the same to the cluster and ends with the given one.
func (c caller) context(ctx context.Context, from metadata.MD) context.Context {
	md := metadata.MD{}
	for _, name := range []string{rpctypes.TokenFieldNameGRPC, rpctypes.TokenFieldNameSwagger, rpctypes.MetadataRequireLeaderKey} {
		if values := from.Get(name); len(values) > 0 {
			md[name] = values
		}
	}
	return metadata.NewOutgoingContext(ctx, md)
}
