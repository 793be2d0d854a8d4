package history

import (
	"regexp"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/state/command"
)

// mistakes are servers that answer a little wrongly now and then.
var mistakes = map[string]func(request, response any, err error) (any, error){
	"more is forgotten": func(_, response any, err error) (any, error) {
		if r, ok := response.(*pb.RangeResponse); ok && r != nil {
			r.More = false
		}
		return response, err
	},
	"the count goes by the limit": func(request, response any, err error) (any, error) {
		if r, ok := response.(*pb.RangeResponse); ok && r != nil && r.More {
			r.Count = int64(len(r.Kvs))
		}
		return response, err
	},
	"the header has the revision that was asked for": func(request, response any, err error) (any, error) {
		if r, ok := response.(*pb.RangeResponse); ok && r != nil && request.(*pb.RangeRequest).Revision > 0 {
			r.Header.Revision = request.(*pb.RangeRequest).Revision
		}
		return response, err
	},
	"a nested txn's header has a revision": func(_, response any, err error) (any, error) {
		if r, ok := response.(*pb.TxnResponse); ok && r != nil {
			for _, op := range r.Responses {
				if nested := op.GetResponseTxn(); nested != nil {
					nested.Header.Revision = r.Header.Revision
				}
			}
		}
		return response, err
	},
	"an inner header is missing": func(_, response any, err error) (any, error) {
		if r, ok := response.(*pb.TxnResponse); ok && r != nil {
			for _, op := range r.Responses {
				if m := op.GetResponseDeleteRange(); m != nil {
					m.Header = nil
				}
			}
		}
		return response, err
	},
	"a version is one too high": func(_, response any, err error) (any, error) {
		if r, ok := response.(*pb.DeleteRangeResponse); ok && r != nil && len(r.PrevKvs) > 1 {
			r.PrevKvs[1].Version++
		}
		return response, err
	},
	"the right text with another code": func(_, response any, err error) (any, error) {
		if status.Code(err) == codes.OutOfRange {
			err = status.Error(codes.InvalidArgument, status.Convert(err).Message())
		}
		return response, err
	},
	"the right code with another text": func(_, response any, err error) (any, error) {
		if s := status.Convert(err); strings.Contains(s.Message(), "duplicate key") {
			err = status.Error(s.Code(), "etcdserver: duplicate key")
		}
		return response, err
	},
	"another member answers": func(_, response any, err error) (any, error) {
		if r, ok := response.(*pb.CompactionResponse); ok && r != nil {
			r.Header.MemberId++
		}
		return response, err
	},
	"the term falls": func(_, response any, err error) (any, error) {
		if r, ok := response.(*pb.PutResponse); ok && r != nil && r.PrevKv == nil {
			r.Header.RaftTerm += 5
		}
		return response, err
	},
	"the sum of all versions is another": func(_, response any, err error) (any, error) {
		if r, ok := response.(*pb.HashKVResponse); ok && r != nil {
			r.Hash++
		}
		return response, err
	},
}

// told finds the steps of a story.
var told = regexp.MustCompile(`(?m)^ *\d+\. `)

// A player finds each mistake, and tells it in a few steps.
func TestAMistakeIsFoundAndToldInAFewSteps(t *testing.T) {
	for name, spoil := range mistakes {
		t.Run(name, func(t *testing.T) {
			s := &stack{spoil: spoil}
			t.Cleanup(func() { check(t, s.close()) })
			p := &Player{Server: s, Hashes: true}
			for seed := range uint64(200) {
				err := p.Play(seed, seed == 0)
				if err == nil {
					continue
				}
				if steps := len(told.FindAllString(err.Error(), -1)); steps > 6 {
					t.Errorf("%d steps: %v", steps, err)
				}
				return
			}
			t.Error("it is not found")
		})
	}
}

// What an unstable sort may answer, and what it may not.
func TestTiesMayComeInAnyOrder(t *testing.T) {
	kv := func(key, value string) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), Version: 1}
	}
	all := []*mvccpb.KeyValue{kv("a", "1"), kv("b", "1"), kv("c", "2"), kv("d", "2")}
	byValue := &command.RangeRequest{Key: []byte{0}, End: []byte{0}, Order: command.SortAscend, Target: command.SortByValue, Limit: 3}
	for _, c := range []struct {
		got  []*mvccpb.KeyValue
		fine bool
	}{
		{[]*mvccpb.KeyValue{all[0], all[1], all[2]}, true},
		{[]*mvccpb.KeyValue{all[1], all[0], all[2]}, true},
		{[]*mvccpb.KeyValue{all[1], all[0], all[3]}, true},
		{[]*mvccpb.KeyValue{all[0], all[0], all[2]}, false},
		{[]*mvccpb.KeyValue{all[0], all[2], all[1]}, false},
		{[]*mvccpb.KeyValue{all[0], all[1]}, false},
		{[]*mvccpb.KeyValue{all[0], all[1], kv("c", "3")}, false},
		{[]*mvccpb.KeyValue{all[0], all[1], kv("e", "2")}, false},
	} {
		want, got := &pb.RangeResponse{Kvs: all[:3]}, &pb.RangeResponse{Kvs: c.got}
		settleTies(byValue, want, &pb.RangeResponse{Kvs: all}, got)
		settled := len(got.Kvs) == 3 && &got.Kvs[0] == &want.Kvs[0]
		if settled != c.fine {
			t.Errorf("%v: %v", c.got, settled)
		}
	}
}
