package model

import (
	"fmt"
	"strings"

	"github.com/kvorum/kvorum/internal/state/command"
)

// Text writes a request, a response or a refusal on one line. Two responses mean
// the same exactly when their texts are equal: a nil slice reads like an empty
// one.
func Text(v any) string {
	switch r := v.(type) {
	case nil:
		return "nothing"
	case error:
		return "error " + r.Error()
	case *command.PutRequest:
		return putText(r)
	case *command.RangeRequest:
		return rangeText(r)
	case *command.DeleteRangeRequest:
		return "delete " + spanText(r.Key, r.End) + flags(flag{"prev", r.PrevKV})
	case *command.TxnRequest:
		return txnText(r)
	case *command.CompactRequest:
		return fmt.Sprintf("compact %d", r.Revision)
	case *command.LeaseGrant:
		return fmt.Sprintf("grant %d ttl=%d", r.ID, r.TTL)
	case *command.LeaseRevoke:
		return fmt.Sprintf("revoke %d", r.ID)
	case *command.LeaseExpire:
		return fmt.Sprintf("expire %v", r.Leases)
	case *command.AlarmRaise:
		return fmt.Sprintf("raise %v", r.Alarm)
	case *command.AlarmReport:
		return fmt.Sprintf("report %v", r.Alarm)
	case *command.AlarmDisarm:
		return fmt.Sprintf("disarm %v", r.Alarm)
	case *command.AlarmWithdraw:
		return fmt.Sprintf("withdraw %v", r.Alarm)
	case *command.AlarmResponse:
		return fmt.Sprintf("alarms@%d %v", r.Revision, r.Alarms)
	case *command.LeaseGrantResponse:
		return fmt.Sprintf("granted@%d %d ttl=%d", r.Revision, r.ID, r.TTL)
	case *command.LeaseRevokeResponse:
		return fmt.Sprintf("revoked@%d", r.Revision)
	case *command.LeaseExpireResponse:
		return fmt.Sprintf("expired %d with %d keys", r.Leases, r.Keys)
	case *command.PutResponse:
		return fmt.Sprintf("put@%d", r.Revision) + prevText(r)
	case *command.RangeResponse:
		return fmt.Sprintf("range@%d count=%d more=%v [%s]", r.Revision, r.Count, r.More, kvsText(r.KVs))
	case *command.DeleteRangeResponse:
		return fmt.Sprintf("deleted@%d %d [%s]", r.Revision, r.Deleted, kvsText(r.Prevs))
	case *command.TxnResponse:
		return txnResponseText(r)
	case *command.CompactResponse:
		return fmt.Sprintf("compacted@%d", r.Revision)
	}
	return fmt.Sprintf("%T", v)
}

func putText(r *command.PutRequest) string {
	text := fmt.Sprintf("put %q=%q", r.Key, r.Value)
	if r.Lease != 0 {
		text += fmt.Sprintf(" lease=%d", r.Lease)
	}
	return text + flags(flag{"prev", r.PrevKV}, flag{"ignore-value", r.IgnoreValue}, flag{"ignore-lease", r.IgnoreLease})
}

func rangeText(r *command.RangeRequest) string {
	text := "range " + spanText(r.Key, r.End)
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"limit", r.Limit}, {"rev", int64(r.Revision)}, {"order", int64(r.Order)}, {"target", int64(r.Target)},
		{"min-mod", int64(r.MinModRevision)}, {"max-mod", int64(r.MaxModRevision)},
		{"min-create", int64(r.MinCreateRevision)}, {"max-create", int64(r.MaxCreateRevision)},
	} {
		if n.value != 0 {
			text += fmt.Sprintf(" %s=%d", n.name, n.value)
		}
	}
	return text + flags(flag{"serializable", r.Serializable}, flag{"keys-only", r.KeysOnly}, flag{"count-only", r.CountOnly})
}

func txnText(r *command.TxnRequest) string {
	var compares []string
	for _, c := range r.Compares {
		target := []string{"version", "create", "mod", "value", "lease"}
		result := []string{"=", ">", "<", "!="}
		operand := fmt.Sprint(c.Number)
		if c.Target == command.CompareValue {
			operand = fmt.Sprintf("%q", c.Value)
		}
		compares = append(compares, fmt.Sprintf("%s(%s)%s%s",
			name(target, int(c.Target)), spanText(c.Key, c.End), name(result, int(c.Result)), operand))
	}
	return fmt.Sprintf("txn if{%s} then{%s} else{%s}", strings.Join(compares, ", "), opsText(r.Success), opsText(r.Failure))
}

func name(names []string, n int) string {
	if n < len(names) {
		return names[n]
	}
	return fmt.Sprintf("?%d", n)
}

func opsText(ops []command.Op) string {
	var texts []string
	for _, op := range ops {
		switch {
		case op.Range != nil:
			texts = append(texts, Text(op.Range))
		case op.Put != nil:
			texts = append(texts, Text(op.Put))
		case op.Delete != nil:
			texts = append(texts, Text(op.Delete))
		case op.Txn != nil:
			texts = append(texts, Text(op.Txn))
		default:
			texts = append(texts, "unset")
		}
	}
	return strings.Join(texts, "; ")
}

func txnResponseText(r *command.TxnResponse) string {
	var texts []string
	for _, op := range r.Responses {
		switch {
		case op.Range != nil:
			texts = append(texts, Text(op.Range))
		case op.Put != nil:
			texts = append(texts, Text(op.Put))
		case op.Delete != nil:
			texts = append(texts, Text(op.Delete))
		case op.Txn != nil:
			texts = append(texts, Text(op.Txn))
		}
	}
	return fmt.Sprintf("txn@%d %v {%s}", r.Revision, r.Succeeded, strings.Join(texts, "; "))
}

func prevText(r *command.PutResponse) string {
	if r.Prev == nil {
		return ""
	}
	return " prev " + kvText(*r.Prev)
}

func kvsText(kvs []command.KeyValue) string {
	var texts []string
	for _, kv := range kvs {
		texts = append(texts, kvText(kv))
	}
	return strings.Join(texts, " ")
}

// kvText writes a pair: create, mod, version and, if there is one, the lease.
func kvText(kv command.KeyValue) string {
	text := fmt.Sprintf("%q=%q(c%d m%d v%d", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version)
	if kv.Lease != 0 {
		text += fmt.Sprintf(" l%d", kv.Lease)
	}
	return text + ")"
}

func spanText(key, end []byte) string {
	if len(end) == 0 {
		return fmt.Sprintf("%q", key)
	}
	return fmt.Sprintf("[%q,%q)", key, end)
}

type flag struct {
	name string
	on   bool
}

func flags(list ...flag) string {
	text := ""
	for _, f := range list {
		if f.on {
			text += " " + f.name
		}
	}
	return text
}
