package v3

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
)

// requestKinds are the messages that have a codec of ours: by the generated code, and
// by ours.
var requestKinds = []struct {
	name      string
	generated func([]byte) (any, error)
	ours      func([]byte) (any, error)
}{
	{"put", func(b []byte) (any, error) {
		m := new(pb.PutRequest)
		err := oddly(b, m)
		return putFromWire(m), err
	}, func(b []byte) (any, error) {
		p := command.PutRequest{Lease: 7, PrevKV: true}
		err := readPut(b, &p)
		return p, err
	}},
	{"range", func(b []byte) (any, error) {
		m := new(pb.RangeRequest)
		err := oddly(b, m)
		return rangeFromWire(m), err
	}, func(b []byte) (any, error) {
		r := command.RangeRequest{Limit: 7, CountOnly: true}
		err := readRange(b, &r)
		return r, err
	}},
	{"delete", func(b []byte) (any, error) {
		m := new(pb.DeleteRangeRequest)
		err := oddly(b, m)
		return deleteFromWire(m), err
	}, func(b []byte) (any, error) {
		d := command.DeleteRangeRequest{PrevKV: true}
		err := readDelete(b, &d)
		return d, err
	}},
	{"txn", func(b []byte) (any, error) {
		m := new(pb.TxnRequest)
		err := oddly(b, m)
		return txnFromWire(m), err
	}, func(b []byte) (any, error) {
		t := command.TxnRequest{Compares: make([]command.Compare, 3)}
		err := readTxn(b, &t, new(txnParts))
		return t, err
	}},
}

// written is what a value says; no bytes and no list are the same as empty ones.
func written(t testing.TB, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(`""`, "null", "[]", "null").Replace(string(b))
}

// sameRequest holds our reading of a message against the generated code's.
func sameRequest(t testing.TB, kind int, message []byte) {
	t.Helper()
	k := requestKinds[kind]
	want, wantErr := k.generated(message)
	got, err := k.ours(bytes.Clone(message))
	switch {
	case (err == nil) != (wantErr == nil), err != nil && err.Error() != wantErr.Error():
		t.Fatalf("%s %x: error %v, the generated code says %v", k.name, message, err, wantErr)
	case err == nil && written(t, got) != written(t, want):
		t.Fatalf("%s %x:\n%s, the generated code says\n%s", k.name, message, written(t, got), written(t, want))
	}
}

// drawnRequest makes a message with some fields set, sometimes to strange values.
func drawnRequest(r *rand.Rand, kind int) proto.Message {
	text := func() []byte {
		if r.IntN(4) == 0 {
			return nil
		}
		return bytes.Repeat([]byte{byte('a' + r.IntN(3))}, r.IntN(200))
	}
	number := func() int64 {
		switch r.IntN(4) {
		case 0:
			return 0
		case 1:
			return int64(r.Uint64())
		}
		return r.Int64N(300)
	}
	yes := func() bool { return r.IntN(3) == 0 }
	switch kind {
	case 0:
		return &pb.PutRequest{Key: text(), Value: text(), Lease: number(), PrevKv: yes(), IgnoreValue: yes(), IgnoreLease: yes()}
	case 1:
		return &pb.RangeRequest{
			Key: text(), RangeEnd: text(), Limit: number(), Revision: number(),
			SortOrder: pb.RangeRequest_SortOrder(number()), SortTarget: pb.RangeRequest_SortTarget(number()),
			Serializable: yes(), KeysOnly: yes(), CountOnly: yes(), MinModRevision: number(), MaxModRevision: number(),
			MinCreateRevision: number(), MaxCreateRevision: number(),
		}
	case 2:
		return &pb.DeleteRangeRequest{Key: text(), RangeEnd: text(), PrevKv: yes()}
	}
	return drawnTxn(r, text, number)
}

func drawnTxn(r *rand.Rand, text func() []byte, number func() int64) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range r.IntN(4) {
		c := &pb.Compare{Key: text(), RangeEnd: text(), Result: pb.Compare_CompareResult(r.IntN(6) - 1), Target: pb.Compare_CompareTarget(r.IntN(7) - 1)}
		switch r.IntN(7) {
		case 0:
			c.TargetUnion = &pb.Compare_Version{Version: number()}
		case 1:
			c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: number()}
		case 2:
			c.TargetUnion = &pb.Compare_ModRevision{ModRevision: number()}
		case 3:
			c.TargetUnion = &pb.Compare_Value{Value: text()}
		case 4:
			c.TargetUnion = &pb.Compare_Lease{Lease: number()}
		}
		t.Compare = append(t.Compare, c)
	}
	ops := func() (ops []*pb.RequestOp) {
		for range r.IntN(3) {
			op := &pb.RequestOp{}
			switch r.IntN(7) {
			case 0, 1:
				op.Request = &pb.RequestOp_RequestPut{RequestPut: drawnRequest(r, 0).(*pb.PutRequest)}
			case 2, 3:
				op.Request = &pb.RequestOp_RequestRange{RequestRange: drawnRequest(r, 1).(*pb.RangeRequest)}
			case 4:
				op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: drawnRequest(r, 2).(*pb.DeleteRangeRequest)}
			case 5:
				op.Request = &pb.RequestOp_RequestTxn{RequestTxn: drawnTxn(r, text, number)}
			}
			ops = append(ops, op)
		}
		return ops
	}
	t.Success, t.Failure = ops(), ops()
	return t
}

func marshalled(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What the generated code makes of a message, of two that are joined, or of one
// that is damaged, is what the hand-written code makes of it.
func TestRequestsAreReadAsTheGeneratedCodeReadsThem(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 1))
	for range 6000 {
		kind := r.IntN(len(requestKinds))
		b := marshalled(t, drawnRequest(r, kind))
		sameRequest(t, kind, b)
		b = append(b, marshalled(t, drawnRequest(r, kind))...)
		sameRequest(t, kind, b)
		for range r.IntN(3) {
			if len(b) == 0 {
				break
			}
			switch at := r.IntN(len(b)); r.IntN(3) {
			case 0:
				b[at] = byte(r.Uint32())
			case 1:
				b = b[:at]
			case 2:
				b = append(b[:at:at], append([]byte{byte(r.IntN(80))}, b[at:]...)...)
			}
		}
		sameRequest(t, kind, b)
	}
}

// oddMessages are what no client of ours sends and a parser must have an opinion of.
func oddMessages() [][]byte {
	key := []byte{0x0a, 1, 'k'}
	group := protowire.AppendTag(nil, 90, protowire.StartGroupType)
	group = append(group, key...)
	group = protowire.AppendTag(group, 90, protowire.EndGroupType)
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1<<63)
	unknown = protowire.AppendFixed32(protowire.AppendTag(unknown, 1001, protowire.Fixed32Type), 1)
	unknown = protowire.AppendFixed64(protowire.AppendTag(unknown, 1002, protowire.Fixed64Type), 1)
	put, get := []byte{0x12, 5, 0x0a, 3, 'k', 'e', 'y'}, []byte{0x0a, 3, 0x0a, 1, 'k'}
	twice := append(append([]byte{}, put...), 0x12, 3, 0x12, 1, 'v')
	op := func(b []byte) []byte { return append([]byte{0x12, byte(len(b))}, b...) }
	deep := []byte{}
	for range 300 {
		deep = protowire.AppendBytes([]byte{0x22}, deep)
		deep = protowire.AppendBytes([]byte{0x12}, deep)
	}
	return [][]byte{
		{}, key, append(key, key...), append(key, 0x0a, 0), group, unknown, append(unknown, key...),
		{0x0a}, {0x0a, 2, 'k'}, {0x08, 1}, {0x18, 0x80, 0}, {0x20, 2}, {0x0f}, {0x0c}, {0x00, 1}, {0x05, 1, 2, 3, 4}, {0x0d, 1, 2, 3},
		{0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, {0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2},
		{0x8a, 0x80, 0x00, 1, 'k'}, {0x28, 0x80, 0x80, 0x80, 0x80, 0x10}, {0x28, 0xff, 0xff, 0xff, 0xff, 0x0f},
		op(put), op(twice), op(append(append([]byte{}, put...), get...)), op(append(append([]byte{}, get...), put...)), op(group),
		{0x0a, 6, 0x10, 1, 0x20, 5, 0x28, 6}, {0x0a, 7, 0x10, 3, 0x3a, 0, 0x20, 5, 0x18}, deep,
	}
}

func TestOddRequestsAreReadAsTheGeneratedCodeReadsThem(t *testing.T) {
	for _, b := range oddMessages() {
		for kind := range requestKinds {
			sameRequest(t, kind, b)
		}
	}
}

// A txn's parts come to lie in memory that was used before; nothing of what was
// there may be seen.
func TestATxnInUsedMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 2))
	var in command.TxnRequest
	parts := new(txnParts)
	for range 2000 {
		b := marshalled(t, drawnRequest(r, 3))
		if err := readTxn(b, &in, parts); err != nil {
			t.Fatal(err)
		}
		want, _ := requestKinds[3].generated(b)
		if written(t, in) != written(t, want) {
			t.Fatalf("%x:\n%s, the generated code says\n%s", b, written(t, in), written(t, want))
		}
		parts.empty()
	}
}

func FuzzRequests(f *testing.F) {
	for _, b := range oddMessages() {
		for kind := range requestKinds {
			f.Add(uint8(kind), b)
		}
	}
	r := rand.New(rand.NewPCG(5, 3))
	for range 40 {
		kind := r.IntN(len(requestKinds))
		f.Add(uint8(kind), marshalled(f, drawnRequest(r, kind)))
	}
	f.Fuzz(func(t *testing.T, kind uint8, message []byte) {
		sameRequest(t, int(kind)%len(requestKinds), message)
	})
}

// drawnAnswers draws the member's answers from a seed.
type drawnAnswers struct{ *rand.Rand }

func (d drawnAnswers) number() int64 {
	switch d.IntN(4) {
	case 0:
		return 0
	case 1:
		return int64(d.Uint64())
	}
	return d.Int64N(1 << d.IntN(40))
}

func (d drawnAnswers) pair() command.KeyValue {
	text := func() []byte { return bytes.Repeat([]byte{'x'}, d.IntN(3)*d.IntN(150)) }
	return command.KeyValue{
		Key: text(), Value: text(), CreateRevision: id.Revision(d.number()), ModRevision: id.Revision(d.number()),
		Version: d.number(), Lease: id.Lease(d.number()),
	}
}

func (d drawnAnswers) pairs() (kvs []command.KeyValue) {
	for range d.IntN(4) {
		kvs = append(kvs, d.pair())
	}
	return kvs
}

func (d drawnAnswers) rangeResponse() *command.RangeResponse {
	return &command.RangeResponse{Revision: id.Revision(d.number()), KVs: d.pairs(), More: d.IntN(2) == 0, Count: d.number()}
}

func (d drawnAnswers) putResponse() *command.PutResponse {
	out := &command.PutResponse{Revision: id.Revision(d.number())}
	if d.IntN(2) == 0 {
		kv := d.pair()
		out.Prev = &kv
	}
	return out
}

func (d drawnAnswers) deleteResponse() *command.DeleteRangeResponse {
	return &command.DeleteRangeResponse{Revision: id.Revision(d.number()), Deleted: d.number(), Prevs: d.pairs()}
}

func (d drawnAnswers) txnResponse(depth int) *command.TxnResponse {
	out := &command.TxnResponse{Revision: id.Revision(d.number()), Succeeded: d.IntN(2) == 0}
	for range d.IntN(4) {
		var op command.OpResponse
		switch kind := d.IntN(4); {
		case kind == 0:
			op.Range = d.rangeResponse()
		case kind == 1:
			op.Put = d.putResponse()
		case kind == 2 || depth == 0:
			op.Delete = d.deleteResponse()
		default:
			op.Txn = d.txnResponse(depth - 1)
		}
		out.Responses = append(out.Responses, op)
	}
	return out
}

// sameAnswers holds our bytes against the generated code's.
func sameAnswers(t testing.TB, seed uint64) {
	t.Helper()
	d := drawnAnswers{rand.New(rand.NewPCG(seed, 6))}
	h := server.Header{Cluster: id.Cluster(d.Uint64()), Member: id.Member(d.number()), Term: id.Term(d.IntN(9))}
	of := func(r id.Revision) *pb.ResponseHeader { return headerOf(h, r) }
	same := func(name string, got []byte, want proto.Message) {
		t.Helper()
		if b := marshalled(t, want); !bytes.Equal(got, b) {
			t.Fatalf("%s of seed %d:\n%x, the generated code writes\n%x", name, seed, got, b)
		}
	}
	put, get, del, txn := d.putResponse(), d.rangeResponse(), d.deleteResponse(), d.txnResponse(3)
	before := []byte("before")
	start := func(r id.Revision) []byte { return appendHeader(bytes.Clone(before), h, r) }
	putWire, getWire, delWire, txnWire := putToWire(put), rangeToWire(get), deleteToWire(del), txnToWire(txn)
	putWire.Header, getWire.Header, delWire.Header, txnWire.Header = of(put.Revision), of(get.Revision), of(del.Revision), of(txn.Revision)
	same("put", appendPutBody(start(put.Revision), put)[len(before):], putWire)
	same("range", appendRangeBody(start(get.Revision), get)[len(before):], getWire)
	same("delete", appendDeleteBody(start(del.Revision), del)[len(before):], delWire)
	same("txn", appendTxnBody(start(txn.Revision), txn)[len(before):], txnWire)
}

func TestAnswersAreWrittenAsTheGeneratedCodeWritesThem(t *testing.T) {
	for seed := range uint64(3000) {
		sameAnswers(t, seed)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(uint64(0))
	f.Fuzz(func(t *testing.T, seed uint64) { sameAnswers(t, seed) })
}
