package print

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Alarm writes alarms, one on a line.
func (p *Printer) Alarm(r *clientv3.AlarmResponse) error {
	return p.write(answer{
		simple: func(l *lines) {
			for _, a := range r.Alarms {
				if a.MemberID != 0 {
					l.printf("memberID:%d ", a.MemberID)
				}
				l.printf("alarm:%v\n", a.Alarm)
			}
		},
		fields: func(l *lines) {
			l.header(r.Header)
			for _, a := range r.Alarms {
				l.id("MemberID", a.MemberID)
				l.field("AlarmType", "%v", a.Alarm)
				l.printf("\n")
			}
		},
		json:     r,
		protobuf: (*pb.AlarmResponse)(r),
	})
}
