package embed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// Members that hold different data under the same revision: looked for by comparing
// sums of all versions (HashKV), and told by the alarm CORRUPT, after which nobody
// changes a key until a person has looked (spec/server-ops.md 5).

const (
	// summing bounds one sum of a whole store.
	summing = 10 * time.Minute
	// meeting is how long one waits for another to come as far as itself, and how long
	// a member that starts waits for its peers to be there.
	meeting = 5 * time.Second
	// catchUp is how often one that is asked looks whether it has applied so far.
	catchUp = 5 * time.Millisecond
)

// errBehind: the member has not applied as much as it is asked about.
var errBehind = errors.New("the member has not come so far yet")

// sumHere sums this member's versions up to a revision, once it has applied that.
func (s *Server) sumHere(ctx context.Context, rev id.Revision) (server.Sum, error) {
	look := time.NewTicker(catchUp)
	defer look.Stop()
	for begun := time.Now(); s.member.Revision() < rev; {
		select {
		case <-look.C:
			if time.Since(begun) > meeting {
				return server.Sum{}, errBehind
			}
		case <-ctx.Done():
			return server.Sum{}, ctx.Err()
		}
	}
	hash, err := s.member.HashKV(rev, ctx.Err)
	return server.Sum{Member: s.home.Member, KVHash: hash}, err
}

// sumBytes is the size of an answer: sum, revision, compact revision.
const sumBytes = 4 + 8 + 8

// answerSum answers another member that asks for the sum at a revision.
func (s *Server) answerSum(ctx context.Context, body []byte) ([]byte, error) {
	if len(body) != 8 {
		return nil, errors.New("malformed question for a sum")
	}
	own, err := s.sumHere(ctx, id.Revision(binary.LittleEndian.Uint64(body)))
	if err != nil {
		return nil, err
	}
	answer := binary.LittleEndian.AppendUint32(nil, own.Sum)
	answer = binary.LittleEndian.AppendUint64(answer, uint64(own.At))
	return binary.LittleEndian.AppendUint64(answer, uint64(own.Compacted)), nil
}

// sumThere asks another member.
func (s *Server) sumThere(ctx context.Context, m id.Member, rev id.Revision) (server.Sum, error) {
	answer, err := s.peers.Ask(ctx, m, uint8(server.AskSum), binary.LittleEndian.AppendUint64(nil, uint64(rev)))
	if err != nil {
		return server.Sum{}, err
	}
	if len(answer) != sumBytes {
		return server.Sum{}, errors.New("malformed sum")
	}
	return server.Sum{Member: m, KVHash: mvcc.KVHash{Sum: binary.LittleEndian.Uint32(answer), At: id.Revision(binary.LittleEndian.Uint64(answer[4:])),
		Compacted: id.Revision(binary.LittleEndian.Uint64(answer[12:]))}}, nil
}

// compareNow compares all members at a revision, and raises the alarm on those that
// differ.
func (s *Server) compareNow(ctx context.Context, rev id.Revision) error {
	ctx, cancel := context.WithTimeout(ctx, summing)
	defer cancel()
	accused, compared, err := s.member.Compare(rev, server.Sums{
		Here:  func(rev id.Revision) (server.Sum, error) { return s.sumHere(ctx, rev) },
		There: func(m id.Member, rev id.Revision) (server.Sum, error) { return s.sumThere(ctx, m, rev) },
		Silent: func(m id.Member, err error) {
			s.log.Warn("cannot compare data with a member", "peer-id", m.String(), "revision", int64(rev), "error", err.Error())
		},
	})
	if err != nil {
		return err
	}
	for _, m := range accused {
		s.log.Error("members hold different data: the alarm CORRUPT is raised", "member-id", m.String(), "revision", int64(rev))
		result := make(waiter, 1)
		s.member.ReportCorrupt(host.Call{To: result, Deadline: s.member.Deadline()}, m)
		select {
		case r := <-result:
			if r.Err != nil {
				return r.Err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.log.Debug("compared data with the other members", "revision", int64(rev), "members", compared)
	return nil
}

// lookForCorruption has the leader compare all data every --corrupt-check-time, and
// what compactions have left every --compact-hash-check-time with the gate
// CompactHashCheck, until ctx ends.
func (s *Server) lookForCorruption(ctx context.Context) {
	if every := s.cfg.CorruptCheckTime; every > 0 {
		s.duties.Go(func() { s.compareEvery(ctx, every, func() id.Revision { return s.member.Revision() }) })
	}
	if s.cfg.Gates.CompactHashCheck {
		var last id.Revision
		s.duties.Go(func() {
			s.compareEvery(ctx, s.cfg.CompactHashCheckTime, func() id.Revision {
				compacted, _ := s.member.Removal()
				if compacted <= last {
					return 0
				}
				last = compacted
				return compacted
			})
		})
	}
}

// compareEvery compares at the revision that at says, where this member leads; 0 is not
// now.
func (s *Server) compareEvery(ctx context.Context, every time.Duration, at func() id.Revision) {
	due := time.NewTicker(every)
	defer due.Stop()
	for {
		select {
		case <-due.C:
		case <-ctx.Done():
			return
		}
		if s.group.Leader() != s.home.Member || len(s.member.Members()) < 2 {
			continue
		}
		rev := at()
		if rev <= 0 {
			continue
		}
		if err := s.compareNow(ctx, rev); err != nil && ctx.Err() == nil {
			s.log.Warn("the members' data could not be compared", "revision", int64(rev), "error", err.Error())
		}
	}
}

// errInconsistent ends the start of a member whose data is not that of its peers.
var errInconsistent = errors.New("found data inconsistency with peers")

// checkFirst compares this member's data with that of its peers before it serves, with
// the gate InitialCorruptCheck. Those that do not answer in time are not waited for.
func (s *Server) checkFirst() error {
	if !s.cfg.Gates.InitialCorruptCheck || s.home.Fresh {
		return nil
	}
	rev := s.member.Revision()
	ctx, cancel := context.WithTimeout(context.Background(), summing)
	defer cancel()
	own, err := s.sumHere(ctx, rev)
	if errors.Is(err, command.ErrCompacted) {
		return nil
	}
	if err != nil {
		return err
	}
	asked := map[id.Member]bool{s.home.Member: true}
	for begun := time.Now(); ; time.Sleep(catchUp) {
		missing := 0
		for _, m := range s.member.Members() {
			if asked[m.ID] {
				continue
			}
			other, err := s.sumThere(ctx, m.ID, rev)
			if err != nil {
				missing++
				continue
			}
			asked[m.ID] = true
			if same, comparable := own.SameAs(other); comparable && !same {
				return fmt.Errorf("%s %w (member %s at revision %d)", s.home.Member, errInconsistent, m.ID, rev)
			}
		}
		if missing == 0 || time.Since(begun) > meeting {
			s.log.Info("compared data with peers before serving", "revision", int64(rev), "peers", len(asked)-1, "missing", missing)
			return nil
		}
	}
}
