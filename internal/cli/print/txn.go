package print

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Txn writes the answer to a transaction: which side was taken, and the answer
// to each of its operations.
func (p *Printer) Txn(r *clientv3.TxnResponse) error {
	m := (*pb.TxnResponse)(r)
	return p.write(answer{
		simple:   func(l *lines) { l.txn(m) },
		fields:   func(l *lines) { l.txnFields(m) },
		json:     txnOf(m),
		protobuf: m,
	})
}

func (l *lines) txn(r *pb.TxnResponse) {
	if r.Succeeded {
		l.printf("SUCCESS\n")
	} else {
		l.printf("FAILURE\n")
	}
	for _, op := range r.Responses {
		l.printf("\n")
		switch v := op.Response.(type) {
		case *pb.ResponseOp_ResponsePut:
			l.put(v.ResponsePut)
		case *pb.ResponseOp_ResponseRange:
			l.get(v.ResponseRange, false)
		case *pb.ResponseOp_ResponseDeleteRange:
			l.del(v.ResponseDeleteRange)
		case *pb.ResponseOp_ResponseTxn:
			l.txn(v.ResponseTxn)
		}
	}
}

func (l *lines) txnFields(r *pb.TxnResponse) {
	l.header(r.Header)
	l.field("Succeeded", "%t", r.Succeeded)
	for _, op := range r.Responses {
		switch v := op.Response.(type) {
		case *pb.ResponseOp_ResponsePut:
			l.putFields(v.ResponsePut)
		case *pb.ResponseOp_ResponseRange:
			l.getFields(v.ResponseRange)
		case *pb.ResponseOp_ResponseDeleteRange:
			l.delFields(v.ResponseDeleteRange)
		case *pb.ResponseOp_ResponseTxn:
			l.txnFields(v.ResponseTxn)
		}
	}
}

// txnJSON is a pb.TxnResponse whose operations have their names on the wire.
type txnJSON struct {
	Header    *pb.ResponseHeader `json:"header,omitempty"`
	Succeeded bool               `json:"succeeded,omitempty"`
	Responses []opJSON           `json:"responses,omitempty"`
}

type opJSON struct {
	Response struct {
		Range *pb.RangeResponse       `json:"response_range,omitempty"`
		Put   *pb.PutResponse         `json:"response_put,omitempty"`
		Del   *pb.DeleteRangeResponse `json:"response_delete_range,omitempty"`
		Txn   *txnJSON                `json:"response_txn,omitempty"`
	} `json:"Response"`
}

func txnOf(r *pb.TxnResponse) *txnJSON {
	t := &txnJSON{Header: r.Header, Succeeded: r.Succeeded, Responses: make([]opJSON, len(r.Responses))}
	for i, op := range r.Responses {
		to := &t.Responses[i].Response
		switch v := op.Response.(type) {
		case *pb.ResponseOp_ResponsePut:
			to.Put = v.ResponsePut
		case *pb.ResponseOp_ResponseRange:
			to.Range = v.ResponseRange
		case *pb.ResponseOp_ResponseDeleteRange:
			to.Del = v.ResponseDeleteRange
		case *pb.ResponseOp_ResponseTxn:
			to.Txn = txnOf(v.ResponseTxn)
		}
	}
	return t
}
