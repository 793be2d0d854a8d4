package state

import (
	"errors"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/alarm"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/member"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// View is a read-only look at the state at one position. It never changes and
// may be used from any goroutine at any time.
type View struct {
	kv mvcc.View
	// At is the position up to which the state had applied.
	At      raft.Position
	members member.Table
	alarms  alarm.Table
	auth    *auth.Table
	horizon mvcc.Horizon
	grown   id.Index
	excused map[id.Member]id.Index
	machine *Machine
}

// View is the latest view. It may be called from any goroutine.
func (m *Machine) View() *View { return m.view.Load() }

// publish makes what is committed visible.
func (m *Machine) publish() {
	now := m.store.State()
	if !defect.On(defect.CompactLate) {
		m.shown = now.Compacted
	}
	v := &View{
		kv: m.store.View(m.loads, m.ask), At: m.mark, members: m.members, alarms: m.alarms, auth: m.auth, grown: m.grown, excused: m.excused, machine: m,
		horizon: mvcc.Horizon{Compacted: m.shown, Loads: m.loads},
	}
	v.kv.Compacted = m.shown
	if !defect.On(defect.EventBeforeView) || !m.holdsBack(v) {
		m.view.Store(v)
	}
	m.leases.Publish()
	m.tokens.Publish()
	if told := m.published.Load(); told != nil {
		(*told)()
	}
}

// holdsBack serves the defect EventBeforeView: every other view with new events is
// shown to watches only, until the next turn.
func (m *Machine) holdsBack(v *View) bool {
	now, held := m.view.Load(), m.ahead.Swap(nil)
	if now == nil || held != nil || now.horizon.Loads != m.loads || now.kv.Revision >= v.kv.Revision {
		return false
	}
	m.ahead.Store(v)
	return true
}

// horizon is what is published now. Readers call it from any goroutine.
func (m *Machine) horizon() mvcc.Horizon { return m.view.Load().horizon }

// KV is the latest view of the keys and their events. It may be called from any
// goroutine.
func (m *Machine) KV() *mvcc.View {
	if defect.On(defect.EventBeforeView) {
		if v := m.ahead.Load(); v != nil {
			return &v.kv
		}
	}
	return &m.view.Load().kv
}

// State tells the view's revision, compact revision and byte counts.
func (v *View) State() mvcc.State { return v.kv.State }

// Members lists what members have published, by ID. The slice is shared and
// read-only.
func (v *View) Members() []member.Facts { return v.members.All() }

// Member finds what is known of a member.
func (v *View) Member(m id.Member) (member.Facts, bool) { return v.members.Get(m) }

// Removed says whether there was such a member once.
func (v *View) Removed(m id.Member) bool { return v.members.Removed(m) }

// ClusterVersion is the version that the members have agreed on; zero until then.
func (v *View) ClusterVersion() command.Version { return v.members.Version() }

// VersionDue is what the version of the cluster is to become (member.Table.VersionDue).
func (v *View) VersionDue() (command.Version, bool) { return v.members.VersionDue() }

// JudgeChange says whether a change of the membership is one that the members as
// they are allow (member.Table.Judge).
func (v *View) JudgeChange(c *command.MemberChange, maxLearners int) error {
	return v.members.Judge(c, maxLearners)
}

// Range answers a range (spec 2.1). A request for the newest state that a
// compaction or a snapshot overtakes is answered from a newer view. Errors:
// command.ErrCompacted, command.ErrFutureRevision, mvcc.ErrReplaced,
// engine.ErrIterators, *mvcc.DamageError.
func (v *View) Range(r *command.RangeRequest) (*command.RangeResponse, error) {
	for {
		resp, err := v.kv.Range(r)
		newer := v.machine.View()
		if err == nil || r.Revision > 0 || !v.overtakenBy(newer) {
			return resp, err
		}
		v = newer
	}
}

// AppendRange appends the answer to a range in the form of the wire: what head
// appends for the revision that the header shows, and the pairs
// (mvcc.View.AppendRange). It begins anew on a newer view like Range. What comes
// with an error is dst, perhaps in another place. Errors: as of Range,
// mvcc.ErrLonger.
func (v *View) AppendRange(dst []byte, r *command.RangeRequest, most mvcc.AppendLimits, head func([]byte, id.Revision) []byte) ([]byte, mvcc.Appended, error) {
	start := len(dst)
	for {
		out, got, err := v.kv.AppendRange(head(dst, v.kv.Revision), r, most)
		newer := v.machine.View()
		switch {
		case err == nil:
			return out, got, nil
		case r.Revision > 0 || !v.overtakenBy(newer):
			return out[:start], got, err
		}
		v, dst = newer, out[:start]
	}
}

// Txn answers a txn that only reads (command.TxnRequest.ReadOnly). Errors: as of
// Range.
func (v *View) Txn(r *command.TxnRequest) (*command.TxnResponse, error) {
	for {
		resp, err := v.kv.Txn(r)
		newer := v.machine.View()
		if err == nil || !v.overtakenBy(newer) {
			return resp, err
		}
		v = newer
	}
}

// CountRange counts a range that is answered in pieces (mvcc.View.CountRange).
func (v *View) CountRange() { v.kv.CountRange() }

// Page reads a piece of a range at a revision (mvcc.View.Page). Errors: as of
// Range; on mvcc.ErrReplaced a newer view may still answer.
func (v *View) Page(r *command.RangeRequest, rev id.Revision, most mvcc.PageLimits) (mvcc.Page, error) {
	return v.kv.Page(r, rev, most)
}

// AppendSlice and MeasureSlice go on with an answer that is made in slices at a
// revision (mvcc.View.AppendSlice). Errors: as of Page.
func (v *View) AppendSlice(dst []byte, r *command.RangeRequest, rev id.Revision, at *mvcc.Place, most mvcc.PageLimits) ([]byte, error) {
	return v.kv.AppendSlice(dst, r, rev, at, most)
}

// MeasureSlice is AppendSlice without the bytes.
func (v *View) MeasureSlice(r *command.RangeRequest, rev id.Revision, at *mvcc.Place) error {
	return v.kv.MeasureSlice(r, rev, at)
}

// HashKV is mvcc.View.HashKV, begun anew on a newer view when a compaction or a
// snapshot overtakes it. It reads all keys. Errors: command.ErrFutureRevision,
// command.ErrCompacted, engine.ErrIterators, *mvcc.DamageError, what goOn returns.
func (v *View) HashKV(rev id.Revision, goOn func() error) (mvcc.KVHash, error) {
	for {
		h, err := v.kv.HashKV(rev, goOn)
		newer := v.machine.View()
		moved := v.horizon != newer.horizon
		if !moved || !errors.Is(err, command.ErrCompacted) && !errors.Is(err, mvcc.ErrReplaced) {
			return h, err
		}
		v = newer
	}
}

// overtakenBy says whether nothing can be read from the view any more, but from
// the newer one.
func (v *View) overtakenBy(newer *View) bool {
	return v.kv.Revision < newer.horizon.Compacted || v != newer && v.horizon.Loads != newer.horizon.Loads
}
