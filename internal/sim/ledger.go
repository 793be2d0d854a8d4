package sim

import (
	"errors"
	"fmt"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
	"github.com/kvorum/kvorum/internal/testkit/rights"
)

// ledger is what the group has decided, learnt from what its replicas apply: the
// first to apply an index writes it down, everyone else, and everyone again after
// a restart, must apply the same there with the same outcome. Beside it stands
// the oracle, which obeys each command once.
type ledger struct {
	entries []decided // by index, from 1
	oracle  *model.Store
	// commands are all commands in their order; byName finds those of clients.
	commands []placed
	byName   map[string]int
	origins  map[command.Origin]int
	// duties are the terms in which leaders made duties, by the names of the calls.
	duties map[string]id.Term
	// hashes are those of the states after an index.
	hashes map[id.Index]uint64

	confLedger
	// events are what watches are owed, tenures the lives of leases, fence what the
	// holders of the lock wrote.
	events  eventLedger
	tenures tenures
	fence   fence
	// rights are users, roles and who may do what, alarms what is in force.
	rights rightsLedger
	alarms alarmLedger
}

// decided is one index of the log.
type decided struct {
	term     id.Term
	kind     raft.Kind
	digest   uint64
	outcomes uint64
	// revision is the oracle's after the entry, rights and alarms are those after it.
	revision id.Revision
	rights   *rights.Table
	alarms   []command.Alarm
}

// placed is one command with the oracle's answer.
type placed struct {
	index    id.Index
	name     string // the client's, by its idempotency key
	user     string
	rights   *rights.Table // that it was judged by
	request  any
	response any
	err      error
}

func newLedger() *ledger {
	return &ledger{
		oracle: model.New(), byName: map[string]int{}, origins: map[command.Origin]int{}, hashes: map[id.Index]uint64{}, duties: map[string]id.Term{},
		confLedger: newConfLedger(), events: newEventLedger(), tenures: newTenures(),
		rights: newRightsLedger(), alarms: alarmLedger{refused: map[string]string{}},
	}
}

// last is the highest index that anyone has applied.
func (l *ledger) last() id.Index { return id.Index(len(l.entries)) }

// at is what was decided at an index, nil if nothing was.
func (l *ledger) at(index id.Index) *decided {
	if index == 0 || index > l.last() {
		return nil
	}
	return &l.entries[index-1]
}

// revisionAt is the store's revision after an index.
func (l *ledger) revisionAt(index id.Index) id.Revision {
	if d := l.at(index); d != nil {
		return d.revision
	}
	return 1
}

// apply takes note that a replica has applied an entry with these outcomes, one
// for each of its commands.
func (l *ledger) apply(e raft.Entry, outcomes []command.Outcome) error {
	now := decided{term: e.Term, kind: e.Kind, digest: digest(e.Data), outcomes: outcomesDigest(outcomes)}
	if known := l.at(e.Index); known != nil {
		switch {
		case known.term != e.Term || known.kind != e.Kind || known.digest != now.digest:
			return fmt.Errorf("two entries at index %d: of term %d, and now of term %d", e.Index, known.term, e.Term)
		case known.outcomes != now.outcomes:
			return fmt.Errorf("entry %d had other outcomes when it was applied first; now: %s", e.Index, outcomesText(outcomes))
		}
		return nil
	}
	if e.Index != l.last()+1 {
		return fmt.Errorf("entry %d is applied, though %d is the last that anyone applied", e.Index, l.last())
	}
	if previous := l.at(l.last()); previous != nil && previous.term > e.Term {
		return fmt.Errorf("entry %d of term %d follows one of term %d", e.Index, e.Term, previous.term)
	}
	if e.Kind == raft.Batch {
		if err := l.obey(e, outcomes); err != nil {
			return err
		}
	} else if len(outcomes) != 0 {
		return fmt.Errorf("entry %d holds no commands and has %d outcomes", e.Index, len(outcomes))
	}
	if e.Kind == raft.Change {
		if err := l.decide(e); err != nil {
			return err
		}
	}
	now.revision, now.rights, now.alarms = l.oracle.Revision(), l.rights.now, l.alarms.now
	l.entries = append(l.entries, now)
	return nil
}

// obey has the oracle obey the commands of an entry and compares the outcomes.
func (l *ledger) obey(e raft.Entry, outcomes []command.Outcome) error {
	if tells(e.Data) {
		return fmt.Errorf("entry %d has a password in it", e.Index)
	}
	batch := command.ReadBatch(e.Data)
	for i := 0; batch.Next(); i++ {
		cmd, err := command.Decode(batch.Command())
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
		if i >= len(outcomes) {
			return fmt.Errorf("entry %d has more commands than its %d outcomes", e.Index, len(outcomes))
		}
		if err := l.obeyOne(e, cmd, outcomes[i]); err != nil {
			return err
		}
	}
	return batch.Err()
}

func (l *ledger) obeyOne(e raft.Entry, cmd command.Command, outcome command.Outcome) error {
	p := placed{index: e.Index, name: cmd.IdempotencyKey, user: cmd.User, rights: l.rights.now, request: cmd.Body}
	if first, twice := l.origins[cmd.Origin]; twice {
		return fmt.Errorf("proposal %+v is in the log twice, at %d and at %d: %s",
			cmd.Origin, l.commands[first].index, e.Index, model.Text(cmd.Body))
	}
	if first, twice := l.byName[p.name]; twice && p.name != "" {
		return fmt.Errorf("call %s is in the log twice, at %d and at %d: %s",
			p.name, l.commands[first].index, e.Index, model.Text(cmd.Body))
	}
	if cmd.Term != e.Term {
		return fmt.Errorf("entry %d of term %d has a command that was to be appended in term %d only: %s",
			e.Index, e.Term, cmd.Term, model.Text(cmd.Body))
	}
	if made, isDuty := l.duties[p.name]; isDuty && made != e.Term {
		return fmt.Errorf("entry %d of term %d has a duty that was made in term %d: %s", e.Index, e.Term, made, model.Text(cmd.Body))
	}
	if outcome.Origin != cmd.Origin || outcome.Index != e.Index {
		return fmt.Errorf("entry %d: the outcome %+v is not that of %+v", e.Index, outcome, cmd.Header)
	}
	// Alarms are asked first, as etcd does: who may write nothing is told of them too.
	refused := l.oracle.Stopped(cmd.Body)
	if refused == nil {
		refused = l.refuses(&cmd)
	}
	if err := l.alarms.never(&p, refused); err != nil {
		return err
	}
	switch {
	case refused != nil:
		if p.err = refused; !errors.Is(outcome.Err, refused) || outcome.Response != nil {
			return fmt.Errorf("entry %d: %T %s of %q, judged under %d\n\tgave       %s\n\tthe oracle %v: %v",
				e.Index, cmd.Body, model.Text(cmd.Body), cmd.User, cmd.AuthRevision, answerText(outcome.Response, outcome.Err), refused, l.rights.now)
		}
	case isKV(cmd.Body):
		p.response, p.err = l.oracle.Apply(cmd.Body)
		want, got := answerText(p.response, p.err), answerText(outcome.Response, outcome.Err)
		if want != got {
			return fmt.Errorf("entry %d: %s\n\tgave      %s\n\tthe model %s", e.Index, model.Text(cmd.Body), got, want)
		}
	case aboutUsers(cmd.Body):
		if p.response, p.err = outcome.Response, outcome.Err; p.name != "" {
			return fmt.Errorf("entry %d: a client has proposed %T", e.Index, cmd.Body)
		}
		if err := l.administer(e.Index, cmd.Body, outcome); err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
	case aboutAlarms(cmd.Body):
		if p.response, p.err = l.raise(cmd.Body); answerText(p.response, p.err) != answerText(outcome.Response, outcome.Err) {
			return fmt.Errorf("entry %d: %s gave %s, the oracle %s", e.Index, model.Text(cmd.Body),
				answerText(outcome.Response, outcome.Err), answerText(p.response, p.err))
		}
	}
	if err := l.obeyed(e.Term, cmd.Body, p.err); err != nil {
		return fmt.Errorf("entry %d: %s: %w", e.Index, model.Text(cmd.Body), err)
	}
	if refused == nil && !isKV(cmd.Body) && !aboutUsers(cmd.Body) && !aboutAlarms(cmd.Body) {
		if err := l.fact(cmd.Body, outcome.Err); err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
	}
	l.origins[cmd.Origin] = len(l.commands)
	if p.name != "" {
		l.byName[p.name] = len(l.commands)
	}
	l.commands = append(l.commands, p)
	return nil
}

// obeyed takes note of what a command has changed, once the oracle has obeyed it.
func (l *ledger) obeyed(term id.Term, body command.Body, refused error) error {
	list := l.events.take(l.oracle)
	if err := l.fence.judge(list, l.events.live); err != nil {
		return err
	}
	return l.tenures.obey(l.oracle, term, body, refused)
}

// find returns the command of a call and its place, counted from 1; 0 if it is
// not in the log.
func (l *ledger) find(name string) (placed, int64) {
	i, known := l.byName[name]
	if !known {
		return placed{}, 0
	}
	return l.commands[i], int64(i) + 1
}

// state compares the hash of a replica's state with that of the others at the
// same index.
func (l *ledger) state(index id.Index, hash uint64) error {
	known, seen := l.hashes[index]
	if seen && known != hash {
		return fmt.Errorf("two states at applied index %d: %#x and %#x", index, known, hash)
	}
	l.hashes[index] = hash
	return nil
}

// log compares what a replica's log holds with what was decided: entries of one
// index and term are the same, and up to the applied index there are no others.
func (l *ledger) log(entries []raft.Entry, applied id.Index) error {
	for _, e := range entries {
		known := l.at(e.Index)
		switch {
		case known == nil:
		case known.term == e.Term && known.digest != digest(e.Data):
			return fmt.Errorf("log matching: entry %d of term %d is not what was decided", e.Index, e.Term)
		case known.term != e.Term && e.Index <= applied:
			return fmt.Errorf("log matching: entry %d of term %d is in the log, one of term %d was applied", e.Index, e.Term, known.term)
		}
	}
	return nil
}

// holds says whether a log that ends at last can have all that was decided in
// terms before term (leader completeness).
func (l *ledger) holds(last raft.Position, term id.Term) error {
	index := l.last()
	for index > 0 && l.at(index).term >= term {
		index--
	}
	if known := l.at(index); known != nil && (last.Index < index || last.Term < known.term) {
		return fmt.Errorf("leader completeness: a leader of term %d whose log ends at %v, though %d of term %d is decided",
			term, last, index, known.term)
	}
	return nil
}

func answerText(response any, err error) string {
	if err != nil {
		return model.Text(err)
	}
	return model.Text(response)
}

func outcomesDigest(outcomes []command.Outcome) uint64 {
	h := uint64(len(outcomes))
	for _, o := range outcomes {
		h = mix(h + digestString(answerText(o.Response, o.Err)))
	}
	return h
}

func outcomesText(outcomes []command.Outcome) string {
	text := ""
	for _, o := range outcomes {
		text += "\n\t" + answerText(o.Response, o.Err)
	}
	return text
}

// isKV says whether the oracle obeys a command: facts about members are not its, nor
// is what leases have left.
func isKV(body command.Body) bool {
	switch body.Kind() {
	case command.KindPut, command.KindDeleteRange, command.KindTxn, command.KindCompact,
		command.KindLeaseGrant, command.KindLeaseRevoke, command.KindLeaseExpire:
		return true
	}
	return false
}
