package grpcproxy

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

func TestRangesInANamespace(t *testing.T) {
	for _, c := range []struct{ space, key, end, wantKey, wantEnd string }{
		{"", "a", "\x00", "a", "\x00"},
		{"n/", "a", "", "n/a", ""},
		{"n/", "a", "b", "n/a", "n/b"},
		{"n/", "a", "\x00", "n/a", "n0"},
		{"n/", "\x00", "\x00", "n/\x00", "n0"},
		{"n\xff", "a", "\x00", "n\xffa", "o"},
		{"\xff\xff", "a", "\x00", "\xff\xffa", "\x00"},
		{"n/", "b", "a", "n/b", "n/a"},
		{"n/", "", "\x00", "", "n0"}, // refused by the cluster: no key
	} {
		r := &pb.RangeRequest{Key: []byte(c.key), RangeEnd: []byte(c.end)}
		space(c.space).rangeUp(r)
		if string(r.Key) != c.wantKey || string(r.RangeEnd) != c.wantEnd {
			t.Errorf("%q in %q: %q..%q", c.key+".."+c.end, c.space, r.Key, r.RangeEnd)
		}
	}
	w := &pb.WatchCreateRequest{RangeEnd: []byte(all)}
	space("n/").watchUp(w)
	if string(w.Key) != "n/\x00" || string(w.RangeEnd) != "n0" {
		t.Errorf("a watch of everything: %q..%q", w.Key, w.RangeEnd)
	}
}

// A key that goes up and comes down is what it was, whatever message it is in, and no
// other message field changes.
func TestKeysComeBackFromANamespace(t *testing.T) {
	kv := func() *mvccpb.KeyValue { return &mvccpb.KeyValue{Key: []byte("n/k"), Value: []byte("n/v")} }
	r := &pb.TxnResponse{Responses: []*pb.ResponseOp{
		{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{kv(), kv()}}}},
		{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{PrevKv: kv()}}},
		{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}},
		{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{PrevKvs: []*mvccpb.KeyValue{kv()}}}},
	}}
	r.Responses = append(r.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: proto.Clone(r).(*pb.TxnResponse)}})
	space("n/").txnDown(r)
	raw, err := proto.Marshal(r)
	if err != nil || bytes.Contains(raw, []byte("n/k")) || bytes.Count(raw, []byte("n/v")) != 8 {
		t.Errorf("%v: %q", err, raw)
	}
	if got := space("n/").keys([][]byte{[]byte("n/a"), []byte("m/b"), []byte("n/c")}); len(got) != 2 || string(got[1]) != "c" {
		t.Errorf("keys of a lease: %q", got)
	}
}

// Overlap of ranges, by what keys of a small alphabet lie in both.
func TestOverlap(t *testing.T) {
	letters := []string{"a", "b", "c", "d", "e"}
	in := func(x, key, end string) bool {
		switch end {
		case "":
			return x == key
		case all:
			return x >= key
		}
		return x >= key && x < end
	}
	for _, aKey := range letters {
		for _, aEnd := range append([]string{"", all}, letters...) {
			for _, bKey := range letters {
				for _, bEnd := range append([]string{"", all}, letters...) {
					want := slices.ContainsFunc(letters, func(x string) bool { return in(x, aKey, aEnd) && in(x, bKey, bEnd) })
					got := overlap([]byte(aKey), []byte(aEnd), []byte(bKey), []byte(bEnd))
					if want && !got {
						t.Errorf("%q..%q and %q..%q overlap", aKey, aEnd, bKey, bEnd)
					}
					if ordered := func(k, e string) bool { return e == "" || e == all || e > k }; got && !want && ordered(aKey, aEnd) && ordered(bKey, bEnd) {
						t.Errorf("%q..%q and %q..%q do not overlap", aKey, aEnd, bKey, bEnd)
					}
				}
			}
		}
	}
}

// A store of three keys is read and written in any order, reads that take their time
// included: what is remembered is never older than a write that passed.
func TestWhatIsRememberedIsNotOlderThanAWrite(t *testing.T) {
	now, remembered := time.Unix(0, 0), uint64(0)
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := newCache()
		c.now = func() time.Time { return now }
		version := map[string]int64{}
		type flight struct {
			asked *read
			sum   int64
		}
		var flights []flight
		sum := func(key, end string) (n int64) {
			for k, v := range version {
				if k == key || end != "" && k >= key && k < end {
					n += v
				}
			}
			return n
		}
		for range 300 {
			key, end := string(rune('a'+r.IntN(3))), ""
			if r.IntN(3) == 0 {
				end = "d"
			}
			switch r.IntN(3) {
			case 0:
				version[key]++
				c.forget([]byte(key), nil)
			case 1:
				kept, asked := c.begin(key+"-"+end, &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)})
				if kept != nil && kept.Count != sum(key, end) {
					t.Fatalf("seed %d: %s..%s is remembered as %d and is %d", seed, key, end, kept.Count, sum(key, end))
				}
				if kept == nil {
					flights = append(flights, flight{asked, sum(key, end)})
				}
			case 2:
				if n := len(flights); n > 0 {
					i := r.IntN(n)
					c.end(flights[i].asked, &pb.RangeResponse{Count: flights[i].sum}, nil)
					flights = slices.Delete(flights, i, i+1)
				}
			}
		}
		_, hits, _ := c.counts()
		remembered += hits
	}
	if remembered < 1000 {
		t.Errorf("only %d reads were answered from memory", remembered)
	}
}

func TestTheBoundsOfWhatIsRemembered(t *testing.T) {
	now := time.Unix(0, 0)
	c := newCache()
	c.now = func() time.Time { return now }
	remember := func(question string, r *pb.RangeRequest, answer *pb.RangeResponse, err error) {
		kept, asked := c.begin(question, r)
		if kept == nil {
			c.end(asked, answer, err)
		}
	}
	known := func(question string) bool {
		kept, asked := c.begin(question, &pb.RangeRequest{})
		c.end(asked, nil, errors.New("not asked"))
		return kept != nil
	}
	for i := range mostAnswers + 10 {
		remember(fmt.Sprint(i), &pb.RangeRequest{Key: []byte{1}}, &pb.RangeResponse{}, nil)
	}
	if keys, _, _ := c.counts(); keys != mostAnswers || known("0") || !known("100") {
		t.Errorf("%d answers are remembered", keys)
	}
	remember("large", &pb.RangeRequest{Key: []byte{1}}, &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Value: make([]byte, largestReply)}}}, nil)
	remember("failed", &pb.RangeRequest{Key: []byte{1}}, nil, errors.New("no"))
	if known("large") || known("failed") {
		t.Error("what is too large, or none, is remembered")
	}
	remember("past", &pb.RangeRequest{Key: []byte{2}, Revision: 5}, &pb.RangeResponse{}, nil)
	remember("present", &pb.RangeRequest{Key: []byte{2}}, &pb.RangeResponse{}, nil)
	c.compacted(6)
	if known("past") || !known("present") {
		t.Error("compaction forgets another")
	}
	if now = now.Add(keptFor); known("present") {
		t.Error("it is remembered for ever")
	}
}

// Nobody is told of more time than a lease has, and 1 s later the cluster is asked.
func TestWhatARenewalIsWorth(t *testing.T) {
	at := time.Unix(100, 0)
	for _, c := range []struct {
		ttl   int64
		after time.Duration
		want  int64
	}{
		{60, 0, 60}, {60, time.Millisecond, 59}, {60, 999 * time.Millisecond, 59}, {60, time.Second, 0},
		{2, 400 * time.Millisecond, 1}, {2, 500 * time.Millisecond, 0}, {0, 0, 0}, {9_000_000_000, 0, 9_000_000_000},
	} {
		r := &renewal{asked: at, last: &pb.LeaseKeepAliveResponse{TTL: c.ttl}}
		if got := r.left(at.Add(c.after)); got != c.want {
			t.Errorf("a lease of %d s, %v later: %d", c.ttl, c.after, got)
		}
	}
}

func TestOrder(t *testing.T) {
	o := &order{}
	h := func(cluster uint64, revision int64) *pb.ResponseHeader {
		return &pb.ResponseHeader{ClusterId: cluster, Revision: revision}
	}
	o.saw(h(1, 10))
	o.saw(h(1, 7))
	if !o.behind(h(1, 9)) || o.behind(h(1, 10)) || o.behind(h(2, 1)) {
		t.Error("the order of one cluster is another's, or none")
	}
	o.saw(h(2, 3))
	if o.behind(h(2, 3)) || !o.behind(h(2, 2)) {
		t.Error("a restored cluster does not begin anew")
	}
}
