package server

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Space (rule 17, spec 6.4). Two things are bounded: the count of rule 17 by the quota,
// and what is left of the disk by a reserve. What costs space is refused at admission
// beyond either, and this member's alarm raised; then every member refuses. What costs
// none always passes: deletions, compactions, revocations, alarms.
//
// The quota is each member's own. One whose quota is passed by what others admitted
// obeys, and raises its alarm.

// Disk is how full the disks of this member are, in bytes: that with the least left.
type Disk struct{ Free, Total int64 }

// The reserve of a disk: a twentieth of it, within these bounds, but never more than a
// quarter. It is what the log, the store's own work and a restart need to go on when
// nothing grows any more.
const (
	reserveShare = 20
	leastReserve = 128 << 20
	mostReserve  = 1 << 30
)

// Reserve is how much of a disk is kept free, in bytes.
func Reserve(total int64) int64 {
	return min(max(min(total/reserveShare, mostReserve), leastReserve), total/4)
}

const (
	// spaceLook is the time between two looks at the count, and so how late a member
	// may notice that others have filled it; diskLook at the disk.
	spaceLook = 100 * time.Millisecond
	diskLook  = 500 * time.Millisecond
	// warnShare of the quota is when a warning is told, in percent.
	warnShare = 80
)

// SpaceNews says what has changed about space.
type SpaceNews struct {
	// Low: the disk has less left than its reserve, or (Over) has enough again.
	Low, Over bool
	Disk      Disk
	// Near: the count of rule 17 has come near the quota.
	Near         bool
	Bytes, Quota int64
}

// space is what a member knows about it.
type space struct {
	// low says that the disk is below its reserve.
	low atomic.Bool
	// spare is how many bytes there were above the reserve at the latest look.
	spare atomic.Int64
	// The rest is KeepSpace's alone. judged is the latest growth that there was room for
	// or that the alarm was raised for, near whether the warning was told.
	judged  id.Index
	near    bool
	diskDue env.Instant
}

// full says whether there is no room for so many bytes.
func (m *Member) full(view *state.View, cost int64) bool {
	if cost == 0 {
		return false
	}
	if m.space.low.Load() && !defect.On(defect.ReserveSpent) {
		return true
	}
	quota := m.opts.Quota
	return quota > 0 && view.State().Bytes()+cost >= quota && !defect.On(defect.QuotaForgotten)
}

// KeepSpace looks how much space is left, and raises this member's alarm if that is too
// little. It returns when it is to be called again, by one goroutine.
func (m *Member) KeepSpace() (again env.Instant) {
	now := m.opts.Clock.Now()
	if m.opts.Disk != nil && now >= m.space.diskDue {
		m.space.diskDue = now.Add(diskLook)
		m.lookAtDisk()
	}
	m.lookAtCount()
	if m.space.low.Load() {
		m.reportFull(host.Call{To: unheard})
	}
	if m.opts.BackPressure && m.letGrow(now) {
		return now.Add(slowLook)
	}
	return now.Add(spaceLook)
}

// Reclaim gives the disk space back of what compaction has removed, as far as that is
// worth it, and waits for it. Errors: the context's, the store's.
func (m *Member) Reclaim(ctx context.Context) error {
	if m.opts.Reclaim == nil {
		return nil
	}
	return m.opts.Reclaim(ctx)
}

// DiskLow says whether the disk has less left than its reserve.
func (m *Member) DiskLow() bool { return m.space.low.Load() }

// unheard is the Completions of what needs no answer.
var unheard = completion(func(host.Result) {})

// lookAtDisk compares what is left with the reserve; to be enough again it must be a
// quarter more.
func (m *Member) lookAtDisk() {
	disk, err := m.opts.Disk()
	if err != nil || disk.Total <= 0 {
		return // a disk that cannot be asked is not known to be full
	}
	reserve := Reserve(disk.Total)
	m.space.spare.Store(max(disk.Free-reserve, 0))
	switch low := m.space.low.Load(); {
	case !low && disk.Free < reserve:
		m.space.low.Store(true)
		m.tellSpace(SpaceNews{Low: true, Disk: disk})
	case low && disk.Free >= reserve+reserve/4:
		m.space.low.Store(false)
		m.tellSpace(SpaceNews{Over: true, Disk: disk})
	}
}

// lookAtCount raises the alarm for what was applied beyond the quota: once for each
// growth, so that one who disarms it first and deletes then is not stopped (spec 6.4);
// an alarm may come and be ended between two looks. Deletions add to the count: growth
// that there was room for is no reason afterwards.
func (m *Member) lookAtCount() {
	view, quota := m.opts.State.View(), m.opts.Quota
	if quota <= 0 {
		return
	}
	bytes := view.State().Bytes()
	if near := bytes >= quota/100*warnShare; near != m.space.near {
		if m.space.near = near; near {
			m.tellSpace(SpaceNews{Near: true, Bytes: bytes, Quota: quota})
		}
	}
	judged := max(m.space.judged, view.Excused(m.opts.Member))
	if defect.On(defect.AlarmReturns) {
		judged = 0
	}
	switch grown := view.Grown(); {
	case bytes < quota, view.HasAlarm(command.Alarm{Member: m.opts.Member, Type: command.AlarmNoSpace}):
		m.space.judged = grown
	case grown > judged:
		m.reportFull(host.Call{To: unheard})
	}
}

func (m *Member) tellSpace(n SpaceNews) {
	if m.opts.SpaceNews != nil {
		m.opts.SpaceNews(n)
	}
}
