package embed

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/wire"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	mebi   = 1 << 20
	most   = 3 * mebi / 2 // --max-request-bytes
	mostIn = 2 * mebi     // what the transport takes
)

// valueFor is a value that makes a put of key k exactly size bytes on the wire.
func valueFor(size int) []byte {
	n := size - 2 - len("k") - 1 // tags, the key's length
	for protowire.SizeBytes(n) > size-1-2-len("k") {
		n--
	}
	return bytes.Repeat([]byte{'x'}, n)
}

// Beyond --max-request-bytes etcd refuses, beyond half a megabyte more gRPC does,
// whatever the bytes are spread over.
func TestOversizedRequests(t *testing.T) {
	m := startMember(t, t.TempDir())
	fourPuts(t, m.conn)
	before := m.calmNow(t)
	many := func(n, size int) []byte {
		txn := &pb.TxnRequest{}
		for i := range n {
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
				RequestPut: &pb.PutRequest{Key: fmt.Append(nil, i), Value: make([]byte, size)}}})
		}
		return encoded(txn)
	}
	beyond := func(n int) string {
		return fmt.Sprintf("grpc: received message larger than max (%d vs. %d)", n, mostIn)
	}
	key := func(n int) []byte { return bytes.Repeat([]byte{'k'}, n) }
	put := func(size int) []byte { return encoded(&pb.PutRequest{Key: []byte("k"), Value: valueFor(size)}) }
	var list []refusal
	add := func(what, method string, message []byte) {
		code, text := invalid, tooLarge
		if len(message) > mostIn {
			code, text = codes.ResourceExhausted, beyond(len(message))
		}
		list = append(list, refusal{what, method, message, code, text, agrees})
	}
	add("a put of 1.5 MiB", pb.KV_Put_FullMethodName, put(most))
	add("a put of 1.6 MiB", pb.KV_Put_FullMethodName, put(most+mebi/10))
	add("a put of all that is taken in", pb.KV_Put_FullMethodName, put(mostIn))
	add("a put of one byte more", pb.KV_Put_FullMethodName, put(mostIn+1))
	add("a put of 8 MiB", pb.KV_Put_FullMethodName, put(8*mebi))
	add("a key of 1.6 MiB", pb.KV_Put_FullMethodName, encoded(&pb.PutRequest{Key: key(most + mebi/10)}))
	add("a deletion of a key of 1.6 MiB", pb.KV_DeleteRange_FullMethodName, encoded(&pb.DeleteRangeRequest{Key: key(most + mebi/10)}))
	add("a deletion up to a key of 1.6 MiB", pb.KV_DeleteRange_FullMethodName, encoded(&pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: key(most + mebi/10)}))
	add("16 puts of 100 KiB", pb.KV_Txn_FullMethodName, many(16, 100<<10))
	add("128 puts of 15 KiB", pb.KV_Txn_FullMethodName, many(128, 15<<10))
	add("128 puts of 20 KiB", pb.KV_Txn_FullMethodName, many(128, 20<<10))
	add("a txn not taken, of 1.6 MiB", pb.KV_Txn_FullMethodName, encoded(&pb.TxnRequest{Failure: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k"), Value: make([]byte, most+mebi/10)}}}}}))
	add("a compare of 1.6 MiB and a put", pb.KV_Txn_FullMethodName, encoded(&pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("k"), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: make([]byte, most+mebi/10)}}},
		Success: puts(1, "p")}))
	// Shape comes before size.
	list = append(list,
		refusal{"a large put without key", pb.KV_Put_FullMethodName, encoded(&pb.PutRequest{Value: make([]byte, most)}), invalid, noKey, agrees},
		refusal{"a large txn of 129 operations", pb.KV_Txn_FullMethodName, many(129, 13<<10), invalid, tooMany, agrees},
		refusal{"a range in the future from a key of 1.9 MB", pb.KV_Range_FullMethodName, encoded(&pb.RangeRequest{Key: key(1900000), Revision: 99}), codes.OutOfRange, future, agrees})
	refuses(t, "kvorum", m.conn, list, false)
	// Reads are not replicated: only the transport limits them.
	for _, r := range []*pb.RangeRequest{{Key: key(1900000)}, {Key: []byte("k"), RangeEnd: key(1900000)}, {Key: key(1900000), RangeEnd: []byte{0}}} {
		if _, err := pb.NewKVClient(m.conn).Range(t.Context(), r); err != nil {
			t.Errorf("a range with a large key: %v", err)
		}
	}
	before.again(t)

	// What is legal, at its edge, is done.
	for _, c := range []struct {
		what, method string
		message      []byte
	}{
		{"a put just small enough", pb.KV_Put_FullMethodName, put(most - 512)},
		{"128 puts of 11 KiB", pb.KV_Txn_FullMethodName, many(128, 11<<10)},
		{"a key of 1 MiB", pb.KV_Put_FullMethodName, encoded(&pb.PutRequest{Key: key(mebi), Value: []byte("v")})},
	} {
		if _, err := invoke(t.Context(), m.conn, c.method, c.message); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	got, err := pb.NewKVClient(m.conn).Range(t.Context(), &pb.RangeRequest{Key: key(mebi)})
	if err != nil || got.Count != 1 || !bytes.Equal(got.Kvs[0].Key, key(mebi)) {
		t.Errorf("the key of 1 MiB: %v", err)
	}
	if del, err := pb.NewKVClient(m.conn).DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: key(mebi)}); err != nil || del.Deleted != 1 {
		t.Errorf("the key of 1 MiB is not deleted: %v", err)
	}
	t.Run("etcd 3.4", func(t *testing.T) {
		conn, _ := debian(t)
		fourPuts(t, conn)
		refuses(t, "etcd 3.4", conn, list, true)
	})
}

// nestedTxn is depth txns in each other with a put in the innermost, by hand: the
// library would need as deep a stack.
func nestedTxn(depth int) []byte {
	inner := encoded(&pb.TxnRequest{Success: []*pb.RequestOp{putOf("deep")}})
	// Written from the inside to the outside: lengths first, then all at once.
	sizes := make([]int, depth)
	sizes[0] = len(inner)
	for i := 1; i < depth; i++ {
		op := 1 + protowire.SizeBytes(sizes[i-1])
		sizes[i] = 1 + protowire.SizeBytes(op)
	}
	b := make([]byte, 0, sizes[depth-1])
	for i := depth - 1; i > 0; i-- {
		b = protowire.AppendTag(b, 2, protowire.BytesType) // success
		b = protowire.AppendVarint(b, uint64(1+protowire.SizeBytes(sizes[i-1])))
		b = protowire.AppendTag(b, 4, protowire.BytesType) // request_txn
		b = protowire.AppendVarint(b, uint64(sizes[i-1]))
	}
	return append(b, inner...)
}

func TestDeepTxns(t *testing.T) {
	m := startMember(t, t.TempDir())
	fourPuts(t, m.conn)
	before := m.calmNow(t)
	begin := time.Now()
	list := []refusal{
		{"129 txns deep", pb.KV_Txn_FullMethodName, nestedTxn(129), invalid, tooMany, agrees},
		{"257 txns deep", pb.KV_Txn_FullMethodName, nestedTxn(257), invalid, tooMany, agrees},
		{"4,000 txns deep", pb.KV_Txn_FullMethodName, nestedTxn(4000), invalid, tooMany, agrees},
		// Deeper than the decoder goes; 3.4's goes on.
		{"5,001 txns deep", pb.KV_Txn_FullMethodName, nestedTxn(5001), codes.Internal, unparsed, differs},
		{"200,000 txns deep", pb.KV_Txn_FullMethodName, nestedTxn(200000), codes.Internal, unparsed, differs},
	}
	refuses(t, "kvorum", m.conn, list, false)
	before.again(t)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("deep txns took %v", took)
	}
	if _, err := invoke(t.Context(), m.conn, pb.KV_Txn_FullMethodName, nestedTxn(128)); err != nil {
		t.Errorf("128 txns deep: %v", err)
	}
	if got, err := pb.NewKVClient(m.conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("deep")}); err != nil || got.Count != 1 {
		t.Errorf("the innermost put: %v, %v", got, err)
	}
	t.Run("etcd 3.4", func(t *testing.T) {
		conn, _ := debian(t)
		fourPuts(t, conn)
		refuses(t, "etcd 3.4", conn, list, true)
		if _, err := invoke(t.Context(), conn, pb.KV_Txn_FullMethodName, nestedTxn(128)); err != nil {
			t.Errorf("128 txns deep: %v", err)
		}
	})
}

// A txn of 2 MiB may be deep and wide at once: every operation lies below a
// hundred txns. Checking it must not cost a hundred times as much, nor may its
// refusal for the very last operation.
func TestAWideTxnAtTheEndOfADeepOneIsJudgedQuickly(t *testing.T) {
	m := startMember(t, t.TempDir())
	before := m.calmNow(t)
	n := 0
	var wide func(levels, width int) *pb.TxnRequest
	wide = func(levels, width int) *pb.TxnRequest {
		t := &pb.TxnRequest{}
		for range width {
			if n++; levels > 1 {
				t.Success = append(t.Success, txnOf(wide(levels-1, width)))
			} else {
				t.Success = append(t.Success, deleteOf(fmt.Sprintf("%06x", n*7919%1000003), ""))
			}
		}
		return t
	}
	txn := wide(4, 17)
	txn.Success = append(txn.Success, deleteOf("b", ""), putOf("b"))
	for range 55 {
		txn = &pb.TxnRequest{Success: []*pb.RequestOp{txnOf(txn)}}
	}
	message := encoded(txn)
	if len(message) < 1000000 || len(message) > most {
		t.Fatalf("a txn of %d bytes", len(message))
	}
	begin := time.Now()
	refuses(t, "kvorum", m.conn, []refusal{{"deep and wide", pb.KV_Txn_FullMethodName, message, invalid, twice, differs}}, false)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	before.again(t)
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// allocated is all that was ever allocated: garbage counts too.
func allocated() uint64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.TotalAlloc
}

// A length is a promise, not an order: nothing is set aside for bytes that do not
// come.
func TestLengthsThatPromiseALot(t *testing.T) {
	m := startMember(t, t.TempDir())
	before := m.calmNow(t)
	w := wire.Dial(t, m.client)
	first := heap()
	total := allocated()
	for _, n := range []uint32{mostIn + 1, 1 << 30, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
		id := w.Headers(pb.KV_Put_FullMethodName, false)
		head := wire.Framed(false, nil)
		head[1], head[2], head[3], head[4] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
		w.Data(id, false, head)
		want := fmt.Sprintf("grpc: received message larger than max (%d vs. %d)", n, mostIn)
		if a := w.Await(id); a.Code != codes.ResourceExhausted || a.Text != want {
			t.Errorf("%d bytes promised: %v", n, a)
		}
	}
	var open []uint32
	for range 500 { // a gigabyte, legally promised
		id := w.Headers(pb.KV_Put_FullMethodName, false)
		head := wire.Framed(false, nil)
		head[2] = mostIn >> 16
		w.Data(id, false, append(head, "only a little"...))
		open = append(open, id)
	}
	// An answer on the same connection shows that all the above was read.
	if a := w.Call(pb.KV_Range_FullMethodName, encoded(&pb.RangeRequest{Key: []byte("k")})); a.Code != codes.OK {
		t.Errorf("another call on the connection: %v", a)
	}
	if now := heap(); now > first+32*mebi {
		t.Errorf("the heap grew from %d to %d", first, now)
	}
	if now := allocated(); now > total+64*mebi {
		t.Errorf("%d bytes were allocated", now-total)
	}
	for _, id := range open {
		w.Must(w.WriteRSTStream(id, 8))
	}
	w.Net.Close()
	before.again(t)
}

func TestCompressedMessages(t *testing.T) {
	m := startMember(t, t.TempDir())
	kv := pb.NewKVClient(m.conn)
	fourPuts(t, m.conn)
	before := m.calmNow(t)
	w := wire.Dial(t, m.client)
	call := func(method string, compressed bool, message []byte, encoding string) *wire.Answer {
		id := w.Headers(method, false, "grpc-encoding", encoding)
		w.Data(id, true, wire.Framed(compressed, message))
		return w.Await(id)
	}
	first := allocated()
	bomb := gzipped(encoded(&pb.PutRequest{Key: []byte("bomb"), Value: make([]byte, 64*mebi)}))
	made := allocated()
	for _, c := range []struct {
		what       string
		compressed bool
		message    []byte
		encoding   string
		code       codes.Code
		text       string
	}{
		{"a bomb", true, bomb, "gzip", codes.ResourceExhausted, fmt.Sprintf("grpc: received message after decompression larger than max %d", mostIn)},
		{"one byte too many", true, gzipped(encoded(&pb.PutRequest{Key: []byte("k"), Value: valueFor(mostIn + 1)})), "gzip", codes.ResourceExhausted, fmt.Sprintf("grpc: received message after decompression larger than max %d", mostIn)},
		{"larger than a request may be", true, gzipped(encoded(&pb.PutRequest{Key: []byte("k"), Value: valueFor(mostIn)})), "gzip", invalid, tooLarge},
		{"no gzip", true, []byte("no gzip"), "gzip", codes.Internal, ""},
		{"half a gzip", true, gzipped(make([]byte, 5000))[:15], "gzip", codes.Internal, ""},
		{"nothing", true, nil, "gzip", codes.Internal, ""},
		{"an encoding that nobody knows", true, []byte("x"), "brotli", codes.Unimplemented, ""},
		{"compressed without an encoding", true, gzipped(nil), "-", codes.Internal, ""},
	} {
		a := call(pb.KV_Put_FullMethodName, c.compressed, c.message, c.encoding)
		if a.Code != c.code || c.text != "" && a.Text != c.text {
			t.Errorf("%s: %v, want %v %q", c.what, a, c.code, c.text)
		}
	}
	if grown := allocated() - made; grown > 32*mebi {
		t.Errorf("the bomb of %d bytes, made of %d, cost %d bytes of memory", len(bomb), made-first, grown)
	}
	w.Net.Close()
	before.again(t)

	w = wire.Dial(t, m.client)
	id := w.Headers(pb.KV_Put_FullMethodName, false, "grpc-encoding", "gzip")
	w.Data(id, true, wire.Framed(true, gzipped(encoded(&pb.PutRequest{Key: []byte("good"), Value: []byte(strings.Repeat("compressed ", 1000))}))))
	if a := w.Await(id); a.Code != codes.OK {
		t.Errorf("a good message, compressed: %v", a)
	}
	// The answer of a compressed call may be compressed too: the library copes.
	got, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("good")}, grpc.UseCompressor("gzip"))
	if err != nil || got.Count != 1 || len(got.Kvs[0].Value) != 11000 {
		t.Errorf("read back: %v, %v", got, err)
	}
}

func TestDeadlinesAndMetadata(t *testing.T) {
	m := startMember(t, t.TempDir())
	fourPuts(t, m.conn)
	before := m.calmNow(t)
	w := wire.Dial(t, m.client)
	read := encoded(&pb.RangeRequest{Key: []byte("k")})
	for _, c := range []struct {
		name, value string
		code        codes.Code
		text        string
	}{
		{"client-api-version", "3.\xff\xfe", invalid, "etcdserver: invalid client api version"},
		{"client-api-version", "whatever", codes.OK, ""},
		{"hasleader", "true", codes.OK, ""},
		{"hasleader", "\xff", codes.OK, ""},
		{"grpc-timeout", "1n", codes.DeadlineExceeded, "context deadline exceeded"},
		{"grpc-timeout", "5S", codes.OK, ""},
		{"token-bin", "!!not base64!!", codes.Internal, ""},
		{"x-long", strings.Repeat("x", 60<<10), codes.OK, ""},
	} {
		if a := w.Call(pb.KV_Range_FullMethodName, read, c.name, c.value); a.Code != c.code || c.text != "" && a.Text != c.text {
			t.Errorf("%s %.20q: %v, want %v %q", c.name, c.value, a, c.code, c.text)
		}
	}
	for _, bad := range []string{"abc", "1", "-5S", "99999999999S", "S"} {
		if a := w.Call(pb.KV_Range_FullMethodName, read, "grpc-timeout", bad); a.Code != codes.Internal && a.HTTP != "400" && a.Reset == 0 {
			t.Errorf("grpc-timeout %s: %v", bad, a)
		}
	}
	w.Net.Close()
	// Checks come before a request is looked at.
	ctx := metadata.AppendToOutgoingContext(t.Context(), "hasleader", "true")
	if _, err := pb.NewKVClient(m.conn).Put(ctx, &pb.PutRequest{}); status.Convert(err).Message() != noKey {
		t.Errorf("with a leader: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := pb.NewKVClient(m.conn).Put(ctx, &pb.PutRequest{Key: []byte("k")}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a put without time: %v", err)
	}
	before.again(t)
}
