package host

import (
	"errors"
	"sync"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
)

// A follower that the log can no longer serve is sent the whole state (rule 21):
//
//	leader    stepper asks, applier flushes and freezes, tasks read chunk after chunk,
//	          stepper sends them, at a pace, as far as the window allows
//	follower  tasks write the chunks into tables beside the state, stepper sends
//	          receipts, tells raft when all are there; applier loads the state, then
//	          the persister resets the log, then raft hears of it
//
// Every transfer has a number of its own within the leader's term, and the chunks
// are numbered from 0. What is not receipted is sent again, so that a lost chunk or
// a lost connection costs a pause; a leader or follower that starts anew costs the
// transfer. The leader's log is kept from the state's index on until the follower
// has caught up. Neither side holds more than a window of chunks in memory.
const (
	// windowChunks may be on their way, or in memory on either side: 2 MB.
	windowChunks = 8
	// chunkPause paces all transfers of a member together to 20 MB a second, as
	// flushes and compactions are that nobody waits for: a chunk takes a processor,
	// the disk and the network on two members for some milliseconds, and puts shall
	// not wait behind it. While entries come, and until busyFor after the last, it is
	// busyPause: 5 MB a second.
	//
	// Meanwhile the log is kept that the receiver will need. With each quarter of the
	// retention that this takes the pause is half as long; a transfer for which more
	// has to be kept than the retention allows does not pause; see also bulkPause.
	chunkPause = 12 * time.Millisecond
	busyPause  = 4 * chunkPause
	busyFor    = time.Second
	mostHurry  = 4
	// readShare makes a transfer pause for so many times as long as it took to read a
	// chunk: it takes at most a fifth of a disk that is slow or busy.
	readShare = 4
	// transferPatience is how long a transfer may stand still: a follower may start
	// anew meanwhile, or the network heal.
	transferPatience = time.Minute
	// againPause is how long a follower that could not be sent a state waits for
	// another: its disk may be full, and a saved state costs this one a flush.
	againPause = 5 * time.Second
)

// loan is something open that stepper or host may give up while a task or the
// applier has it; whoever has it last closes it.
type loan struct {
	close func() error

	mu           sync.Mutex
	lent, closed bool
}

// take lends it out; false if it was given up. It has one borrower at a time.
func (l *loan) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lent = !l.closed
	return l.lent
}

// back ends a take.
func (l *loan) back() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lent = false
	if l.closed {
		return l.close()
	}
	return nil
}

// end gives it up.
func (l *loan) end() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.lent {
		return nil
	}
	return l.close()
}

// giveUp ends a loan, by a task: closing may wait for the disk.
func (s *stepper) giveUp(g *Group, l *loan) {
	if l == nil {
		return
	}
	h := s.h
	h.opts.Tasks.Go("close a snapshot", func() (done bool) {
		h.trouble(g, l.end())
		return true
	})
}

// trouble tells of what went wrong and ends nothing.
func (h *Host) trouble(g *Group, err error) {
	if told := h.opts.Trouble; told != nil && err != nil {
		told(g.id, err)
	}
}

func (h *Host) news(g *Group, n SnapshotNews) {
	if told := h.opts.Snapshots; told != nil {
		told(g.id, n)
	}
}

// transfers are the states that a group's stepper sends and receives.
type transfers struct {
	outgoing []*outgoing
	incoming *incoming
	// received are complete, and offered to raft under their handles, in this turn.
	received []*incoming
	// numbered counts what was sent, handles what was received.
	numbered id.Seq
	handles  uint64
	// again says before when a follower is not to be sent another state.
	again []againAt
}

type againAt struct {
	member id.Member
	at     env.Instant
}

// turnTransfers sends what is due and drops what nobody waits for any more.
func (s *stepper) turnTransfers(g *Group) (wake env.Instant) {
	t := &g.step.transfers
	keep := t.outgoing[:0]
	for _, o := range t.outgoing {
		if s.drive(g, o) {
			keep = append(keep, o)
		} else {
			if o.ready && !o.arrived {
				s.h.news(g, o.news(SnapshotGivenUp, g.now))
			}
			s.giveUp(g, o.loan)
		}
	}
	clear(t.outgoing[len(keep):])
	t.outgoing = keep
	s.hold(g)
	s.dropStale(g)
	wake = env.Never
	for _, o := range t.outgoing {
		wake = min(wake, o.wake(s.paced))
	}
	if t.incoming != nil {
		wake = min(wake, t.incoming.moved.Add(transferPatience))
	}
	return wake
}

// closeTransfers gives up all transfers; no stage runs any more. What a task has
// is closed when the task ends.
func (g *Group) closeTransfers() (err error) {
	t := &g.step.transfers
	for _, o := range t.outgoing {
		if o.loan != nil {
			err = errors.Join(err, o.loan.end())
		}
	}
	todo := append(g.apply.todo, g.h.applier.queue.take()...)
	for i := range todo {
		if in := todo[i].install; in != nil {
			err = errors.Join(err, in.loan.end())
		}
	}
	if t.incoming != nil {
		err = errors.Join(err, t.incoming.loan.end())
	}
	*t = transfers{}
	return err
}
