package print

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
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
		a.json = hexMembers(r.Header, r.Members)
	}
	return p.write(a)
}

// MemberAdd writes that a member was added; simple output also has the settings
// with which it is to be started under that name.
func (p *Printer) MemberAdd(name string, r *clientv3.MemberAddResponse) error {
	return p.write(p.change(r.Header, r.Member.ID, r.Members, r, (*pb.MemberAddResponse)(r), func(l *lines) {
		as := ""
		if r.Member.IsLearner {
			as = "as learner "
		}
		l.printf("Member %16x added %sto cluster %16x\n\n", r.Member.ID, as, r.Header.GetClusterId())
		var all []string
		for _, m := range slices.SortedFunc(slices.Values(r.Members), func(a, b *pb.Member) int { return cmp.Compare(a.ID, b.ID) }) {
			known := m.Name
			if m.ID == r.Member.ID {
				known = name
			}
			for _, u := range m.PeerURLs {
				all = append(all, known+"="+u)
			}
		}
		l.printf("ETCD_NAME=%q\n", name)
		l.printf("ETCD_INITIAL_CLUSTER=%q\n", strings.Join(all, ","))
		l.printf("ETCD_INITIAL_ADVERTISE_PEER_URLS=%q\n", strings.Join(r.Member.PeerURLs, ","))
		l.printf("ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n")
	}))
}

// MemberRemove writes that a member was removed.
func (p *Printer) MemberRemove(id uint64, r *clientv3.MemberRemoveResponse) error {
	return p.write(p.change(r.Header, 0, r.Members, r, (*pb.MemberRemoveResponse)(r), func(l *lines) {
		l.printf("Member %16x removed from cluster %16x\n", id, r.Header.GetClusterId())
	}))
}

// MemberUpdate writes that a member has other peer URLs.
func (p *Printer) MemberUpdate(id uint64, r *clientv3.MemberUpdateResponse) error {
	return p.write(p.change(r.Header, 0, r.Members, r, (*pb.MemberUpdateResponse)(r), func(l *lines) {
		l.printf("Member %16x updated in cluster %16x\n", id, r.Header.GetClusterId())
	}))
}

// MemberPromote writes that a learner has a vote.
func (p *Printer) MemberPromote(id uint64, r *clientv3.MemberPromoteResponse) error {
	return p.write(p.change(r.Header, 0, r.Members, r, (*pb.MemberPromoteResponse)(r), func(l *lines) {
		l.printf("Member %16x promoted in cluster %16x\n", id, r.Header.GetClusterId())
	}))
}

// MoveLeader writes who led and who leads.
func (p *Printer) MoveLeader(from, to uint64, r *clientv3.MoveLeaderResponse) error {
	return p.write(answer{
		simple:   func(l *lines) { l.printf("Leadership transferred from %x to %x\n", from, to) },
		json:     r,
		protobuf: (*pb.MoveLeaderResponse)(r),
	})
}

// change is the answer to a change of members; added is the new member's id, or 0.
func (p *Printer) change(h *pb.ResponseHeader, added uint64, members []*pb.Member, json any, protobuf proto.Message, simple func(*lines)) answer {
	a := answer{simple: simple, json: json, protobuf: protobuf}
	if p.hex {
		all := hexMembers(h, members)
		for i := range members {
			if members[i].ID == added {
				all.Member = &all.Members[i]
			}
		}
		a.json = all
	}
	return a
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

// hexHeader, hexMember and hexMemberList are the JSON of answers about members
// whose ids are hexadecimal texts.
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
	Header hexHeader `json:"header"`
	// Member is the one that was added.
	Member  *hexMember  `json:"member,omitempty"`
	Members []hexMember `json:"members"`
}

func hexMembers(h *pb.ResponseHeader, members []*pb.Member) hexMemberList {
	list := hexMemberList{Header: hexHeader{
		ClusterID: fmt.Sprintf("%x", h.GetClusterId()),
		MemberID:  fmt.Sprintf("%x", h.GetMemberId()),
		Revision:  h.GetRevision(),
		RaftTerm:  h.GetRaftTerm(),
	}}
	for _, m := range members {
		list.Members = append(list.Members, hexMember{
			ID: fmt.Sprintf("%x", m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner,
		})
	}
	return list
}
