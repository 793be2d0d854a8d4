package sim

import (
	"slices"
	"syscall"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
)

// faults decides when what goes wrong.
type faults struct {
	w    *world
	rand *simenv.Rand
	// next is when each kind strikes again.
	next [faultKinds]env.Instant
	// later are things that happen once, such as the end of a partition.
	later []timed
	// victims are the only members whose bits flip, a minority: more would be more
	// than a group can stand.
	victims []*replica
}

type timed struct {
	at env.Instant
	do func()
}

// The kinds of faults.
const (
	faultCrash = iota
	faultPowerCrash
	faultOpCrash
	faultPart
	faultPause
	faultStall
	faultSyncError
	faultFull
	faultFlip
	faultSlowSync
	faultSplit
	faultRolling
	faultScarce
	faultKinds
)

func newFaults(w *world) *faults {
	f := &faults{w: w, rand: w.env.Rand("faults")}
	first := f.rand.Intn(len(w.replicas))
	for i := range max(1, min(w.swarm.faults.victims, (len(w.replicas)-1)/2)) {
		f.victims = append(f.victims, w.replicas[(first+i)%len(w.replicas)])
	}
	for kind := range f.next {
		f.plan(kind)
	}
	return f
}

// mean is the mean time between two faults of a kind; 0 is never.
func (f *faults) mean(kind int) time.Duration {
	s := f.w.swarm.faults
	return [faultKinds]time.Duration{
		s.crash, s.powerCrash, s.opCrash, s.part, s.pause, s.stall, s.syncError, s.full, s.flip, s.slowSync, s.split, s.rolling, f.w.swarm.space.scarce,
	}[kind]
}

func (f *faults) plan(kind int) {
	f.next[kind] = env.Never
	if mean := f.mean(kind); mean > 0 && !f.w.calm {
		f.next[kind] = f.w.env.Now().Add(around(f.rand, mean))
	}
}

func (f *faults) nextDue() env.Instant {
	next := env.Never
	for _, at := range f.next {
		next = min(next, at)
	}
	for _, t := range f.later {
		next = min(next, t.at)
	}
	return next
}

// after has something happen once, in the storm only.
func (f *faults) after(d time.Duration, do func()) {
	f.later = append(f.later, timed{f.w.env.Now().Add(d), do})
}

// strike does what is due first.
func (f *faults) strike() {
	due := f.nextDue()
	for i, t := range f.later {
		if t.at == due {
			f.later = append(f.later[:i:i], f.later[i+1:]...)
			t.do()
			return
		}
	}
	for kind, at := range f.next {
		if at == due {
			r := f.target()
			if r == nil {
				f.plan(kind)
				return
			}
			f.w.trace.fold(eventFault, uint64(kind), uint64(r.member))
			f.plan(kind)
			f.begin(kind, r)
			return
		}
	}
}

// duringStart lets some members go down again before they are up.
func (f *faults) duringStart(r *replica) {
	if f.w.calm || f.w.swarm.faults.opCrash == 0 || !f.rand.OneIn(8) {
		return
	}
	r.downBy = simenv.Crash(f.rand.Intn(2))
	r.machine.Disk().CrashAfter(1 + uint64(f.rand.Int64N(20)))
}

// loaded lets some members go down when the state of a snapshot is in place and
// the log may not yet know.
func (f *faults) loaded(r *replica) {
	if !f.w.calm && f.chance(f.w.swarm.faults.midload) {
		r.downBy = simenv.Crash(f.rand.Intn(2))
		r.machine.Disk().CrashAfter(1 + uint64(f.rand.Int64N(6)))
	}
}

// loading lets some members go down in the middle of an installation.
func (f *faults) loading(r *replica) {
	if !f.w.calm && f.w.swarm.faults.midload > 0 && f.rand.OneIn(4) {
		r.downBy = simenv.Crash(f.rand.Intn(2))
		r.machine.Disk().CrashAfter(1 + uint64(f.rand.Int64N(10)))
	}
}

// target picks the member that a fault hits.
func (f *faults) target() *replica {
	if f.chance(f.w.swarm.faults.aim) {
		for _, r := range f.w.replicas {
			if r.host != nil && r.group.Leader() == r.member {
				return r
			}
		}
	}
	return f.w.pick(f.rand)
}

// coup strikes a leader within a few messages of its election: it is cut off or
// dies with its first entries half sent.
func (f *faults) coup(r *replica) {
	if f.w.calm || f.w.alone() || !f.chance(f.w.swarm.faults.coup) {
		return
	}
	kind := oneOf(f.rand, faultPart, faultCrash, faultPart)
	f.after(time.Duration(f.rand.Int64N(int64(4*f.w.swarm.network.maxDelay))), func() { f.begin(kind, r) })
}

// begin begins a fault of a kind on a member.
func (f *faults) begin(kind int, r *replica) {
	s, disk := f.w.swarm.faults, r.machine.Disk()
	switch kind {
	case faultCrash:
		r.crash(simenv.ProcessCrash, "killed")
		if f.chance(s.doublePerm) {
			f.after(f.outage()+between(f.rand, 0, 50*time.Millisecond), func() { r.crash(simenv.PowerCrash, "loses power after a restart") })
		}
	case faultPowerCrash:
		r.crash(simenv.PowerCrash, "loses power")
	case faultOpCrash:
		r.downBy = simenv.Crash(f.rand.Intn(2))
		n := 1 + uint64(f.rand.Int64N(1+f.rand.Int64N(200)))
		f.tell("%v will go down in operation %d of its disk", r, n)
		disk.CrashAfter(n)
	case faultPart:
		f.part(r)
	case faultPause:
		d := around(f.rand, s.pauseFor)
		if r.machine.BusyUntil() > f.w.env.Now().Add(d) {
			return // pauses add up: the calm would begin inside one
		}
		f.tell("%v is paused for %v", r, d)
		r.machine.Pause(d)
		f.w.ledger.tenures.paused(r.machine.BusyUntil())
	case faultStall:
		d := between(f.rand, time.Millisecond, 200*time.Millisecond)
		f.tell("the disk of %v stalls for %v, now and then", r, d)
		disk.Inject(simenv.Fault{Ops: simenv.OpAny, OneIn: 20, Times: 1 + f.rand.Int64N(4), Stall: d})
	case faultSyncError:
		f.tell("a sync of %v will fail", r)
		disk.Inject(simenv.Fault{Ops: simenv.OpSync, OneIn: 4, Times: 1, Err: syscall.EIO})
	case faultFull:
		f.fill(r)
	case faultFlip:
		victim := f.victims[0]
		if n := len(f.victims); n > 1 {
			victim = f.victims[f.rand.Intn(n)]
		}
		victim.flip(f.rand, f.chance(s.flipLog))
	case faultSlowSync:
		d := around(f.rand, s.slowFor)
		f.tell("the disk of %v completes no sync for %v", r, d)
		r.slowUntil = f.w.env.Now().Add(d)
	case faultSplit:
		f.split()
	case faultRolling:
		f.roll(r)
	case faultScarce:
		f.squeeze(r)
	}
}

func (f *faults) chance(permille int64) bool { return permille > 0 && f.rand.Int64N(1000) < permille }

func (f *faults) outage() time.Duration { return around(f.rand, f.w.swarm.faults.outage) }

func (f *faults) tell(format string, args ...any) { f.w.trace.tell(f.w.env.Now(), format, args...) }

// part cuts a member from all others or from one, for a while.
func (f *faults) part(r *replica) {
	if f.w.alone() {
		return
	}
	s := f.w.swarm.faults
	oneWay, all := f.chance(s.oneWay), f.rand.OneIn(2)
	other := f.w.replicas[(r.number+1+f.rand.Intn(len(f.w.replicas)-1))%len(f.w.replicas)]
	inward, present := f.rand.OneIn(2), slices.Clone(f.w.replicas)
	cut := func(by int) {
		for _, o := range present {
			switch {
			case o == r || !all && o != other:
			case inward:
				f.w.network.part(o, r, oneWay, by)
			default:
				f.w.network.part(r, o, oneWay, by)
			}
		}
	}
	f.tell("the network parts %v from %v, all %v, one-way %v", r, other, all, oneWay)
	cut(+1)
	f.w.network.notice(r)
	f.after(around(f.rand, s.partFor), func() {
		f.tell("the network of %v is whole again", r)
		cut(-1)
	})
}

// split parts some of the members from the others. A bridge still hears both sides.
func (f *faults) split() {
	if f.w.alone() {
		return
	}
	s, present := f.w.swarm.faults, slices.Clone(f.w.replicas)
	oneWay, bridge := f.chance(s.oneWay), -1
	if f.chance(s.bridge) {
		bridge = f.rand.Intn(len(present))
	}
	far := make([]bool, len(present))
	for i := range far {
		far[i] = f.rand.OneIn(2)
	}
	cut := func(by int) {
		for i, a := range present {
			for k, b := range present {
				if far[i] && !far[k] && i != bridge && k != bridge {
					f.w.network.part(a, b, oneWay, by)
				}
			}
		}
	}
	f.tell("the network splits: on the far side %v, bridge %d, one-way %v", far, bridge+1, oneWay)
	f.w.trace.mark(markSplit)
	cut(+1)
	f.after(around(f.rand, s.partFor), func() {
		f.tell("the network is no longer split")
		cut(-1)
	})
}

// roll restarts one member after the other, as for an upgrade: each hands its
// leadership over first.
func (f *faults) roll(first *replica) {
	f.tell("a rolling restart begins with %v", first)
	f.w.trace.mark(markRolling)
	present := slices.Clone(f.w.replicas)
	at := time.Duration(0)
	for i := range present {
		r := present[(first.number+i)%len(present)]
		f.after(at, func() {
			if r.host != nil && !f.w.alone() {
				r.guard(func() { _ = r.group.Transfer(0) })
				r.wake()
			}
		})
		at += between(f.rand, time.Millisecond, f.w.swarm.election)
		f.after(at, func() { r.crash(simenv.ProcessCrash, "is restarted, as others are") })
		at += between(f.rand, f.w.swarm.election, 6*f.w.swarm.election)
	}
}

// alone says that there is nobody to be parted from.
func (w *world) alone() bool { return len(w.replicas) == 1 }

// fill leaves a disk little room for a while.
func (f *faults) fill(r *replica) {
	disk := r.machine.Disk()
	room := f.rand.Int64N(64 << 10)
	f.tell("the disk of %v has %d bytes left", r, room)
	disk.SetCapacity(disk.Used() + room)
	r.room.free = room
	f.after(between(f.rand, 50*time.Millisecond, 500*time.Millisecond), func() {
		f.tell("the disk of %v has room again", r)
		disk.SetCapacity(0)
		r.room.free = plenty
	})
}

// squeeze has others write on a member's disk, until about its reserve is left.
func (f *faults) squeeze(r *replica) {
	r.room.free = plenty * (30 + f.rand.Int64N(50)) / 100
	f.tell("others write on the disk of %v: it has %d bytes left", r, r.room.free)
	f.after(around(f.rand, f.w.swarm.space.scarceFor), func() {
		f.tell("the disk of %v is its own again", r)
		r.room.free = plenty
	})
}

// end ends all faults and heals what they did.
func (f *faults) end() {
	f.later = nil
	for kind := range f.next {
		f.next[kind] = env.Never
	}
	f.w.network.heal()
	for _, r := range f.w.replicas {
		disk := r.machine.Disk()
		disk.ClearFaults()
		disk.SetCapacity(0)
		disk.CrashAfter(0)
		r.slowUntil, r.room.free = 0, plenty
		if r.host == nil && r.born && !r.gone {
			r.startAt = f.w.env.Now()
		}
	}
}
