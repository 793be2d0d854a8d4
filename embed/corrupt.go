package embed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
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

// patience lets a moment pass each time it is called, until one has waited long enough.
func patience(ctx context.Context) (rest func() error) {
	begun := time.Now()
	return func() error {
		if time.Since(begun) > meeting {
			return errBehind
		}
		select {
		case <-time.After(catchUp):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// answerSum answers another member that asks for the sum at a revision.
func (s *Server) answerSum(ctx context.Context, question []byte) ([]byte, error) {
	return s.member.AnswerSum(question, patience(ctx), ctx.Err)
}

// askSum asks another member for a sum.
func (s *Server) askSum(ctx context.Context, m id.Member, question []byte) ([]byte, error) {
	return s.peers.Ask(ctx, m, uint8(server.AskSum), question)
}

// compareNow compares all members at a revision, and raises the alarm on those that
// differ; all says that everyone was compared.
func (s *Server) compareNow(ctx context.Context, rev id.Revision) (all bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, summing)
	defer cancel()
	all, err = s.member.Scrub(rev, server.Comparing{
		GoOn: ctx.Err,
		Ask:  func(m id.Member, question []byte) ([]byte, error) { return s.askSum(ctx, m, question) },
		Silent: func(m id.Member, err error) {
			s.log.Warn("cannot compare data with a member", "peer-id", m.String(), "revision", int64(rev), "error", err.Error())
		},
		Found: func(accused []id.Member) {
			for _, m := range accused {
				s.log.Error("members hold different data: the alarm CORRUPT is raised", "member-id", m.String(), "revision", int64(rev))
			}
		},
		Await: func(start func(host.Call)) error {
			result := make(waiter, 1)
			start(host.Call{To: result, Deadline: s.member.Deadline()})
			select {
			case r := <-result:
				return r.Err
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	})
	if err == nil {
		s.log.Debug("compared data with the other members", "revision", int64(rev), "all", all)
	}
	return all, err
}

// lookForCorruption has the leader compare all data every --corrupt-check-time, and
// what compactions have left every --compact-hash-check-time with the gate
// CompactHashCheck, until ctx ends. What a compaction has left is compared again until
// every member was there.
func (s *Server) lookForCorruption(ctx context.Context) {
	if every := s.cfg.CorruptCheckTime; every > 0 {
		s.duties.Go(func() { s.compareEvery(ctx, every, s.member.ScrubAll, func(id.Revision) {}) })
	}
	if s.cfg.Gates.CompactHashCheck {
		var last id.Revision
		s.duties.Go(func() {
			s.compareEvery(ctx, s.cfg.CompactHashCheckTime,
				func() id.Revision { return s.member.ScrubCompacted(last) },
				func(rev id.Revision) { last = rev })
		})
	}
}

// compareEvery compares at the revision that at says, 0 is not now; done is told of one
// at which all were compared.
func (s *Server) compareEvery(ctx context.Context, every time.Duration, at func() id.Revision, done func(id.Revision)) {
	due := time.NewTicker(every)
	defer due.Stop()
	for {
		select {
		case <-due.C:
		case <-ctx.Done():
			return
		}
		rev := at()
		if rev <= 0 {
			continue
		}
		switch all, err := s.compareNow(ctx, rev); {
		case err != nil && ctx.Err() == nil:
			s.log.Warn("the members' data could not be compared", "revision", int64(rev), "error", err.Error())
		case err == nil && all:
			done(rev)
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
	own, err := s.member.SumHere(rev, ctx.Err)
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
			answer, err := s.askSum(ctx, m.ID, server.SumQuestion(rev))
			var other server.Sum
			if err == nil {
				other, err = server.ParseSum(m.ID, answer)
			}
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
