package bench

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// watching is a stream of watches. It takes apart what comes only as far as a benchmark
// looks at it: a message and its parts for each event would cost the generator, which
// has the same processors as the server, more than they cost the server.
type watching struct{ stream grpc.ClientStream }

var watchDesc = grpc.StreamDesc{StreamName: "Watch", ServerStreams: true, ClientStreams: true}

// openWatching opens a stream that ends with ctx.
func openWatching(ctx context.Context, conn *grpc.ClientConn) (watching, error) {
	stream, err := conn.NewStream(ctx, &watchDesc, pb.Watch_Watch_FullMethodName, grpc.ForceCodec(newsCodec{}))
	return watching{stream}, err
}

// create asks for a watch.
func (w watching) create(r *pb.WatchCreateRequest) error {
	return w.stream.SendMsg(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

// recv waits for the next response; what n had is gone.
func (w watching) recv(n *news) error { return w.stream.RecvMsg(n) }

// news is a response.
type news struct {
	id                int64
	created, canceled bool
	reason            string
	// told are the events, in order.
	told []told
}

// told is an event; value refers to the message.
type told struct {
	revision int64
	value    []byte
}

// newsCodec is protobuf's for everything but news.
type newsCodec struct{}

// Name is encoding.Codec's: on the wire nothing is different.
func (newsCodec) Name() string { return "proto" }

var errNoMessage = errors.New("not a message")

// Marshal is encoding.Codec's.
func (newsCodec) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, errNoMessage
	}
	return proto.Marshal(m)
}

// Unmarshal is encoding.Codec's.
func (newsCodec) Unmarshal(data []byte, v any) error {
	n, ok := v.(*news)
	if !ok {
		return errNoMessage
	}
	*n = news{told: n.told[:0]}
	return fields(data, func(number protowire.Number, value uint64, bytes []byte) error {
		switch number {
		case 2:
			n.id = int64(value)
		case 3:
			n.created = value != 0
		case 4:
			n.canceled = value != 0
		case 6:
			n.reason = string(bytes)
		case 11:
			return n.event(bytes)
		}
		return nil
	})
}

// event takes an mvccpb.Event, and of it the pair.
func (n *news) event(data []byte) error {
	var e told
	err := fields(data, func(number protowire.Number, _ uint64, pair []byte) error {
		if number != 2 {
			return nil
		}
		return fields(pair, func(number protowire.Number, value uint64, bytes []byte) error {
			switch number {
			case 3:
				e.revision = int64(value)
			case 5:
				e.value = bytes
			}
			return nil
		})
	})
	n.told = append(n.told, e)
	return err
}

// fields shows each field of a message: a number, or bytes. Other kinds are passed over.
func fields(data []byte, show func(number protowire.Number, value uint64, bytes []byte) error) error {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		var value uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(data)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(data)
		default:
			n = protowire.ConsumeFieldValue(number, kind, data)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if err := show(number, value, bytes); err != nil {
			return err
		}
	}
	return nil
}
