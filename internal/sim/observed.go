package sim

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// observed is the state machine that a host is given: the product's, with the
// ledger looking over its shoulder.
type observed struct {
	*state.Machine
	r *replica
}

var _ host.Snapshots = (*observed)(nil)

// Apply implements host.Machine.
func (o *observed) Apply(entries []raft.Entry) ([]command.Outcome, error) {
	outcomes, err := o.Machine.Apply(entries)
	if err != nil {
		return outcomes, err
	}
	r, w := o.r, o.r.w
	rest := outcomes
	for _, e := range entries {
		if e.Index != r.applied+1 {
			w.fail("%v applies %d after %d", r, e.Index, r.applied)
		}
		n := 0
		for n < len(rest) && rest[n].Index == e.Index {
			n++
		}
		w.trace.fold(eventApply, uint64(r.member), uint64(e.Index), uint64(e.Term), digest(e.Data))
		w.trace.tell(w.env.Now(), "%v applies %d of term %d, %d commands", r, e.Index, e.Term, n)
		if err := w.ledger.apply(e, rest[:n]); err != nil {
			w.fail("%v: %v", r, err)
		}
		rest, r.applied = rest[n:], e.Index
		if e.Kind == raft.Change {
			r.follows(e.Index)
		}
	}
	if len(rest) > 0 {
		w.fail("%v: %d outcomes of no entry", r, len(rest))
	}
	w.grown(r)
	last := entries[len(entries)-1]
	w.auditor.applied(r, raft.Position{Index: last.Index, Term: last.Term})
	if r.applied%hashEvery == 0 && r.flipped == nil && !r.altered {
		o.hash()
		w.check(r, r.judgeAlarms(r.applied))
		w.check(r, r.judgeLog(r.applied-min(r.applied, 2*hashEvery), r.applied))
	}
	return outcomes, nil
}

// follows looks whether a configuration that was just applied is the one that the
// member goes by, if it knows of no later one.
func (r *replica) follows(index id.Index) {
	if r.group == nil {
		return // it is replaying
	}
	status, known := r.group.Status(), r.w.ledger.confAt(index)
	if status.ConfIndex == index && !sameConf(known, raft.PlacedConf{Conf: status.Conf, Index: index}) {
		r.w.fail("%v goes by configuration %+v at %d, where %+v was decided", r, status.Conf, index, known.Conf)
	}
}

// hashEvery is at how many indexes one state is hashed: it reads everything.
const hashEvery = 8

func (o *observed) hash() {
	hash, err := o.Machine.Hash()
	if err == nil {
		err = o.r.w.ledger.state(o.r.applied, hash)
	}
	o.r.w.check(o.r, err)
}

// Freeze implements host.Snapshots.
func (o *observed) Freeze() (host.Frozen, error) {
	frozen, err := o.Machine.Freeze()
	if err != nil {
		return nil, err
	}
	o.r.w.trace.tell(o.r.w.env.Now(), "%v freezes its state at %v", o.r, frozen.At())
	return frozen, nil
}

// receiving is a snapshot on its way, with what the ledger asks of it.
type receiving struct {
	host.Receiving
	at   raft.Position
	conf raft.PlacedConf
}

// Receive implements host.Snapshots.
func (o *observed) Receive(at raft.Position, conf raft.PlacedConf) host.Receiving {
	return &receiving{o.Machine.Receive(at, conf), at, conf}
}

// Load implements host.Snapshots.
func (o *observed) Load(from host.Receiving) error {
	in := from.(*receiving)
	o.r.w.faults.loading(o.r)
	if err := o.Machine.Load(in.Receiving); err != nil {
		return err
	}
	r, w, at, conf := o.r, o.r.w, in.at, in.conf
	w.trace.tell(w.env.Now(), "%v loads a snapshot at %v", r, at)
	w.trace.mark(markSnapshot)
	w.faults.loaded(r)
	r.applied, r.forgotten = at.Index, at.Index
	if known := w.ledger.confAt(at.Index); !sameConf(known, conf) {
		w.fail("%v is given configuration %+v of %d with a snapshot at %v, where %+v of %d was decided", r, conf.Conf, conf.Index, at, known.Conf, known.Index)
	}
	w.check(r, r.judgeStart())
	w.grown(r)
	o.hash()
	return nil
}

// damageOf is the file and offset that an error names.
func damageOf(err error) (file string, offset int64) {
	var log *raftlog.DamageError
	var store *engine.CorruptionError
	switch {
	case errors.As(err, &log):
		return log.File, log.Offset
	case errors.As(err, &store):
		return store.File, store.Offset
	}
	return "", 0
}

func clean(file string) string { return strings.TrimPrefix(path.Clean(file), "/") }

func messageText(m raft.Message) string {
	name := strings.TrimPrefix(fmt.Sprintf("%T", m.Body), "*raft.")
	switch b := m.Body.(type) {
	case *raft.Append:
		last := b.Previous.Index + id.Index(len(b.Entries))
		return fmt.Sprintf("term %d %s after %v to %d, commit %d, round %d", m.Term, name, b.Previous, last, b.Commit, b.Round)
	default:
		return fmt.Sprintf("term %d %s %+v", m.Term, name, b)
	}
}

func eventText(e raft.Event) string {
	names := map[raft.EventKind]string{
		raft.BecameFollower: "follows", raft.BecamePreCandidate: "asks for pre-votes", raft.BecameCandidate: "stands",
		raft.BecameLeader: "leads", raft.LeaderKnown: "knows a leader", raft.LostQuorum: "lost its quorum",
		raft.Truncated: "truncates its log", raft.ConfChanged: "has a configuration",
		raft.Healed: "is healed", raft.Removed: "was removed",
	}
	return fmt.Sprintf("%s: term %d, member %v, index %d", names[e.Kind], e.Term, e.Member, e.Index)
}
