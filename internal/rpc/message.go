package rpc

import (
	"encoding/binary"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Encoded is a message that is on the wire's form already. It goes to clients of the
// codec of protobuf without compression as Wire has it; to all others, and where
// another server serves, as the proto.Message that it has to be as well.
type Encoded interface {
	// Wire appends what goes first to head. body is what goes behind it: others may share
	// it, nobody may ever change it, and it is kept until the client has taken it.
	Wire(head []byte) (_, body []byte)
}

// wireHead is room for what goes before the body of an Encoded.
const wireHead = 48

// encode makes the pieces of a message.
func (cs *coldStream) encode(m any) (all []piece, bytes int, err error) {
	if e, ok := m.(Encoded); ok && cs.compressor == nil && cs.codec.Name() == protoName {
		head, body := e.Wire(make([]byte, messageHead, messageHead+wireHead))
		bytes = len(head) + len(body)
		if bytes-messageHead > mostSent {
			return nil, 0, errTooLong(bytes - messageHead)
		}
		binary.BigEndian.PutUint32(head[1:], uint32(bytes-messageHead))
		if all = append(make([]piece, 0, 2), piece{bytes: head}); len(body) > 0 {
			all = append(all, piece{bytes: body})
		}
		return all, bytes, nil
	}
	return cs.marshal(m)
}

func errTooLong(n int) error {
	return status.Errorf(codes.ResourceExhausted, "trying to send message larger than max (%d vs. %d)", n, mostSent)
}

// marshal has the codec make a message.
func (cs *coldStream) marshal(m any) (all []piece, bytes int, err error) {
	message, err := cs.codec.Marshal(m)
	if err != nil {
		return nil, 0, status.Errorf(codes.Internal, "grpc: error while marshaling: %v", err)
	}
	var flag byte
	if cs.compressor != nil && message.Len() > 0 {
		flag = 1
		if message, err = compressed(cs.compressor, message); err != nil {
			return nil, 0, status.Errorf(codes.Internal, "grpc: error while compressing: %v", err)
		}
	}
	if n := message.Len(); n > mostSent {
		message.Free()
		return nil, 0, errTooLong(n)
	}
	all, bytes = pieces(flag, message)
	return all, bytes, nil
}
