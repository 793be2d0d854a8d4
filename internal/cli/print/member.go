package print

import (
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// MemberList writes the members of the cluster.
func (p *Printer) MemberList(r *clientv3.MemberListResponse) error {
	g := grid{head: []string{"ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"}}
	for _, m := range r.Members {
		status := "started"
		if m.Name == "" {
			status = "unstarted"
		}
		g.rows = append(g.rows, []string{
			fmt.Sprintf("%x", m.ID), status, m.Name,
			strings.Join(m.PeerURLs, ","), strings.Join(m.ClientURLs, ","), fmt.Sprint(m.IsLearner),
		})
	}
	a := answer{
		simple: func(l *lines) { l.columns(g.rows) },
		fields: func(l *lines) {
			l.header(r.Header)
			for _, m := range r.Members {
				l.member(m)
			}
		},
		json:     r,
		protobuf: (*pb.MemberListResponse)(r),
		table:    &g,
	}
	if p.hex {
		a.json = hexMembers(r)
	}
	return p.write(a)
}

// columns writes rows as people read them: separated by comma and blank.
func (l *lines) columns(rows [][]string) {
	for _, row := range rows {
		l.printf("%s\n", strings.Join(row, ", "))
	}
}

func (l *lines) member(m *pb.Member) {
	l.id("ID", m.ID)
	l.field("Name", "%q", m.Name)
	for _, u := range m.PeerURLs {
		l.field("PeerURL", "%q", u)
	}
	for _, u := range m.ClientURLs {
		l.field("ClientURL", "%q", u)
	}
	l.field("IsLearner", "%t", m.IsLearner)
	l.printf("\n")
}

// hexHeader and hexMember are the JSON of a member list whose ids are
// hexadecimal texts.
type hexHeader struct {
	ClusterID string `json:"cluster_id"`
	MemberID  string `json:"member_id"`
	Revision  int64  `json:"revision,omitempty"`
	RaftTerm  uint64 `json:"raft_term,omitempty"`
}

type hexMember struct {
	ID         string   `json:"ID"`
	Name       string   `json:"name,omitempty"`
	PeerURLs   []string `json:"peerURLs,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
	IsLearner  bool     `json:"isLearner,omitempty"`
}

type hexMemberList struct {
	Header  hexHeader   `json:"header"`
	Members []hexMember `json:"members"`
}

func hexMembers(r *clientv3.MemberListResponse) hexMemberList {
	list := hexMemberList{Header: hexHeader{
		ClusterID: fmt.Sprintf("%x", r.Header.GetClusterId()),
		MemberID:  fmt.Sprintf("%x", r.Header.GetMemberId()),
		Revision:  r.Header.GetRevision(),
		RaftTerm:  r.Header.GetRaftTerm(),
	}}
	for _, m := range r.Members {
		list.Members = append(list.Members, hexMember{
			ID: fmt.Sprintf("%x", m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner,
		})
	}
	return list
}
