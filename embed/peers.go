package embed

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/peer"
	"github.com/kvorum/kvorum/internal/server"
	facts "github.com/kvorum/kvorum/internal/state/member"
)

// errRemoved ends a member that the others have removed; the text is etcd's.
var errRemoved = errors.New("the member has been permanently removed from the cluster")

// startPeers makes the connections to the other members.
func (s *Server) startPeers() {
	s.peers = peer.New(peer.Options{
		Member: s.home.Member, Cluster: s.home.Cluster, Version: s.version, Log: s.log, Clock: s.world.Clock,
		ClientTLS: s.peerTLS, From: s.peersFrom(),
		Receive:   s.receive,
		Answer:    s.answer,
		Lost:      func(m id.Member) { s.host.Unreachable(m) },
		IsRemoved: func(m id.Member) bool { return s.state.View().Removed(m) },
		Removed:   func(id.Member) { s.removed() },
		Limits:    s.peerLimits(),
	})
}

// peerLimits has a connection that is dead given up after an election time-out, or
// later where the flags say so. Signs of life and greetings go by the election
// time-out in any case.
func (s *Server) peerLimits() peer.Limits {
	own := s.cfg.ElectionTimeout
	given := func(timeout time.Duration) time.Duration {
		if timeout <= config.LeastRaftTimeout {
			return own
		}
		return max(own, timeout)
	}
	return peer.Limits{
		Silence: given(s.cfg.RaftReadTimeout), Stall: given(s.cfg.RaftWriteTimeout),
		Ping: own / 4, Handshake: max(own, time.Second),
	}
}

// firstAddresses are those of the members that the configuration names.
func (s *Server) firstAddresses() (list []peer.Address) {
	if s.founding == nil {
		return nil
	}
	for _, m := range s.founding.members {
		list = append(list, peer.Address{ID: m.Member, URLs: m.PeerURLs})
	}
	return list
}

// receive hands the host what another member sends.
func (s *Server) receive(from id.Member, _ peer.Lane, data []byte) {
	e, err := host.DecodeEnvelope(data)
	if err != nil || e.From != from || e.To != s.home.Member {
		s.log.Warn("dropped a message of a peer", "from", from.String(), "error", errText(err))
		return
	}
	s.host.Deliver([]host.Envelope{e})
}

func errText(err error) string {
	if err == nil {
		return "it is of or for somebody else"
	}
	return err.Error()
}

// answer answers a question of another member.
func (s *Server) answer(ctx context.Context, _ id.Member, kind uint8, body []byte) ([]byte, error) {
	if server.AskKind(kind) == server.AskSum {
		return s.answerSum(ctx, body)
	}
	type result struct {
		answer []byte
		err    error
	}
	done := make(chan result, 1)
	s.member.Answer(server.AskKind(kind), body, func(answer []byte, err error) { done <- result{answer, err} })
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// transport is the host's way to the peers.
type transport struct{ s *Server }

// Send implements host.Transport.
func (t transport) Send(envelopes []host.Envelope) {
	for i := range envelopes {
		e := &envelopes[i]
		t.s.peers.Send(e.To, peer.Lane(e.Lane()), e)
	}
}

// connections are what the services know of the peers.
type connections struct{ s *Server }

// ConnectedSince implements server.Peers.
func (c connections) ConnectedSince(m id.Member) (env.Instant, bool) {
	return c.s.peers.ConnectedSince(m)
}

// Ask implements server.Peers. A question has a goroutine while it is open: they
// are few.
func (c connections) Ask(m id.Member, kind server.AskKind, body []byte, deadline env.Instant, done func([]byte, error)) {
	within := c.s.member.Timeout()
	if deadline != 0 {
		within = deadline.Sub(c.s.world.Clock.Now())
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		answer, err := c.s.peers.Ask(ctx, m, uint8(kind), body)
		switch {
		case errors.Is(err, peer.ErrNotConnected):
			err = host.ErrNoLeader // nothing was asked: it may be tried again
		case errors.Is(err, context.DeadlineExceeded):
			err = host.ErrTimeout
		}
		done(answer, err)
	}()
}

// lookAtMembers is how often the list of members is compared with the one that
// the connections go by.
const lookAtMembers = 50 * time.Millisecond

// followMembers keeps the connections to those that are members, from the first
// ones on, and the version of the cluster at what they can, until ctx ends.
func (s *Server) followMembers(ctx context.Context, first []peer.Address) {
	if len(first) > 0 {
		s.peers.SetMembers(first)
	}
	known, told := s.follow(nil), s.agreed()
	look := time.NewTicker(lookAtMembers)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			known = s.follow(known)
			s.member.Upgrade()
			told = s.tellAgreed(told)
			s.member.Raise()
		case <-ctx.Done():
			return
		}
	}
}

// follow tells the transport of the members that are not those known. Before the
// first ones are in the state they are those of the configuration.
func (s *Server) follow(known []facts.Facts) []facts.Facts {
	now := s.member.Members()
	if len(now) == 0 || len(known) == len(now) && &known[0] == &now[0] {
		return known
	}
	var list []peer.Address
	for i := range now {
		list = append(list, peer.Address{ID: now[i].ID, URLs: now[i].PeerURLs})
	}
	if slices.ContainsFunc(now, func(f facts.Facts) bool { return f.ID == s.home.Member }) {
		s.peers.SetMembers(list)
	}
	return now
}
