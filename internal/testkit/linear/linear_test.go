package linear

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

func putOp(call, end, place int64, key, value string, at id.Revision) Operation {
	return Operation{Call: call, Return: end, Place: place,
		Request:  &command.PutRequest{Key: []byte(key), Value: []byte(value)},
		Response: &command.PutResponse{Revision: at}}
}

func readOp(call, end int64, key, value string, version int64, at, create, mod id.Revision) Operation {
	response := &command.RangeResponse{Revision: at}
	if value != "" {
		response.Count = 1
		response.KVs = []command.KeyValue{{Key: []byte(key), Value: []byte(value), CreateRevision: create, ModRevision: mod, Version: version}}
	}
	return Operation{Call: call, Return: end, Request: &command.RangeRequest{Key: []byte(key)}, Response: response}
}

func unknown(op Operation) Operation {
	op.Unknown, op.Response, op.Return = true, nil, Forever
	return op
}

// Each history, and what each judge must say of it.
func TestHistories(t *testing.T) {
	const patience = time.Second
	for name, c := range map[string]struct {
		history     []Operation
		order, keys string // part of the complaint; empty for none
	}{
		"one after the other": {history: []Operation{
			putOp(1, 2, 1, "a", "x", 2), putOp(3, 4, 2, "a", "y", 3), readOp(5, 6, "a", "y", 2, 3, 2, 3),
		}},
		"a read of the past": {history: []Operation{
			putOp(1, 2, 1, "a", "x", 2), putOp(3, 4, 2, "a", "y", 3), readOp(5, 6, "a", "x", 1, 2, 2, 2),
		}, order: "stale", keys: "not linearizable"},
		"a read while the write is on its way": {history: []Operation{
			putOp(1, 2, 1, "a", "x", 2), putOp(3, 8, 2, "a", "y", 3), readOp(5, 6, "a", "x", 1, 2, 2, 2),
		}},
		"read, then unread": {history: []Operation{
			putOp(1, 2, 1, "a", "x", 2), putOp(3, 9, 2, "a", "y", 3),
			readOp(4, 5, "a", "y", 2, 3, 2, 3), readOp(6, 7, "a", "x", 1, 2, 2, 2),
		}, order: "stale", keys: "not linearizable"},
		"a lost write": {history: []Operation{
			putOp(1, 2, 1, "a", "x", 2), readOp(3, 4, "a", "", 0, 1, 0, 0),
		}, order: "stale", keys: "not linearizable"},
		"an acknowledged write that no log has": {history: []Operation{
			putOp(1, 2, 0, "a", "x", 2),
		}, order: "nowhere in the log"},
		"a write applied twice": {history: []Operation{
			putOp(1, 2, 1, "a", "x", 2), readOp(3, 4, "a", "x", 2, 3, 2, 3),
		}, order: "never was", keys: "not linearizable"},
		"an unknown write seen": {history: []Operation{
			unknown(putOp(1, 0, 1, "a", "x", 2)), readOp(3, 4, "a", "x", 1, 2, 2, 2),
		}},
		"an unknown write not seen": {history: []Operation{
			unknown(putOp(1, 0, 0, "a", "x", 2)), readOp(3, 4, "a", "", 0, 1, 0, 0),
		}},
		"writes in the log against real time": {history: []Operation{
			putOp(1, 2, 2, "a", "x", 3), putOp(3, 4, 1, "b", "y", 2),
		}, order: "stale"},
		"a wrong revision": {history: []Operation{
			putOp(1, 2, 1, "a", "x", 5),
		}, order: "wrong answer"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := CheckOrder(c.history)
			expect(t, "CheckOrder", err, c.order)
			givenUp, err := CheckKeys(c.history, patience)
			expect(t, "CheckKeys", err, c.keys)
			if givenUp != 0 {
				t.Error("gave up")
			}
		})
	}
}

func expect(t *testing.T, judge string, err error, complaint string) {
	t.Helper()
	if complaint == "" && err != nil || complaint != "" && (err == nil || !strings.Contains(err.Error(), complaint)) {
		t.Errorf("%s: %v, want %q", judge, err, complaint)
	}
}

func TestSerializableReadsMayBeStaleButNotInvented(t *testing.T) {
	old := readOp(5, 6, "a", "x", 1, 2, 2, 2)
	old.Request.(*command.RangeRequest).Serializable = true
	history := []Operation{putOp(1, 2, 1, "a", "x", 2), putOp(3, 4, 2, "a", "y", 3), old}
	if _, err := CheckOrder(history); err != nil {
		t.Error(err)
	}
	old.Response.(*command.RangeResponse).KVs[0].Value = []byte("z")
	if _, err := CheckOrder(history); err == nil {
		t.Error("an invented value passed")
	}
}

// A compare-and-set that both of two clients won is found by either judge.
func TestTwoWinnersOfOneCompare(t *testing.T) {
	cas := func(call, end, place int64, at id.Revision, value string) Operation {
		return Operation{Call: call, Return: end, Place: place,
			Request: &command.TxnRequest{
				Compares: []command.Compare{{Key: []byte("a"), Target: command.CompareMod}},
				Success:  []command.Op{{Put: &command.PutRequest{Key: []byte("a"), Value: []byte(value)}}},
			},
			Response: &command.TxnResponse{Revision: at, Succeeded: true,
				Responses: []command.OpResponse{{Put: &command.PutResponse{Revision: at}}}},
		}
	}
	history := []Operation{cas(1, 10, 1, 2, "x"), cas(2, 11, 2, 3, "y")}
	if _, err := CheckOrder(history); err == nil {
		t.Error("CheckOrder let two winners pass")
	}
	if _, err := CheckKeys(history, time.Second); err == nil {
		t.Error("CheckKeys let two winners pass")
	}
	history[1] = unknown(history[1])
	if _, err := CheckKeys(history, time.Second); err != nil {
		t.Errorf("the second may have lost: %v", err)
	}
}

// Histories of the oracle itself, with calls and returns spread around the moment
// of their effect, always pass; with one answer changed they do not.
func TestHistoriesOfTheOracle(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		g := &model.Generator{Rand: rnd, Keys: 4}
		store, history := model.New(), []Operation{}
		for i := range int64(200) {
			request := g.Request(store.Revision())
			if err := model.Validate(request); err != nil {
				continue
			}
			response, err := store.Apply(request)
			moment := 1_000_000 * i // calls are distinct in their last three digits
			op := Operation{
				Client: int(i), Request: request, Response: response, Err: err, Place: i + 1,
				Call: moment - 1000*rnd.Int64N(50_000) - 999 + i, Return: moment + 1000*rnd.Int64N(50_000) + 1,
			}
			if _, isRange := request.(*command.RangeRequest); isRange {
				op.Place = 0
			}
			history = append(history, op)
		}
		if _, err := CheckOrder(history); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if _, err := CheckKeys(history, 5*time.Second); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		spoil(history)
		if _, err := CheckOrder(history); err == nil {
			t.Fatalf("seed %d: a spoilt history passed", seed)
		}
	}
}

// spoil changes the last answered put.
func spoil(history []Operation) {
	for i := len(history) - 1; i >= 0; i-- {
		if response, ok := history[i].Response.(*command.PutResponse); ok {
			response.Revision++
			return
		}
		if history[i].Err != nil && history[i].Place != 0 {
			history[i].Err = errors.New("another")
			return
		}
	}
}
