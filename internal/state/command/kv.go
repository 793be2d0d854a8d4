package command

import "github.com/kvorum/kvorum/internal/id"

// The requests and answers of the key-value store, as spec/v3-api.md section 2
// describes them. Byte slices of a decoded request alias the buffer it was
// decoded from; those of an answer belong to the receiver.

// KeyValue is one version of a key.
type KeyValue struct {
	Key, Value     []byte
	CreateRevision id.Revision
	ModRevision    id.Revision
	Version        int64
	Lease          id.Lease
}

// SortTarget is what a range is sorted by; SortOrder in which direction. The
// numbers are those of the API.
type (
	SortTarget uint8
	SortOrder  uint8
)

// The sort targets and orders.
const (
	SortByKey SortTarget = iota
	SortByVersion
	SortByCreate
	SortByMod
	SortByValue
)

// The sort orders.
const (
	SortNone SortOrder = iota
	SortAscend
	SortDescend
)

// RangeRequest asks for keys. Key and End are as in spec 1.6: End empty is the
// single key, a zero byte is "all from Key on".
type RangeRequest struct {
	Key, End                             []byte
	Limit                                int64
	Revision                             id.Revision
	Order                                SortOrder
	Target                               SortTarget
	Serializable, KeysOnly, CountOnly    bool
	MinModRevision, MaxModRevision       id.Revision
	MinCreateRevision, MaxCreateRevision id.Revision
}

// RangeResponse answers a range. Revision is the store's at the read, for the
// header.
type RangeResponse struct {
	Revision id.Revision
	KVs      []KeyValue
	More     bool
	Count    int64
}

// PutRequest writes one key.
type PutRequest struct {
	Key, Value                       []byte
	Lease                            id.Lease
	PrevKV, IgnoreValue, IgnoreLease bool
}

// PutResponse answers a put; Prev is nil unless asked for and there.
type PutResponse struct {
	Revision id.Revision
	Prev     *KeyValue
}

// DeleteRangeRequest deletes keys; Key and End as in RangeRequest.
type DeleteRangeRequest struct {
	Key, End []byte
	PrevKV   bool
}

// DeleteRangeResponse answers a deletion.
type DeleteRangeResponse struct {
	Revision id.Revision
	Deleted  int64
	Prevs    []KeyValue
}

// CompareResult and CompareTarget have the numbers of the API; unknown numbers
// are kept and judged as spec 2.5 says.
type (
	CompareResult uint8
	CompareTarget uint8
)

// The results and targets of compares.
const (
	Equal CompareResult = iota
	Greater
	Less
	NotEqual
)

// The compare targets.
const (
	CompareVersion CompareTarget = iota
	CompareCreate
	CompareMod
	CompareValue
	CompareLease
)

// Compare is one condition of a txn. Number holds the operand of every target
// but CompareValue, which uses Value; a missing or different operand is 0/empty.
type Compare struct {
	Key, End []byte
	Result   CompareResult
	Target   CompareTarget
	Number   int64
	Value    []byte
}

// Op is one operation of a txn: exactly one field is set.
type Op struct {
	Range  *RangeRequest
	Put    *PutRequest
	Delete *DeleteRangeRequest
	Txn    *TxnRequest
}

// TxnRequest runs Success if every compare holds, else Failure.
type TxnRequest struct {
	Compares         []Compare
	Success, Failure []Op
}

// OpResponse is one operation's answer: exactly one field is set.
type OpResponse struct {
	Range  *RangeResponse
	Put    *PutResponse
	Delete *DeleteRangeResponse
	Txn    *TxnResponse
}

// TxnResponse answers a txn. Of a nested one Revision is 0 (spec 1.2).
type TxnResponse struct {
	Revision  id.Revision
	Succeeded bool
	Responses []OpResponse
}

// CompactRequest drops history below Revision.
type CompactRequest struct {
	Revision id.Revision
	// Physical is the caller's wish to wait for the removal; the state ignores it.
	Physical bool
}

// CompactResponse answers a compaction.
type CompactResponse struct{ Revision id.Revision }
