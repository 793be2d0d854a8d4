package v3

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// RangeStream answers a range in pieces at one revision (spec 2.2). Header, more
// and count are in the last message.
func (s *kv) RangeStream(req *pb.RangeRequest, to grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	in := rangeFromWire(req)
	if err := in.ValidateStream(); err != nil {
		return toWire(err)
	}
	ctx := to.Context()
	as, err := session(to.Context(), s.member)
	if err != nil {
		return toWire(err)
	}
	if !in.Serializable {
		if _, err := await(ctx, s.member, s.member.Barrier); err != nil {
			return toWire(err)
		}
	}
	for stream := as.RangeStream(&in); ; {
		if err := s.reads.enter(ctx); err != nil {
			return toWire(err)
		}
		piece, last, err := stream.Next()
		s.reads.leave()
		if err != nil {
			return toWire(err)
		}
		resp := rangeToWire(piece)
		if last {
			resp.Header = header(s.member, piece.Revision)
		}
		// A reader that does not read stops here, with nothing open.
		if err := to.Send(&pb.RangeStreamResponse{RangeResponse: resp}); err != nil || last {
			return err
		}
	}
}
