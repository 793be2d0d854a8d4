package linear

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// CheckKeys searches, for each key by itself, an order of the calls that touch
// this key alone: puts, deletions, latest reads, and txns whose compares and
// operations all name it. Other calls are left out; a key that one of them may
// write is left out too, since its order could not be found without them. Serializable
// reads are left out. A search that takes longer than patience is given up and
// counted.
func CheckKeys(history []Operation, patience time.Duration) (givenUp int, err error) {
	parts := partition(history)
	keys := make([]string, 0, len(parts))
	for key := range parts {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	spec := porcupine.NondeterministicModel{
		Init:  func() []any { return []any{register{}} },
		Step:  step,
		Equal: func(a, b any) bool { return a.(register) == b.(register) },
	}
	for _, key := range keys {
		switch porcupine.CheckOperationsTimeout(spec.ToModel(), parts[key], patience) {
		case porcupine.Illegal:
			return givenUp, fmt.Errorf("not linearizable, key %q:\n%s", key, story(parts[key]))
		case porcupine.Unknown:
			givenUp++
		}
	}
	return givenUp, nil
}

// partition sorts the calls by the one key that each touches.
func partition(history []Operation) map[string][]porcupine.Operation {
	parts := map[string][]porcupine.Operation{}
	var wide []Operation
	for _, op := range history {
		key, single := onlyKey(op.Request)
		switch r, isRange := op.Request.(*command.RangeRequest); {
		case isRange && (r.Serializable || op.Unknown || op.Err != nil):
		case single:
			parts[key] = append(parts[key], porcupine.Operation{
				ClientId: op.Client, Input: op, Output: op, Call: op.Call, Return: op.Return,
			})
		case !isRange:
			wide = append(wide, op)
		}
	}
	for key := range parts {
		for _, op := range wide {
			if mayWrite(op.Request, []byte(key)) {
				delete(parts, key)
				break
			}
		}
	}
	return parts
}

// onlyKey is the key that a request is all about; false if there is none, or if
// the register below does not know the options.
func onlyKey(request any) (string, bool) {
	switch r := request.(type) {
	case *command.PutRequest:
		return string(r.Key), !r.IgnoreValue && !r.IgnoreLease
	case *command.DeleteRangeRequest:
		return string(r.Key), len(r.End) == 0
	case *command.RangeRequest:
		plain := len(r.End) == 0 && r.Revision == 0 && r.Limit == 0 && !r.KeysOnly && !r.CountOnly &&
			r.MinModRevision == 0 && r.MaxModRevision == 0 && r.MinCreateRevision == 0 && r.MaxCreateRevision == 0
		return string(r.Key), plain
	case *command.TxnRequest:
		return onlyKeyOfTxn(r)
	}
	return "", false
}

// onlyKeyOfTxn knows one shape: compares of a key, then and else of at most one
// operation each, on the same key.
func onlyKeyOfTxn(r *command.TxnRequest) (string, bool) {
	if len(r.Compares) == 0 || len(r.Success) > 1 || len(r.Failure) > 1 {
		return "", false
	}
	key := string(r.Compares[0].Key)
	for _, c := range r.Compares {
		if string(c.Key) != key || len(c.End) != 0 || c.Target > command.CompareValue || c.Result > command.NotEqual {
			return "", false
		}
	}
	for _, op := range slices.Concat(r.Success, r.Failure) {
		var inner any
		switch {
		case op.Put != nil:
			inner = op.Put
		case op.Delete != nil:
			inner = op.Delete
		case op.Range != nil:
			inner = op.Range
		}
		if k, single := onlyKey(inner); !single || k != key {
			return "", false
		}
	}
	return key, true
}

// mayWrite says whether a request may write the key.
func mayWrite(request any, key []byte) bool {
	switch r := request.(type) {
	case *command.PutRequest:
		return bytes.Equal(r.Key, key)
	case *command.DeleteRangeRequest:
		if len(r.End) == 0 {
			return bytes.Equal(r.Key, key)
		}
		fromKey := len(r.End) == 1 && r.End[0] == 0
		return bytes.Compare(key, r.Key) >= 0 && (fromKey || bytes.Compare(key, r.End) < 0)
	case *command.TxnRequest:
		for _, op := range slices.Concat(r.Success, r.Failure) {
			if op.Put != nil && mayWrite(op.Put, key) || op.Delete != nil && mayWrite(op.Delete, key) ||
				op.Txn != nil && mayWrite(op.Txn, key) {
				return true
			}
		}
	}
	return false
}

// register is one key as far as the calls tell. A revision of 0 is one that
// nobody has seen: of a write whose answer was lost.
type register struct {
	exists         bool
	value          string
	create, latest id.Revision
	version        int64
	// floor is the revision of the last change seen, deletions included.
	floor id.Revision
}

// step is what the register may be after one call. No state: the call cannot
// have been answered so.
func step(state, input, _ any) []any {
	op, s := input.(Operation), state.(register)
	if op.Err != nil && !op.Unknown {
		return []any{state} // a refusal changes nothing; CheckOrder judges it
	}
	var next []register
	switch r := op.Request.(type) {
	case *command.PutRequest:
		next = s.put(r, answer[*command.PutResponse](op))
	case *command.DeleteRangeRequest:
		next = s.delete(answer[*command.DeleteRangeResponse](op))
	case *command.RangeRequest:
		next = s.read(answer[*command.RangeResponse](op))
	case *command.TxnRequest:
		next = s.txn(r, answer[*command.TxnResponse](op))
	}
	states := make([]any, len(next))
	for i, s := range next {
		states[i] = s
	}
	return states
}

// answer is the response of a call, nil if it is not known.
func answer[R any](op Operation) (response R) {
	if !op.Unknown {
		response, _ = op.Response.(R)
	}
	return response
}

func (s register) put(r *command.PutRequest, response *command.PutResponse) []register {
	next := register{exists: true, value: string(r.Value), create: s.create, version: s.version + 1, floor: s.floor}
	if !s.exists {
		next.create, next.version = 0, 1
	}
	if response != nil {
		if response.Revision <= s.floor || response.Prev != nil && !s.exists {
			return nil
		}
		next.latest, next.floor = response.Revision, response.Revision
		if !s.exists {
			next.create = response.Revision
		}
	}
	return []register{next}
}

func (s register) delete(response *command.DeleteRangeResponse) []register {
	if response == nil {
		return []register{{floor: s.floor}}
	}
	if (response.Deleted == 1) != s.exists || s.exists && response.Revision <= s.floor {
		return nil
	}
	if s.exists {
		return []register{{floor: response.Revision}}
	}
	return []register{s}
}

// read compares what was read with the register, and learns revisions from it.
func (s register) read(response *command.RangeResponse) []register {
	if response == nil {
		return []register{s}
	}
	if s.exists != (response.Count == 1) || response.Revision < s.floor {
		return nil
	}
	if !s.exists {
		return []register{s}
	}
	kv := response.KVs[0]
	if string(kv.Value) != s.value || kv.Version != s.version ||
		s.latest != 0 && kv.ModRevision != s.latest || s.create != 0 && kv.CreateRevision != s.create ||
		kv.ModRevision < s.floor {
		return nil
	}
	s.latest, s.create, s.floor = kv.ModRevision, kv.CreateRevision, kv.ModRevision
	return []register{s}
}

// txn tries both branches where the answer does not tell which one was taken and
// the register does not know.
func (s register) txn(r *command.TxnRequest, response *command.TxnResponse) []register {
	var next []register
	for _, succeeded := range []bool{true, false} {
		if response != nil && response.Succeeded != succeeded {
			continue
		}
		if holds, sure := s.holds(r.Compares); sure && holds != succeeded {
			continue
		}
		ops := r.Failure
		if succeeded {
			ops = r.Success
		}
		if len(ops) == 0 {
			next = append(next, s)
			continue
		}
		var inner command.OpResponse
		if response != nil {
			inner = response.Responses[0]
		}
		switch op := ops[0]; {
		case op.Put != nil:
			next = append(next, s.put(op.Put, inner.Put)...)
		case op.Delete != nil:
			next = append(next, s.delete(inner.Delete)...)
		case op.Range != nil:
			next = append(next, s.read(inner.Range)...)
		}
	}
	return next
}

// holds judges the compares; it is not sure if one needs a revision that nobody
// has seen.
func (s register) holds(compares []command.Compare) (holds, sure bool) {
	holds, sure = true, true
	for _, c := range compares {
		difference := 0
		switch c.Target {
		case command.CompareVersion:
			difference = cmp.Compare(s.version, c.Number)
		case command.CompareCreate:
			difference = cmp.Compare(int64(s.create), c.Number)
			sure = sure && (s.create != 0 || !s.exists)
		case command.CompareMod:
			difference = cmp.Compare(int64(s.latest), c.Number)
			sure = sure && (s.latest != 0 || !s.exists)
		case command.CompareValue:
			difference = cmp.Compare(s.value, string(c.Value))
			holds = holds && s.exists
		}
		switch c.Result {
		case command.Equal:
			holds = holds && difference == 0
		case command.Greater:
			holds = holds && difference > 0
		case command.Less:
			holds = holds && difference < 0
		case command.NotEqual:
			holds = holds && difference != 0
		}
	}
	return holds, sure
}

func story(ops []porcupine.Operation) string {
	var lines []string
	for _, op := range ops {
		lines = append(lines, "\t"+op.Input.(Operation).String())
	}
	return strings.Join(lines, "\n")
}
