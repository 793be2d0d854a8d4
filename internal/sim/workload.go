package sim

import (
	"bytes"
	"fmt"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// workload draws one client's requests. Each kind has its own keys and its own
// promise:
//
//	registers  r..   puts, deletions, compare-and-sets: what porcupine judges
//	pairs      p..   two keys written by one txn, always seen together
//	anything   k..   every request that the oracle's generator can draw
type workload struct {
	rand      *simenv.Rand
	load      loadSwarm
	client    int
	generator *model.Generator
	made      int
	// seen is what the client read last of each register, for its compares.
	seen map[string]command.KeyValue
}

// draft is a request and how to make it.
type draft struct {
	request any
	// duty: the leader's own command, bound to its term.
	duty bool
	// transfer: no request at all, leadership is handed over.
	transfer bool
	// stream: the range is asked for in pieces.
	stream bool
}

// String tells the request on one line.
func (d draft) String() string {
	text := model.Text(d.request)
	if h, isHash := d.request.(*hashRequest); isHash {
		text = fmt.Sprintf("hash at %d", h.revision)
	}
	if d.stream {
		text += " in pieces"
	}
	return text
}

func newWorkload(r *simenv.Rand, load loadSwarm, client int) *workload {
	return &workload{
		rand: r, load: load, client: client, seen: map[string]command.KeyValue{},
		generator: &model.Generator{Rand: r, Keys: load.keys},
	}
}

// next draws a request; now is a revision that the client has heard of.
func (l *workload) next(now id.Revision) draft {
	n := l.rand.Int64N(l.load.total())
	for _, kind := range []struct {
		weight int64
		draw   func(id.Revision) draft
	}{
		{l.load.registers, l.register}, {l.load.pairs, l.pair}, {l.load.anything, l.anything}, {l.load.reads, l.read},
		{l.load.history, l.past}, {l.load.compactions, l.compaction}, {l.load.duties, l.duty},
	} {
		if n < kind.weight {
			return kind.draw(now)
		}
		n -= kind.weight
	}
	return draft{transfer: true}
}

func (l *workload) key(kind string) []byte {
	return fmt.Appendf(nil, "%s%d", kind, l.rand.Int64N(l.load.keys))
}

// value is unlike every other value of the world.
func (l *workload) value() []byte {
	l.made++
	value := fmt.Appendf(nil, "%d.%d", l.client, l.made)
	return append(value, bytes.Repeat([]byte("."), int(l.rand.Int64N(l.load.values)))...)
}

func (l *workload) register(id.Revision) draft {
	key := l.key("r")
	switch n := l.rand.Intn(10); {
	case n < 4:
		return draft{request: &command.PutRequest{Key: key, Value: l.value(), PrevKV: l.rand.OneIn(4)}}
	case n < 6:
		return draft{request: &command.RangeRequest{Key: key}}
	case n < 7:
		return draft{request: &command.DeleteRangeRequest{Key: key, PrevKV: l.rand.OneIn(2)}}
	}
	seen := l.seen[string(key)]
	compare := command.Compare{Key: key, Target: command.CompareMod, Number: int64(seen.ModRevision)}
	switch l.rand.Intn(4) {
	case 0:
		compare.Target, compare.Number = command.CompareVersion, seen.Version
	case 1:
		compare.Target, compare.Number, compare.Value = command.CompareValue, 0, seen.Value
	}
	return draft{request: &command.TxnRequest{
		Compares: []command.Compare{compare},
		Success:  []command.Op{{Put: &command.PutRequest{Key: key, Value: l.value()}}},
		Failure:  []command.Op{{Range: &command.RangeRequest{Key: key}}},
	}}
}

// pair writes, deletes or reads both halves of a pair.
func (l *workload) pair(id.Revision) draft {
	key := l.key("p")
	a, b, end := append(bytes.Clone(key), "/a"...), append(bytes.Clone(key), "/b"...), append(bytes.Clone(key), '0')
	switch n := l.rand.Intn(8); {
	case n < 4:
		value := l.value()
		return draft{request: &command.TxnRequest{Success: []command.Op{
			{Put: &command.PutRequest{Key: a, Value: value}}, {Put: &command.PutRequest{Key: b, Value: value}},
		}}}
	case n < 5:
		return draft{request: &command.DeleteRangeRequest{Key: append(bytes.Clone(key), '/'), End: end}}
	default:
		return draft{request: &command.RangeRequest{Key: append(bytes.Clone(key), '/'), End: end, Serializable: l.rand.OneIn(3)}}
	}
}

// anything draws until a request is valid: the doors refuse the others.
func (l *workload) anything(now id.Revision) draft {
	for {
		if request := l.generator.Request(now); model.Validate(request) == nil {
			return draft{request: request}
		}
	}
}

func (l *workload) read(id.Revision) draft {
	r := &command.RangeRequest{Key: []byte{0}, End: []byte{0}, Serializable: l.rand.OneIn(3), Limit: l.rand.Int64N(4)}
	if l.rand.OneIn(2) {
		r.Key, r.End = l.key("r"), nil
	}
	return draft{request: r}
}

// past reads at a revision that compaction is after.
func (l *workload) past(now id.Revision) draft {
	back := l.rand.Int64N(1 + l.rand.Int64N(200))
	return draft{request: &command.RangeRequest{
		Key: []byte{0}, End: []byte{0}, Revision: max(1, now-id.Revision(back)), Serializable: l.rand.OneIn(2),
	}}
}

func (l *workload) compaction(now id.Revision) draft {
	back := l.rand.Int64N(1 + l.rand.Int64N(100))
	return draft{request: &command.CompactRequest{Revision: max(1, now-id.Revision(back))}}
}

func (l *workload) duty(now id.Revision) draft {
	d := l.compaction(now)
	d.duty = true
	return d
}

// learn remembers what an answer told of a register.
func (l *workload) learn(request, response any) {
	switch r := response.(type) {
	case *command.RangeResponse:
		if request := request.(*command.RangeRequest); len(request.End) == 0 && request.Revision == 0 {
			delete(l.seen, string(request.Key))
			if len(r.KVs) == 1 {
				l.seen[string(request.Key)] = r.KVs[0]
			}
		}
	case *command.TxnResponse:
		request := request.(*command.TxnRequest)
		if len(r.Responses) == 1 && r.Responses[0].Range != nil && len(request.Failure) == 1 && !r.Succeeded {
			l.learn(request.Failure[0].Range, r.Responses[0].Range)
		}
	}
}

// halves says what is wrong with a read of a pair: both halves are there with one
// value, or neither is.
func halves(request *command.RangeRequest, response *command.RangeResponse) error {
	if len(request.Key) < 2 || request.Key[0] != 'p' || len(request.End) == 0 {
		return nil
	}
	if len(response.KVs) == 0 || len(response.KVs) == 2 && bytes.Equal(response.KVs[0].Value, response.KVs[1].Value) {
		return nil
	}
	return fmt.Errorf("half of a txn: %s", model.Text(response))
}
