package cluster

import (
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/linear"
)

func put(call, back int64, key, value string, revision id.Revision) linear.Operation {
	op := linear.Operation{Call: call, Return: back, Request: &command.PutRequest{Key: []byte(key), Value: []byte(value)}}
	if op.Response = (&command.PutResponse{Revision: revision}); revision == 0 {
		op.Response, op.Unknown, op.Return = nil, true, linear.Forever
	}
	return op
}

func get(call, back int64, key, value string, version int64, mod, revision id.Revision) linear.Operation {
	kv := command.KeyValue{Key: []byte(key), Value: []byte(value), Version: version, CreateRevision: 2, ModRevision: mod}
	return linear.Operation{Call: call, Return: back, Request: &command.RangeRequest{Key: []byte(key)},
		Response: &command.RangeResponse{Revision: revision, Count: 1, KVs: []command.KeyValue{kv}}}
}

func TestHistoriesAreJudged(t *testing.T) {
	for _, c := range []struct {
		name, says string
		history    []linear.Operation
	}{
		{"a plain one", "", []linear.Operation{put(1, 2, "a", "x", 2), get(3, 4, "a", "x", 1, 2, 2), put(5, 6, "b", "y", 3)}},
		{"an unknown put that happened", "", []linear.Operation{put(1, 2, "a", "x", 2), put(3, 0, "a", "y", 0), get(4, 5, "a", "y", 2, 3, 3)}},
		{"a stale read", "not linearizable", []linear.Operation{put(1, 2, "a", "x", 2), put(3, 4, "a", "y", 3), get(5, 6, "a", "x", 1, 2, 3)}},
		{"a put that happened twice", "not linearizable", []linear.Operation{put(1, 2, "a", "x", 2), get(3, 4, "a", "x", 2, 3, 3)}},
		{"one revision twice", "two puts have one revision", []linear.Operation{put(1, 2, "a", "x", 2), put(3, 4, "b", "y", 2)}},
		{"a revision that goes back", "sees less", []linear.Operation{put(1, 2, "a", "x", 3), put(3, 4, "b", "y", 2)}},
	} {
		err := (&Seen{History: c.history}).Check()
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}
