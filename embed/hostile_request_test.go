package embed

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// bytesCodec sends and receives messages as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

func (bytesCodec) Name() string { return "proto" }

// invoke calls a method with a message of any bytes.
func invoke(ctx context.Context, conn *grpc.ClientConn, method string, message []byte, opts ...grpc.CallOption) ([]byte, error) {
	var answer []byte
	err := conn.Invoke(ctx, method, message, &answer, append(opts, grpc.ForceCodec(bytesCodec{}))...)
	return answer, err
}

// How far etcd 3.4 agrees with the contract, which is 3.7's.
const (
	agrees  = iota // code and text
	inCode         // the code; the text is of another library
	differs        // not at all: see the note beside
)

// refusal is a request that changes nothing and what is to be answered.
type refusal struct {
	what    string
	method  string
	message []byte
	code    codes.Code
	text    string // the whole text; for Internal its beginning
	debian  int
}

func encoded(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func putOf(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte("v")}}}
}

func deleteOf(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func rangeOf(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func txnOf(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

func puts(n int, prefix string) (ops []*pb.RequestOp) {
	for i := range n {
		ops = append(ops, putOf(fmt.Sprintf("%s%d", prefix, i)))
	}
	return ops
}

func comparesOf(n int) (list []*pb.Compare) {
	for i := range n {
		list = append(list, &pb.Compare{Key: fmt.Append(nil, i), Target: pb.Compare_VERSION})
	}
	return list
}

const (
	invalid   = codes.InvalidArgument
	compacted = "etcdserver: mvcc: required revision has been compacted"
	future    = "etcdserver: mvcc: required revision is a future revision"
	noKey     = "etcdserver: key is not provided"
	keyGone   = "etcdserver: key not found"
	badSort   = "etcdserver: invalid sort option"
	tooMany   = "etcdserver: too many operations in txn request"
	twice     = "etcdserver: duplicate key given in txn request"
	noLease   = "etcdserver: requested lease not found"
	tooLarge  = "etcdserver: request is too large"
	unparsed  = "grpc: failed to unmarshal the received message: "
)

// fourPuts gives a fresh store the keys k and l, revision 5 and compact revision 4.
func fourPuts(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	kv := pb.NewKVClient(conn)
	for _, key := range []string{"k", "k", "k", "l"} {
		if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte(key), Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: 4}); err != nil {
		t.Fatal(err)
	}
}

// single are the refusals of one request by what it asks.
func single() []refusal {
	k := []byte("k")
	ranges := func(what string, r *pb.RangeRequest, code codes.Code, text string, debian int) refusal {
		return refusal{"range " + what, pb.KV_Range_FullMethodName, encoded(r), code, text, debian}
	}
	put := func(what string, r *pb.PutRequest, code codes.Code, text string) refusal {
		return refusal{"put " + what, pb.KV_Put_FullMethodName, encoded(r), code, text, agrees}
	}
	compact := func(revision int64, text string) refusal {
		return refusal{fmt.Sprint("compact ", revision), pb.KV_Compact_FullMethodName, encoded(&pb.CompactionRequest{Revision: revision}), codes.OutOfRange, text, agrees}
	}
	list := []refusal{
		ranges("without key", &pb.RangeRequest{}, invalid, noKey, agrees),
		ranges("without key, to the end", &pb.RangeRequest{RangeEnd: []byte{0}}, invalid, noKey, agrees),
		ranges("without key, unknown order", &pb.RangeRequest{SortOrder: 9}, invalid, noKey, agrees),
		ranges("in the future", &pb.RangeRequest{Key: k, Revision: 6}, codes.OutOfRange, future, agrees),
		ranges("in the far future", &pb.RangeRequest{Key: k, Revision: 1<<63 - 1, Serializable: true}, codes.OutOfRange, future, agrees),
		ranges("below the compact revision", &pb.RangeRequest{Key: k, Revision: 3}, codes.OutOfRange, compacted, agrees),
		ranges("counted below the compact revision", &pb.RangeRequest{Key: k, Revision: 1, CountOnly: true}, codes.OutOfRange, compacted, agrees),
		ranges("of nothing in the future", &pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte("a"), Revision: 99}, codes.OutOfRange, future, agrees),
		put("without key", &pb.PutRequest{Value: k}, invalid, noKey),
		put("without key, with an ignored value", &pb.PutRequest{Value: k, IgnoreValue: true}, invalid, noKey),
		put("with an ignored value", &pb.PutRequest{Key: k, Value: k, IgnoreValue: true, IgnoreLease: true, Lease: 1}, invalid, "etcdserver: value is provided"),
		put("with an ignored lease", &pb.PutRequest{Key: k, IgnoreLease: true, Lease: -1}, invalid, "etcdserver: lease is provided"),
		put("with an unknown lease", &pb.PutRequest{Key: k, Lease: 77}, codes.NotFound, noLease),
		put("with an unknown lease, no key to take the value of", &pb.PutRequest{Key: []byte("none"), IgnoreValue: true, Lease: -77}, codes.NotFound, noLease),
		put("with the value of no key", &pb.PutRequest{Key: []byte("none"), IgnoreValue: true}, invalid, keyGone),
		put("with the lease of no key", &pb.PutRequest{Key: []byte("none"), IgnoreLease: true}, invalid, keyGone),
		{"delete without key", pb.KV_DeleteRange_FullMethodName, encoded(&pb.DeleteRangeRequest{RangeEnd: k}), invalid, noKey, agrees},
		compact(4, compacted), compact(0, compacted), compact(-1, compacted), compact(6, future), compact(1<<62, future),
	}
	hash := func(revision int64, text string) refusal {
		return refusal{fmt.Sprint("the hash at ", revision), pb.Maintenance_HashKV_FullMethodName, encoded(&pb.HashKVRequest{Revision: revision}), codes.OutOfRange, text, agrees}
	}
	list = append(list, hash(6, future), hash(1<<63-1, future), hash(3, compacted), hash(1, compacted))
	stream := func(what string, r *pb.RangeRequest, code codes.Code, text string) refusal {
		return refusal{"a stream " + what, pb.KV_RangeStream_FullMethodName, encoded(r), code, text, differs} // new in 3.7
	}
	list = append(list,
		stream("without key", &pb.RangeRequest{SortOrder: 2}, invalid, noKey),
		stream("in order 9", &pb.RangeRequest{Key: k, SortOrder: 9, MinModRevision: 1}, invalid, badSort),
		stream("descending", &pb.RangeRequest{Key: k, SortOrder: 2}, codes.Unimplemented, "RangeStream does not support custom sort orders"),
		stream("by version", &pb.RangeRequest{Key: k, SortOrder: 1, SortTarget: 1}, codes.Unimplemented, "RangeStream does not support custom sort orders"),
		stream("filtered", &pb.RangeRequest{Key: k, MaxCreateRevision: 5}, codes.Unimplemented, "RangeStream does not support revision filters"),
		stream("in the future", &pb.RangeRequest{Key: k, Revision: 6}, codes.OutOfRange, future),
		stream("below the compact revision", &pb.RangeRequest{Key: k, Revision: 3}, codes.OutOfRange, compacted),
		stream("of nothing", nil, invalid, noKey))
	// 3.4 knows no bad sort: it answers as if nothing had been asked.
	for _, n := range []int32{-1, 3, 255, 256, 1 << 30} {
		list = append(list, ranges(fmt.Sprint("in order ", n), &pb.RangeRequest{Key: k, SortOrder: pb.RangeRequest_SortOrder(n)}, invalid, badSort, differs))
	}
	for _, n := range []int32{-1, 5, 255, 256, -1 << 31} {
		list = append(list, ranges(fmt.Sprint("sorted by ", n), &pb.RangeRequest{Key: k, SortTarget: pb.RangeRequest_SortTarget(n)}, invalid, badSort, differs))
	}
	return list
}

// inTxns are the refusals of txns.
func inTxns() []refusal {
	k := []byte("k")
	txn := func(what string, t *pb.TxnRequest, code codes.Code, text string) refusal {
		return refusal{"txn " + what, pb.KV_Txn_FullMethodName, encoded(t), code, text, agrees}
	}
	then := func(ops ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: ops} }
	never := []*pb.Compare{{Key: k, Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 99}}}
	return []refusal{
		txn("of 129 puts", then(puts(129, "p")...), invalid, tooMany),
		txn("of 129 puts not taken", &pb.TxnRequest{Failure: puts(129, "p")}, invalid, tooMany),
		txn("of 129 compares", &pb.TxnRequest{Compare: comparesOf(129)}, invalid, tooMany),
		txn("of 129 compares without keys", &pb.TxnRequest{Compare: make129()}, invalid, tooMany),
		txn("of 127 and a nested one of 2", then(append(puts(127, "p"), txnOf(then(puts(2, "q")...)))...), invalid, tooMany),
		txn("nested beyond its parent's compares", &pb.TxnRequest{Compare: comparesOf(100), Success: []*pb.RequestOp{txnOf(then(puts(29, "q")...))}}, invalid, tooMany),
		txn("with an operation not set", then(&pb.RequestOp{}), invalid, keyGone),
		txn("with an operation not set, not taken", &pb.TxnRequest{Failure: []*pb.RequestOp{{}}}, invalid, keyGone),
		txn("with a nested operation not set", then(txnOf(then(&pb.RequestOp{}))), invalid, keyGone),
		txn("with a compare without key", &pb.TxnRequest{Compare: []*pb.Compare{{}}, Success: []*pb.RequestOp{{}}}, invalid, noKey),
		txn("with a nested compare without key", then(txnOf(&pb.TxnRequest{Compare: []*pb.Compare{{RangeEnd: k}}})), invalid, noKey),
		txn("with a put without key", then(putOf("")), invalid, noKey),
		txn("with a deletion without key", then(deleteOf("", "z")), invalid, noKey),
		txn("with a range without key", then(rangeOf(&pb.RangeRequest{})), invalid, noKey),
		txn("with a value to ignore", then(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: k, Value: k, IgnoreValue: true}}}), invalid, "etcdserver: value is provided"),
		txn("with one key twice", then(putOf("a"), putOf("a")), invalid, twice),
		txn("with one key twice, not taken", &pb.TxnRequest{Compare: never, Success: []*pb.RequestOp{putOf("a"), putOf("a")}}, invalid, twice),
		txn("with a put in a deletion", then(deleteOf("a", "c"), putOf("b")), invalid, twice),
		txn("with a put before its deletion", then(putOf("b"), deleteOf("b", "")), invalid, twice),
		txn("with a nested duplicate", then(putOf("a"), txnOf(&pb.TxnRequest{Failure: []*pb.RequestOp{putOf("a")}})), invalid, twice),
		txn("with two nested duplicates", then(txnOf(then(putOf("a"))), txnOf(&pb.TxnRequest{Failure: []*pb.RequestOp{putOf("a")}})), invalid, twice),
		txn("with a range in the future", then(putOf("a"), rangeOf(&pb.RangeRequest{Key: k, Revision: 6})), codes.OutOfRange, future),
		txn("with a range below the compact revision", then(putOf("a"), rangeOf(&pb.RangeRequest{Key: k, Revision: 3})), codes.OutOfRange, compacted),
		txn("with a range at a negative revision", then(rangeOf(&pb.RangeRequest{Key: k, Revision: -1})), codes.OutOfRange, compacted),
		txn("that reads the future", then(rangeOf(&pb.RangeRequest{Key: k, Revision: 7, Serializable: true})), codes.OutOfRange, future),
		txn("with a nested range in the future", then(putOf("a"), txnOf(then(rangeOf(&pb.RangeRequest{Key: k, Revision: 6})))), codes.OutOfRange, future),
		txn("with an unknown lease", then(putOf("a"), &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b"), Lease: 5}}}), codes.NotFound, noLease),
		txn("with the value of no key", then(putOf("a"), &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b"), IgnoreValue: true}}}), invalid, keyGone),
	}
}

func make129() []*pb.Compare {
	list := make([]*pb.Compare, 129)
	for i := range list {
		list[i] = &pb.Compare{}
	}
	return list
}

// broken are messages that are no protobuf, or not what was meant.
func broken() []refusal {
	long := func(field protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), b)
	}
	number := func(field protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), v)
	}
	group := func(field protowire.Number, inside []byte) []byte {
		b := append(protowire.AppendTag(nil, field, protowire.StartGroupType), inside...)
		return protowire.AppendTag(b, field, protowire.EndGroupType)
	}
	deep := []byte(nil)
	for range 100000 {
		deep = protowire.AppendTag(deep, 99, protowire.StartGroupType)
	}
	var list []refusal
	for _, method := range []string{
		pb.KV_Range_FullMethodName, pb.KV_Put_FullMethodName, pb.KV_DeleteRange_FullMethodName,
		pb.KV_Txn_FullMethodName, pb.KV_Compact_FullMethodName, pb.KV_RangeStream_FullMethodName,
		pb.Maintenance_Status_FullMethodName, pb.Maintenance_HashKV_FullMethodName, pb.Maintenance_Alarm_FullMethodName, pb.Cluster_MemberList_FullMethodName,
	} {
		for _, c := range []struct {
			what    string
			message []byte
		}{
			{"half a tag", []byte{0x8a}},
			{"a length and nothing", []byte{0x0a, 0x05}},
			{"a length of 2^63", append([]byte{0x0a}, protowire.AppendVarint(nil, 1<<63)...)},
			{"a varint of eleven bytes", append([]byte{0x20}, bytes.Repeat([]byte{0xff}, 11)...)},
			{"a varint without end", append([]byte{0x20}, bytes.Repeat([]byte{0x80}, 9)...)},
			{"field 0", []byte{0x02, 0x00}},
			{"wire type 6", []byte{0x0e, 0x00}},
			{"wire type 7", []byte{0x0f}},
			{"half a fixed64", []byte{0x61, 1, 2, 3}},
			{"a group without end", protowire.AppendTag(nil, 99, protowire.StartGroupType)},
			{"the end of no group", protowire.AppendTag(nil, 99, protowire.EndGroupType)},
			{"100,000 groups in each other", deep},
		} {
			agreement := inCode
			if method == pb.KV_RangeStream_FullMethodName {
				agreement = differs
			}
			list = append(list, refusal{method + ": " + c.what, method, c.message, codes.Internal, unparsed, agreement})
		}
		// 3.4's decoder does not look at what a group ends as.
		crossed := append(protowire.AppendTag(nil, 98, protowire.StartGroupType), protowire.AppendTag(nil, 99, protowire.EndGroupType)...)
		list = append(list, refusal{method + ": a group that ends as another", method, crossed, codes.Internal, unparsed, differs})
	}
	// A known field of another wire type is an unknown one; 3.4's decoder refuses it.
	wrong := func(what, method string, message []byte, text string) {
		list = append(list, refusal{method + ": " + what, method, message, invalid, text, differs})
	}
	wrong("the key as a number", pb.KV_Range_FullMethodName, number(1, 107), noKey)
	wrong("the key as a group", pb.KV_Put_FullMethodName, group(1, long(1, []byte("k"))), noKey)
	wrong("the key as a fixed32", pb.KV_DeleteRange_FullMethodName, append(protowire.AppendTag(nil, 1, protowire.Fixed32Type), 1, 2, 3, 4), noKey)
	wrong("a put as a number", pb.KV_Txn_FullMethodName, long(2, number(2, 1)), keyGone)
	list = append(list,
		refusal{"an operation that is no message", pb.KV_Txn_FullMethodName, long(2, long(2, []byte{0x0a, 0x7f})), codes.Internal, unparsed, inCode},
		refusal{"a compare that is no message", pb.KV_Txn_FullMethodName, long(1, []byte{0x80}), codes.Internal, unparsed, inCode},
		refusal{"a URL that is not UTF-8", pb.Cluster_MemberAdd_FullMethodName, long(1, []byte("\xff\xfe")), codes.Internal, unparsed, differs},
		refusal{"a nested group in an operation", pb.KV_Txn_FullMethodName, long(2, long(4, long(2, deep[:4000]))), codes.Internal, unparsed, inCode},
	)
	return list
}

// refuses runs refusals against a server.
func refuses(t *testing.T, name string, conn *grpc.ClientConn, list []refusal, debian bool) {
	t.Helper()
	for _, c := range list {
		if debian && c.debian == differs {
			continue
		}
		_, err := invoke(t.Context(), conn, c.method, c.message)
		got := status.Convert(err)
		said := got.Message() == c.text
		switch {
		case debian && c.debian == inCode:
			said = true
		case c.code == codes.Internal:
			said = strings.HasPrefix(got.Message(), c.text)
		}
		if got.Code() != c.code || !said {
			t.Errorf("%s: %s: %v %q, want %v %q", name, c.what, got.Code(), got.Message(), c.code, c.text)
		}
	}
}

// One table, two servers: what is refused is refused in the same words, and
// changes nothing.
func TestHostileRequests(t *testing.T) {
	m := startMember(t, t.TempDir())
	fourPuts(t, m.conn)
	before := m.calmNow(t)
	all := append(append(single(), inTxns()...), broken()...)
	refuses(t, "kvorum", m.conn, all, false)
	before.again(t)
	t.Run("etcd 3.4", func(t *testing.T) {
		conn, _ := debian(t)
		fourPuts(t, conn)
		refuses(t, "etcd 3.4", conn, all, true)
		resp, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		if err != nil || resp.Count != 2 || resp.Header.Revision != 5 {
			t.Errorf("etcd's store: %v, %v", resp, err)
		}
	})
}
