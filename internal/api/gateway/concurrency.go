package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/kvorum/kvorum/internal/api/v3/concurrencypb"
)

// message is a pointer to one of the messages that are written by hand.
type message[T any] interface {
	*T
	protoadapt.MessageV1
}

// registerConcurrency adds the paths of locks and elections.
func (g *Gateway) registerConcurrency() error {
	return errors.Join(
		answerOne[concurrencypb.LockRequest, concurrencypb.LockResponse](g, "/v3/lock/lock", concurrencypb.LockMethod),
		answerOne[concurrencypb.UnlockRequest, concurrencypb.UnlockResponse](g, "/v3/lock/unlock", concurrencypb.UnlockMethod),
		answerOne[concurrencypb.CampaignRequest, concurrencypb.CampaignResponse](g, "/v3/election/campaign", concurrencypb.CampaignMethod),
		answerOne[concurrencypb.ProclaimRequest, concurrencypb.ProclaimResponse](g, "/v3/election/proclaim", concurrencypb.ProclaimMethod),
		answerOne[concurrencypb.LeaderRequest, concurrencypb.LeaderResponse](g, "/v3/election/leader", concurrencypb.LeaderMethod),
		answerOne[concurrencypb.ResignRequest, concurrencypb.ResignResponse](g, "/v3/election/resign", concurrencypb.ResignMethod),
		answerMany[concurrencypb.LeaderRequest, concurrencypb.LeaderResponse](g, "/v3/election/observe", concurrencypb.ObserveMethod),
	)
}

// call is what is known of a request before it is made.
type call struct {
	g    *Gateway
	ctx  context.Context
	out  runtime.Marshaler
	w    http.ResponseWriter
	http *http.Request
}

// handle serves a path: serve is called with the message read.
func handle[In any, P message[In]](g *Gateway, path, method string, serve func(call, P) error) error {
	return g.mux.HandlePath(http.MethodPost, path, func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		read, write := runtime.MarshalerForRequest(g.mux, r)
		ctx, err := runtime.AnnotateContext(ctx, g.mux, r, method, runtime.WithHTTPPathPattern(path))
		in := P(new(In))
		if err == nil {
			err = read.NewDecoder(r.Body).Decode(protoadapt.MessageV2Of(in))
			if errors.Is(err, io.EOF) {
				err = nil // nothing is a message of zeros
			} else if err != nil {
				err = status.Error(codes.InvalidArgument, err.Error())
			}
		}
		if err == nil {
			err = serve(call{g: g, ctx: ctx, out: write, w: w, http: r}, in)
		}
		if err != nil {
			runtime.HTTPError(ctx, g.mux, write, w, r, err)
		}
	})
}

// answerOne serves a path whose method has one answer.
func answerOne[In, Out any, P message[In], Q message[Out]](g *Gateway, path, method string) error {
	return handle(g, path, method, func(c call, in P) error {
		out := Q(new(Out))
		var md runtime.ServerMetadata
		if err := g.conn.Invoke(c.ctx, method, in, out, grpc.Header(&md.HeaderMD), grpc.Trailer(&md.TrailerMD)); err != nil {
			return err
		}
		ctx := runtime.NewServerMetadataContext(c.ctx, md)
		runtime.ForwardResponseMessage(ctx, g.mux, c.out, c.w, c.http, protoadapt.MessageV2Of(out))
		return nil
	})
}

// answerMany serves a path whose method has many answers.
func answerMany[In, Out any, P message[In], Q message[Out]](g *Gateway, path, method string) error {
	return handle(g, path, method, func(c call, in P) error {
		stream, err := g.conn.NewStream(c.ctx, &grpc.StreamDesc{ServerStreams: true}, method)
		if err != nil {
			return err
		}
		if err := stream.SendMsg(in); err != nil {
			return err
		}
		if err := stream.CloseSend(); err != nil {
			return err
		}
		md, err := stream.Header()
		if err != nil {
			return err
		}
		ctx := runtime.NewServerMetadataContext(c.ctx, runtime.ServerMetadata{HeaderMD: md, TrailerMD: metadata.MD{}})
		runtime.ForwardResponseStream(ctx, g.mux, c.out, c.w, c.http, func() (proto.Message, error) {
			out := Q(new(Out))
			if err := stream.RecvMsg(out); err != nil {
				return nil, err
			}
			return protoadapt.MessageV2Of(out), nil
		})
		return nil
	})
}
