package v3

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
)

// benchHeader is the header of a real answer: ids are random 64-bit numbers.
var benchHeader = server.Header{Cluster: 0xcdf818194e3a8c32, Member: 0x8e9e05c52164694d, Term: 2}

func BenchmarkPutCodec(b *testing.B) {
	message := marshalled(b, &pb.PutRequest{Key: []byte("/registry/pods/00000001"), Value: make([]byte, 256)})
	out := &command.PutResponse{Revision: 1 << 20}
	b.Run("generated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m := new(pb.PutRequest)
			if err := proto.Unmarshal(message, m); err != nil {
				b.Fatal(err)
			}
			in := putFromWire(m)
			_ = in.Validate()
			resp := putToWire(out)
			resp.Header = headerOf(benchHeader, out.Revision)
			if _, err := proto.Marshal(resp); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ours", func(b *testing.B) {
		var dst []byte
		var in command.PutRequest
		b.ReportAllocs()
		for b.Loop() {
			if !decodePut(message, &in) {
				b.Fatal("odd")
			}
			_ = in.Validate()
			dst = appendPutBody(appendHeader(dst[:0], benchHeader, out.Revision), out)
		}
	})
}

// BenchmarkRangeCodec is the request of a range and its answer of so many pairs of
// 1 KB, once the pairs are there.
func BenchmarkRangeCodec(b *testing.B) {
	for _, pairs := range []int{1, 500} {
		message := marshalled(b, &pb.RangeRequest{Key: []byte("/registry/pods/"), RangeEnd: []byte("/registry/pods0"), Limit: 500})
		out := &command.RangeResponse{Revision: 1 << 20, More: true, Count: 1e5}
		for i := range pairs {
			out.KVs = append(out.KVs, command.KeyValue{
				Key: fmt.Appendf(nil, "/registry/pods/%08d", i), Value: make([]byte, 1<<10), CreateRevision: 1000, ModRevision: 2000, Version: 3,
			})
		}
		b.Run(fmt.Sprintf("generated/%d", pairs), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m := new(pb.RangeRequest)
				if err := proto.Unmarshal(message, m); err != nil {
					b.Fatal(err)
				}
				in := rangeFromWire(m)
				_ = in.Validate()
				resp := rangeToWire(out)
				resp.Header = headerOf(benchHeader, out.Revision)
				if _, err := proto.Marshal(resp); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("ours/%d", pairs), func(b *testing.B) {
			var dst []byte
			var in command.RangeRequest
			b.ReportAllocs()
			for b.Loop() {
				if !decodeRange(message, &in) {
					b.Fatal("odd")
				}
				_ = in.Validate()
				dst = appendRangeBody(appendHeader(dst[:0], benchHeader, out.Revision), out)
			}
		})
	}
}

func BenchmarkTxnCodec(b *testing.B) {
	key := []byte("/registry/pods/00000001")
	message := marshalled(b, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: key, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 1 << 20}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: make([]byte, 256)}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
	})
	out := &command.TxnResponse{Revision: 1 << 20, Succeeded: true, Responses: []command.OpResponse{{Put: &command.PutResponse{Revision: 1 << 20}}}}
	b.Run("generated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m := new(pb.TxnRequest)
			if err := proto.Unmarshal(message, m); err != nil {
				b.Fatal(err)
			}
			in := txnFromWire(m)
			_ = in.ReadOnly()
			resp := txnToWire(out)
			resp.Header = headerOf(benchHeader, out.Revision)
			if _, err := proto.Marshal(resp); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ours", func(b *testing.B) {
		var dst []byte
		var in command.TxnRequest
		parts := new(txnParts)
		b.ReportAllocs()
		for b.Loop() {
			if !parts.decodeTxn(message, &in, 1) {
				b.Fatal("odd")
			}
			_ = in.ReadOnly()
			parts.empty()
			dst = appendTxnBody(appendHeader(dst[:0], benchHeader, out.Revision), out)
		}
	})
}
