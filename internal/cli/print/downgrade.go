package print

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Downgrade writes that a verb of a downgrade has done, and the version of the cluster.
func (p *Printer) Downgrade(verb string, r *clientv3.DowngradeResponse) error {
	return p.write(answer{
		simple:   func(l *lines) { l.printf("Downgrade %s success, cluster version %s\n", verb, r.Version) },
		json:     r,
		protobuf: (*pb.DowngradeResponse)(r),
	})
}
