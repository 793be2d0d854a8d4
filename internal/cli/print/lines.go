package print

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// lines collects the text of one answer.
type lines struct {
	buf, complaints []byte
	hex             bool
}

func (l *lines) printf(format string, args ...any) { l.buf = fmt.Appendf(l.buf, format, args...) }

func (l *lines) complain(format string, args ...any) {
	l.complaints = fmt.Appendf(l.complaints, format, args...)
}

// text writes bytes on a line of their own, with hex as \x61\x62.
func (l *lines) text(b []byte) {
	if l.hex {
		for _, c := range b {
			l.printf(`\x%02x`, c)
		}
	} else {
		l.buf = append(l.buf, b...)
	}
	l.buf = append(l.buf, '\n')
}

// pair writes a key and its value on a line each.
func (l *lines) pair(kv *mvccpb.KeyValue) {
	l.text(kv.Key)
	l.text(kv.Value)
}

// field writes a line of the fields format; verb is the value's.
func (l *lines) field(name, verb string, value any) { l.printf("%q : "+verb+"\n", name, value) }

// id writes a field that names a cluster or a member: hexadecimal with hex.
func (l *lines) id(name string, value uint64) {
	if l.hex {
		l.field(name, "%x", value)
		return
	}
	l.field(name, "%d", value)
}

// lease writes a field that names a lease: hexadecimal with hex, in 16 digits.
func (l *lines) lease(name string, value int64) {
	if l.hex {
		l.field(name, "%016x", value)
		return
	}
	l.field(name, "%d", value)
}

// header writes what every answer begins with. Member lists have no revision.
func (l *lines) header(h *pb.ResponseHeader) {
	l.id("ClusterID", h.GetClusterId())
	l.id("MemberID", h.GetMemberId())
	if h.GetRevision() > 0 {
		l.field("Revision", "%d", h.GetRevision())
	}
	l.field("RaftTerm", "%d", h.GetRaftTerm())
}

// keyValue writes the fields of one key; prefix is "" or "Prev".
func (l *lines) keyValue(prefix string, kv *mvccpb.KeyValue) {
	l.field(prefix+"Key", "%q", kv.Key)
	l.field(prefix+"CreateRevision", "%d", kv.CreateRevision)
	l.field(prefix+"ModRevision", "%d", kv.ModRevision)
	l.field(prefix+"Version", "%d", kv.Version)
	l.field(prefix+"Value", "%q", kv.Value)
	l.lease(prefix+"Lease", kv.Lease)
}
