package v3

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/join/static"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
)

// cluster is the Cluster service (spec 5).
type cluster struct {
	// Without Unimplemented the compiler asks for every method.
	pb.UnsafeClusterServer
	member *server.Member
}

func (c *cluster) MemberList(ctx context.Context, req *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if req.GetLinearizable() {
		if _, err := await(ctx, c.member, c.member.Barrier); err != nil {
			return nil, toWire(err)
		}
	}
	as, err := session(ctx, c.member)
	if err == nil {
		err = as.AnyUser()
	}
	if err != nil {
		return nil, toWire(err)
	}
	return &pb.MemberListResponse{Header: header(c.member, 0), Members: c.members()}, nil
}

func (c *cluster) members() []*pb.Member {
	var list []*pb.Member
	for _, m := range c.member.Members() {
		list = append(list, &pb.Member{
			ID: uint64(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.Learner,
		})
	}
	return list
}

func (c *cluster) MemberAdd(ctx context.Context, req *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	urls, err := config.ParseURLs(strings.Join(req.GetPeerURLs(), ","))
	if err != nil {
		return nil, toWire(command.ErrBadMemberURLs)
	}
	change := command.MemberChange{Change: command.AddMember, PeerURLs: urls.Strings()}
	if req.GetIsLearner() {
		change.Change = command.AddLearner
	}
	// The ID of a member that is added at run time has the second in it (spec 5).
	change.Member = static.MemberID(change.PeerURLs, strconv.FormatInt(time.Now().Unix(), 10))
	if err := c.change(ctx, &change); err != nil {
		return nil, toWire(err)
	}
	added := &pb.Member{ID: uint64(change.Member), PeerURLs: change.PeerURLs, IsLearner: req.GetIsLearner()}
	return &pb.MemberAddResponse{Header: header(c.member, 0), Member: added, Members: c.members()}, nil
}

func (c *cluster) MemberRemove(ctx context.Context, req *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	change := command.MemberChange{Change: command.RemoveMember, Member: id.Member(req.GetID())}
	if err := c.change(ctx, &change); err != nil {
		return nil, toWire(err)
	}
	// A member that removes itself may not hear how its own list becomes shorter.
	left := slices.DeleteFunc(c.members(), func(m *pb.Member) bool { return m.ID == req.GetID() })
	return &pb.MemberRemoveResponse{Header: header(c.member, 0), Members: left}, nil
}

func (c *cluster) MemberPromote(ctx context.Context, req *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	change := command.MemberChange{Change: command.PromoteMember, Member: id.Member(req.GetID())}
	if err := c.promote(ctx, &change); err != nil {
		return nil, toWire(err)
	}
	return &pb.MemberPromoteResponse{Header: header(c.member, 0), Members: c.members()}, nil
}

func (c *cluster) MemberUpdate(ctx context.Context, req *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	urls, err := config.ParseURLs(strings.Join(req.GetPeerURLs(), ","))
	if err != nil {
		return nil, toWire(command.ErrBadMemberURLs)
	}
	update := command.MemberUpdate{Member: id.Member(req.GetID()), PeerURLs: urls.Strings()}
	as, err := session(ctx, c.member)
	if err != nil {
		return nil, toWire(err)
	}
	if _, err := awaitUntil(ctx, 0, func(call host.Call) { as.Update(call, &update) }); err != nil {
		return nil, toWire(err)
	}
	return &pb.MemberUpdateResponse{Header: header(c.member, 0), Members: c.members()}, nil
}

// promote is change, but does not wait for a leader for longer than any other call
// (spec 1.5).
func (c *cluster) promote(ctx context.Context, change *command.MemberChange) error {
	bounded, cancel := context.WithTimeout(ctx, c.member.Timeout())
	defer cancel()
	err := c.change(bounded, change)
	switch {
	case !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
		return err
	case c.member.HasLeader():
		return host.ErrTimeout
	}
	return errNoLeaderCame
}

// errNoLeaderCame ends a call that says so, other than host.ErrNoLeader.
var errNoLeaderCame = errors.New("v3: no leader came")

// changeRetry is the pause before a change is tried again that found another one
// under way, or no leader.
const changeRetry = 20 * time.Millisecond

// change makes a change of the membership and waits until it is applied here. One
// that certainly has not happened is tried again for as long as the caller waits;
// of one whose leader was lost nobody can say. Without a quorum it lasts until the
// caller's deadline (spec 1.5).
func (c *cluster) change(ctx context.Context, change *command.MemberChange) error {
	as, err := session(ctx, c.member)
	if err != nil {
		return err
	}
	for {
		_, err := awaitUntil(ctx, 0, func(call host.Call) { as.Change(call, change) })
		switch {
		case err == nil && change.Change == command.RemoveMember && change.Member == c.member.Header().Member:
			return nil // nobody confirms a read of one that is a member no more
		case err == nil:
			_, err = await(ctx, c.member, c.member.Barrier)
			return err
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrChangePending), errors.Is(err, raft.ErrTransferring),
			errors.Is(err, host.ErrNoLeader):
		default:
			return err
		}
		select {
		case <-time.After(changeRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
