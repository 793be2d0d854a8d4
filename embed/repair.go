package embed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/join"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// A member with damaged files repairs itself from the others (rule 5):
//
//	log     what is good of it is used, the rest comes from the leader
//	store   it is set aside, and an empty one takes the leader's state
//
// Until it holds all that it may have promised it neither votes nor stands, which a
// file in its directory remembers over restarts. A member that has no peers refuses
// to start, and names the file.

// hasPeers says whether there are others to be repaired from: what the log says of
// them, or, when damage hides that, what the configuration does.
func hasPeers(log *raftlog.Store, cfg *Config) bool {
	if cfg.ForceNewCluster {
		return false
	}
	for _, g := range log.Groups() {
		if g.Group == id.DefaultGroup && len(g.Start.Conf.Members()) > 0 {
			return len(g.Start.Conf.Members()) > 1
		}
	}
	members, err := cfg.InitialMembers()
	return err == nil && len(members) > 1
}

// openState opens the store, and the state in it. With peers a damaged store is set
// aside for an empty one.
func (s *Server) openState(peered bool) error {
	s.peered = peered
	if s.home.Damage.Store && peered {
		if err := s.setAside(errors.New(s.home.Damage.Reason)); err != nil {
			return err
		}
	}
	err := s.readState()
	if err == nil || !peered || !isDamage(err) {
		return err
	}
	if err := s.setAside(err); err != nil {
		return err
	}
	return s.readState()
}

func (s *Server) readState() (err error) {
	if err := s.openStore(); err != nil {
		return fmt.Errorf("cannot open the store %s: %w", s.home.Store, err)
	}
	if s.state, err = state.Open(id.DefaultGroup, s.db, s.home.Saves); err != nil {
		return fmt.Errorf("cannot read the store %s: %w", s.home.Store, err)
	}
	return nil
}

func (s *Server) setAside(why error) error {
	if s.db != nil {
		_ = s.db.Close() // it is damaged: what it says of that is known
		s.db = nil
	}
	aside, err := s.home.SetStoreAside(why.Error())
	if err != nil {
		return errors.Join(why, fmt.Errorf("cannot set the store aside: %w", err))
	}
	s.log.Warn("the store is damaged and was set aside: this member will be sent the state by the leader",
		"error", why.Error(), "aside", aside)
	return nil
}

func isDamage(err error) bool {
	var table *engine.CorruptionError
	var row *mvcc.DamageError
	return errors.As(err, &table) || errors.As(err, &row)
}

// lostConf stands in for the configuration of a log that does not know it any more:
// the members that the state knows, or else those that a running member tells.
func (s *Server) lostConf(log *raftlog.Store) (conf raft.Conf) {
	for _, g := range log.Groups() {
		if g.Group == id.DefaultGroup {
			return conf // the log's own counts
		}
	}
	add := func(m id.Member, learner bool) {
		if learner {
			conf.Learners = append(conf.Learners, m)
		} else {
			conf.Voters = append(conf.Voters, m)
		}
	}
	for _, m := range s.state.View().Members() {
		add(m.ID, m.Learner)
	}
	if members, err := s.cfg.InitialMembers(); err == nil && len(conf.Voters) == 0 && s.peered {
		ctx, cancel := context.WithTimeout(context.Background(), askPeers)
		defer cancel()
		if remote, err := join.Fetch(ctx, s.web(), s.others(members)); err == nil {
			for _, m := range remote.Members {
				add(id.Member(m.ID), m.IsLearner)
			}
		}
	}
	slices.Sort(conf.Voters)
	slices.Sort(conf.Learners)
	return conf
}

// foundDamage notes that this member starts damaged.
func (s *Server) foundDamage(_ id.Group, why error) error {
	if s.home.Damage.Reason == "" {
		return s.home.Remember(join.Damage{Reason: why.Error()})
	}
	return nil
}

// storeDamaged ends a member whose store is found damaged while it runs. With peers
// its next start sets the store aside.
func (s *Server) storeDamaged(damage *engine.CorruptionError) {
	if !s.serving.Load() {
		return // who opens it is told
	}
	if !s.peered {
		s.log.Error("the store is damaged", "error", damage.Error())
		return // what can be read is served
	}
	err := s.home.Remember(join.Damage{Reason: damage.Error(), Store: true})
	s.fail(errors.Join(fmt.Errorf("the store is damaged; the next start replaces it by the leader's state: %w", damage), err))
}

// healPauses is how many election time-outs a damaged member waits for the later
// term that it has asked for.
const healPauses = 5

// heal asks the leader for a later term, until this member is whole or ctx ends.
func (s *Server) heal(ctx context.Context) {
	s.log.Warn("this member is damaged: it neither votes nor stands until it is repaired from the others", "reason", s.home.Damage.Reason)
	look := time.NewTicker(s.cfg.ElectionTimeout / 2)
	defer look.Stop()
	var asked time.Time
	for s.group.Status().Damaged {
		if time.Since(asked) > healPauses*s.cfg.ElectionTimeout && s.group.Leader() != 0 {
			asked = time.Now()
			s.member.Heal(func(err error) {
				if err != nil {
					s.log.Warn("this damaged member needs another leader for a moment, and cannot get one", "error", err.Error())
				}
			})
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// repaired tells that this member is whole again.
func (s *Server) repaired(e raft.Event) {
	attrs := []any{"term", uint64(e.Term), "index", uint64(e.Index)}
	if err := s.home.Repaired(); err != nil {
		s.log.Warn("this member is repaired, but its next start does not know that", append(attrs, "error", err.Error())...)
		return
	}
	s.log.Info("this member is repaired: it votes again", attrs...)
}
