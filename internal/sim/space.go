package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// spaceSwarm is how scarce room is: in worlds with a quota spenders write as the doors
// have it, and a keeper gives room back as etcd's guide says. All other clients write
// past admission, as if another member with more room had admitted them.
type spaceSwarm struct {
	quota    int64 // in bytes; unequal: some members have twice as much
	unequal  bool
	spenders int
	pause    time.Duration // mean time between the calls of one
	// keep is the mean time between two looks of the keeper, byHand the permille of them
	// at which it raises an alarm by hand.
	keep         time.Duration
	byHand       int64
	backPressure bool
	// scarce is the mean time until others write on a member's disk, for about scarceFor.
	scarce, scarceFor time.Duration
}

// some says whether room is scarce.
func (s *spaceSwarm) some() bool { return s.spenders > 0 }

// drawSpace draws whether room is scarce, from a stream of its own: in a fifth of the
// worlds. The others are what they were.
func (s *swarm) drawSpace(r *simenv.Rand) {
	if !r.OneIn(5) {
		return
	}
	// What lives at a time has room; history has not, and spenders have not.
	lives := (4*s.load.keys + 30) * (300 + s.load.values)
	s.space = spaceSwarm{
		quota:        lives + oneOf[int64](r, 4<<10, 16<<10, 64<<10),
		unequal:      r.OneIn(3),
		spenders:     1 + r.Intn(2),
		pause:        oneOf(r, 20*time.Millisecond, 100*time.Millisecond),
		keep:         oneOf(r, 50*time.Millisecond, 200*time.Millisecond, 800*time.Millisecond),
		byHand:       oneOf[int64](r, 0, 100, 400),
		backPressure: r.OneIn(3),
	}
	if r.OneIn(3) {
		s.space.scarce = between(r, 300*time.Millisecond, 2*time.Second)
		s.space.scarceFor = oneOf(r, 100*time.Millisecond, 700*time.Millisecond)
	}
}

// A disk is diskBytes large as members are told, a quarter of it is the reserve; plenty is
// left while nobody else writes on it.
const (
	diskBytes = 1 << 20
	plenty    = diskBytes / 2
)

// room is how much of it a member has.
type room struct {
	quota int64
	free  int64 // bytes left on its disk
	// reading is what the present run was told of that last; low is what it has told
	// since, over when it was enough again.
	reading int64
	low     bool
	over    env.Instant
	// grown is where the latest command stands that cost space, beyond whether it led
	// the member beyond its quota, or stands there: deletions add to the count, too, and
	// are no reason for an alarm.
	grown  id.Index
	beyond bool
	// due is when KeepSpace is to be called, in true time.
	due env.Instant
}

func (w *world) newRoom(r *replica) room {
	s := &w.swarm.space
	o := room{quota: s.quota, free: plenty, due: env.Never}
	if s.unequal && w.env.Rand(fmt.Sprintf("quota of %v", r)).OneIn(2) {
		o.quota *= 2
	}
	return o
}

// begin begins a run.
func (o *room) begin(r *replica) {
	o.grown, o.beyond = 0, false
	if r.w.swarm.space.some() {
		o.reading, o.low, o.due = plenty, false, r.w.env.Now()
	}
}

// ask is server.Options.Disk, hear SpaceNews.
func (o *room) ask(r *replica) func() (server.Disk, error) {
	if !r.w.swarm.space.some() {
		return nil
	}
	return func() (server.Disk, error) {
		o.reading = o.free
		return server.Disk{Free: o.free, Total: diskBytes}, nil
	}
}

func (o *room) hear(r *replica) func(server.SpaceNews) {
	if !r.w.swarm.space.some() {
		return nil
	}
	return func(n server.SpaceNews) {
		switch now := r.w.env.Now(); {
		case n.Low:
			o.low = true
		case n.Over:
			o.low, o.over = false, now
		}
		r.w.trace.tell(r.w.env.Now(), "%v tells of space: %+v", r, n)
	}
}

// keepSpace lets the member look how much room it has.
func (r *replica) keepSpace() {
	var again env.Instant
	r.guard(func() { again = r.services.KeepSpace() })
	r.w.trace.fold(eventSpace, uint64(r.member), uint64(again))
	if r.host == nil {
		return
	}
	reserve := server.Reserve(diskBytes)
	if low, left := r.services.DiskLow(), r.room.reading; !low && left < reserve || low && left >= reserve+reserve/4 || low != r.room.low {
		r.w.fail("%v says low %v of its disk, and has told %v; it has read that %d bytes are left, of which %d are the reserve", r, low, r.room.low, left, reserve)
	}
	r.room.due = r.process.Clock.WorldTime(again)
	r.wake()
}

// bytes is the count of rule 17 at a member, freed what compaction has taken from it.
func (r *replica) bytes() int64 { return r.state.View().State().Bytes() }
func (r *replica) freed() int64 { return r.state.View().State().Removed }

// grown is told that a member has applied something.
func (w *world) grown(r *replica) {
	if at := r.state.View().Grown(); at > r.room.grown {
		r.room.grown, r.room.beyond = at, r.bytes() >= r.room.quota
	}
	for _, c := range w.spenders {
		if c.errand != nil && c.errand.t.replica == r {
			c.errand.peak = max(c.errand.peak, r.bytes())
		}
	}
}

// alarmLedger is what was decided about alarms: the list of now, shared by all indexes
// since it came to be.
type alarmLedger struct {
	now []command.Alarm
	// refused is who was refused what for want of room, by the request's text: it must
	// never have been done.
	refused map[string]string
}

// aboutAlarms says whether a command is about alarms.
func aboutAlarms(body command.Body) bool {
	switch body.Kind() {
	case command.KindAlarmRaise, command.KindAlarmDisarm, command.KindAlarmReport, command.KindAlarmWithdraw:
		return true
	}
	return false
}

// raise has the oracle obey a command about alarms. Members that were removed have no
// say.
func (l *ledger) raise(body command.Body) (any, error) {
	if r, reports := body.(*command.AlarmReport); reports && l.struck[r.Member] {
		return nil, command.ErrMemberNotFound
	}
	response, err := l.oracle.Apply(body)
	l.alarms.now = l.oracle.Alarms()
	return response, err
}

// never says what is wrong with a command that is about to be obeyed: it was refused.
func (l *alarmLedger) never(p *placed, refused error) error {
	body, ok := p.request.(command.Body)
	if !ok || refused != nil || p.name != "" || len(l.refused) == 0 || body.Cost() == 0 {
		return nil
	}
	if who, was := l.refused[model.Text(body)]; was {
		return fmt.Errorf("%s was refused for want of space, and is in the log at %d: %.80s", who, p.index, model.Text(body))
	}
	return nil
}

// alarmsAt are the alarms in force after an index.
func (l *ledger) alarmsAt(index id.Index) []command.Alarm {
	if d := l.at(index); d != nil {
		return d.alarms
	}
	return nil
}

func anyAlarm(list []command.Alarm, kind command.AlarmType) bool {
	return slices.ContainsFunc(list, func(a command.Alarm) bool { return a.Type == kind })
}

// stops says whether some alarms stop a command.
func stops(list []command.Alarm, body command.Body) bool {
	return body.Cost() > 0 && anyAlarm(list, command.AlarmNoSpace) || isKV(body) && anyAlarm(list, command.AlarmCorrupt)
}

// alarmedIn says whether an alarm of a kind was in force after any index of a span.
func (l *ledger) alarmedIn(kind command.AlarmType, low, high id.Index) bool {
	for index := low; index <= high; index++ {
		if anyAlarm(l.alarmsAt(index), kind) {
			return true
		}
	}
	return false
}

// judgeAlarms compares the alarms that a member has with those of the oracle.
func (r *replica) judgeAlarms(index id.Index) error {
	got, want := r.state.View().Alarms(), r.w.ledger.alarmsAt(index)
	if !slices.Equal(got, want) {
		return fmt.Errorf("the alarms are not those of index %d: it has %v, the oracle %v", index, got, want)
	}
	return nil
}

// nothingDone says whether an error is a judgement of who asks, or of how the group
// stands, and not of the keys: nothing has happened then.
func nothingDone(err error) bool {
	return refusedByRights(err) || errors.Is(err, command.ErrNoSpace) || errors.Is(err, command.ErrCorrupt)
}
