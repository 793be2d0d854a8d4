// Package concurrencypb has the messages and descriptions of the services
// v3lockpb.Lock and v3electionpb.Election (spec/v3-api.md 8). etcd keeps the generated
// ones inside its server, which is not to be imported; these are written by hand: plain
// structs whose tags say what is on the wire, as protobuf's first Go interface has it.
// They register nothing, so that a program may hold etcd's own beside them.
package concurrencypb

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/protoadapt"
)

// text is a message for people.
func text(m protoadapt.MessageV1) string {
	return prototext.MarshalOptions{}.Format(protoadapt.MessageV2Of(m))
}

// unary describes a method with one request and one answer, served by call.
func unary[Server, Request, Response any](
	service, name string, call func(Server, context.Context, *Request) (*Response, error),
) grpc.MethodDesc {
	full := "/" + service + "/" + name
	return grpc.MethodDesc{MethodName: name, Handler: func(
		server any, ctx context.Context, decode func(any) error, check grpc.UnaryServerInterceptor,
	) (any, error) {
		in := new(Request)
		if err := decode(in); err != nil {
			return nil, err
		}
		if check == nil {
			return call(server.(Server), ctx, in)
		}
		info := &grpc.UnaryServerInfo{Server: server, FullMethod: full}
		return check(ctx, in, info, func(ctx context.Context, in any) (any, error) {
			return call(server.(Server), ctx, in.(*Request))
		})
	}}
}
