package print

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// EndpointStatus is what one endpoint says of its member.
type EndpointStatus struct {
	Endpoint string                   `json:"Endpoint"`
	Status   *clientv3.StatusResponse `json:"Status"`
}

// EndpointHealth is the outcome of a health check. Took is a duration's text;
// Error is empty exactly when the endpoint is healthy.
type EndpointHealth struct {
	Endpoint string `json:"endpoint"`
	Healthy  bool   `json:"health"`
	Took     string `json:"took"`
	Error    string `json:"error,omitempty"`
}

// EndpointHashKV is the hash of one endpoint's keys and their history.
type EndpointHashKV struct {
	Endpoint string                   `json:"Endpoint"`
	HashKV   *clientv3.HashKVResponse `json:"HashKV"`
}

// EndpointStatus writes the statuses in the order given.
func (p *Printer) EndpointStatus(list []EndpointStatus) error {
	g := grid{head: []string{"Endpoint", "ID", "Version", "Storage Version", "DB Size", "In Use", "Percentage Not In Use", "Quota",
		"Is Leader", "Is Learner", "Raft Term", "Raft Index", "Raft Applied Index", "Errors", "Downgrade Target Version", "Downgrade Enabled"}}
	for _, ep := range list {
		s := ep.Status
		g.rows = append(g.rows, []string{
			ep.Endpoint, fmt.Sprintf("%x", s.Header.GetMemberId()), s.Version, s.StorageVersion,
			size(s.DbSize), size(s.DbSizeInUse), notInUse(s.DbSize, s.DbSizeInUse), size(s.DbSizeQuota),
			fmt.Sprint(s.Leader == s.Header.GetMemberId()), fmt.Sprint(s.IsLearner),
			fmt.Sprint(s.RaftTerm), fmt.Sprint(s.RaftIndex), fmt.Sprint(s.RaftAppliedIndex), strings.Join(s.Errors, ", "),
			s.DowngradeInfo.GetTargetVersion(), fmt.Sprint(s.DowngradeInfo.GetEnabled()),
		})
	}
	return p.write(answer{
		simple: func(l *lines) { l.columns(g.rows) },
		fields: func(l *lines) {
			for _, ep := range list {
				l.status(ep)
			}
		},
		json:  list,
		table: &g,
	})
}

func (l *lines) status(ep EndpointStatus) {
	s := ep.Status
	l.header(s.Header)
	l.field("Version", "%q", s.Version)
	l.field("StorageVersion", "%q", s.StorageVersion)
	l.field("DBSize", "%d", s.DbSize)
	l.field("DBSizeInUse", "%d", s.DbSizeInUse)
	l.field("DBSizeQuota", "%d", s.DbSizeQuota)
	l.field("Leader", "%d", s.Leader) // never in hexadecimal: so it is in etcd
	l.field("IsLearner", "%t", s.IsLearner)
	l.field("RaftIndex", "%d", s.RaftIndex)
	l.field("RaftTerm", "%d", s.RaftTerm)
	l.field("RaftAppliedIndex", "%d", s.RaftAppliedIndex)
	l.field("Errors", "%v", s.Errors)
	l.field("Endpoint", "%q", ep.Endpoint)
	l.field("DowngradeTargetVersion", "%q", s.DowngradeInfo.GetTargetVersion())
	l.field("DowngradeEnabled", "%t", s.DowngradeInfo.GetEnabled())
	l.printf("\n")
}

// EndpointHealth writes the outcomes in the order given.
func (p *Printer) EndpointHealth(list []EndpointHealth) error {
	g := grid{head: []string{"Endpoint", "Health", "Took", "Error"}}
	for _, h := range list {
		g.rows = append(g.rows, []string{h.Endpoint, fmt.Sprint(h.Healthy), h.Took, h.Error})
	}
	return p.write(answer{
		simple: func(l *lines) {
			for _, h := range list {
				if h.Error == "" {
					l.printf("%s is healthy: successfully committed proposal: took = %s\n", h.Endpoint, h.Took)
				} else {
					l.complain("%s is unhealthy: failed to commit proposal: %s\n", h.Endpoint, h.Error)
				}
			}
		},
		fields: func(l *lines) {
			for _, h := range list {
				l.field("Endpoint", "%q", h.Endpoint)
				l.field("Health", "%t", h.Healthy)
				l.field("Took", "%s", h.Took)
				l.field("Error", "%s", h.Error)
				l.printf("\n")
			}
		},
		json:  list,
		table: &g,
	})
}

// EndpointHashKV writes the hashes in the order given.
func (p *Printer) EndpointHashKV(list []EndpointHashKV) error {
	g := grid{head: []string{"Endpoint", "Hash", "Hash Revision"}}
	for _, h := range list {
		g.rows = append(g.rows, []string{h.Endpoint, fmt.Sprint(h.HashKV.Hash), fmt.Sprint(h.HashKV.HashRevision)})
	}
	return p.write(answer{
		simple: func(l *lines) { l.columns(g.rows) },
		fields: func(l *lines) {
			for _, h := range list {
				l.header(h.HashKV.Header)
				l.field("Endpoint", "%q", h.Endpoint)
				l.field("Hash", "%d", h.HashKV.Hash)
				l.field("HashRevision", "%d", h.HashKV.HashRevision)
				l.printf("\n")
			}
		},
		json:  list,
		table: &g,
	})
}

// size is a number of bytes for people, in powers of 1000.
func size(bytes int64) string { return humanize.Bytes(uint64(max(bytes, 0))) }

// notInUse is the share of the store that compaction has freed.
func notInUse(total, used int64) string {
	if total <= 0 {
		return "0%"
	}
	return fmt.Sprintf("%d%%", 100-used*100/total)
}
