package sim

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
	"github.com/kvorum/kvorum/internal/testkit/model"
	"github.com/kvorum/kvorum/internal/watch"
)

// Where a member keeps things on its disk.
const (
	logDir   = "wal"
	storeDir = "db"
	savesDir = "db/saves"
	// pilesDir is gone at a start: nothing in it outlives the process.
	pilesDir = "piles"
)

// replica is one member with its one group: a machine that outlives it, and the
// product running on it, from start to crash.
type replica struct {
	w       *world
	number  int
	member  id.Member
	machine *simenv.Machine

	// The present run; host is nil while the member is down.
	runs    int
	process *simenv.Process
	host    *host.Host
	group   *host.Group
	log     *raftlog.Store
	state   *state.Machine
	// services answer questions; proposals go to the group, under the call's name.
	services *server.Member
	stages   [3]stage

	// born: it was a founder, or was started after it was added; gone: it was removed
	// or lost, and never comes back; asked: an operator has named it in a change.
	born, gone, asked bool
	// founding: this run does not know of a cluster yet and founds it with others.
	founding   bool
	publishing publishing
	published  bool // in this run: it serves operators
	removed    bool // it has noticed that it was removed
	startedAt  env.Instant
	shutAt     env.Instant // when an operator shuts it down; 0 is not
	// reign are the configurations in effect on this leader since it was elected.
	reign []raft.PlacedConf

	applied id.Index
	// forgotten is the last index of which the present run does not know the tokens.
	forgotten id.Index
	// leads is the term in which it has just become leader and was not looked at.
	leads id.Term
	// expireAt is when the time of leases is to go on next, in true time.
	expireAt env.Instant
	room     room

	startAt   env.Instant  // when it is started again
	downBy    simenv.Crash // what a disk that goes down by itself means
	slowUntil env.Instant  // no sync completes before
	flipped   *flip
	// harmed: bits of its disk have flipped, and it is not healed yet. No other
	// member may think that its log is damaged.
	harmed bool
	// altered: somebody has changed a value in its store, every checksum is right. Its
	// state is nobody's: it is not judged.
	altered bool
}

// flip is a bit that was inverted on the disk.
type flip struct {
	file   string
	offset int64
	bit    int
}

func newReplica(w *world, number int) *replica {
	r := &replica{
		w: w, number: number, startAt: env.Never, member: id.Member(number + 1),
		machine: w.env.Machine(fmt.Sprintf("m%d", number+1)),
	}
	if w.swarm.users.signed {
		r.machine.SetWall(0) // tokens end by the calendar: it must be about the same
	}
	r.room = w.newRoom(r)
	return r
}

func (r *replica) String() string { return r.machine.Name() }

// start starts the product on the machine's disk.
func (r *replica) start() {
	r.runs++
	r.startedAt, r.published = r.w.env.Now(), false
	r.process = r.machine.Start()
	r.w.faults.duringStart(r)
	r.w.trace.fold(eventStart, uint64(r.member), uint64(r.runs))
	r.w.trace.tell(r.w.env.Now(), "%v starts, run %d", r, r.runs)
	var err error
	r.guard(func() {
		if err = r.process.World().FS.RemoveAll(pilesDir); err == nil {
			err = r.open()
		}
	})
	switch {
	case r.machine.Disk().Down():
		r.w.trace.mark(markStartCrash)
		r.crash(r.downBy, "goes down while it starts")
	case err != nil:
		r.refuse(err)
	default:
		if r.log.Damage() != nil {
			r.w.trace.mark(markDamagedLog)
		}
		r.w.trace.tell(r.w.env.Now(), "%v is up: %s", r, r.describe())
		if r.group.Status().Damaged && !r.harmed {
			r.w.fail("%v takes its log for damaged, and nobody has damaged it", r)
		}
		r.wake()
	}
}

// open assembles a member, as embed does.
func (r *replica) open() error {
	s, w := &r.w.swarm, r.process.World()
	log, err := raftlog.Open(raftlog.Options{
		FS: w.FS, Dir: logDir, Rand: w.Rand, Tasks: w.Tasks, Clock: w.Clock,
		FirstSegmentBytes: s.segmentBytes, MaxSegmentBytes: s.maxSegmentBytes, CacheBytes: s.logCacheBytes,
	})
	if err != nil {
		return err
	}
	db, err := memdb.Open(memdb.Options{FS: w.FS, Dir: storeDir, FlushBytes: s.memtableBytes})
	if err != nil {
		return err
	}
	machine, err := state.Open(id.DefaultGroup, db, savesDir)
	if err != nil {
		return err
	}
	// No table, one that forgets all the time, one that remembers everything: what
	// replicas come to may not depend on it.
	machine.KeepTips([]int{0, 2000, 1 << 20}[(r.number+r.runs)%3])
	machine.KeepKeys([]int{1 << 20, 0}[(r.number+r.runs)%2])
	if s.watches.ring > 0 {
		machine.KeepEvents(s.watches.ring)
	}
	// Nor on whether keys are counted, or in how large leaves.
	machine.KeepCounts([]int{2, 1, 0, 5}[(r.number+r.runs)%4])
	r.log, r.state, r.applied = log, machine, machine.Mark().Index
	for _, g := range log.Groups() {
		at := machine.Mark()
		if g.Start.Base.Index <= at.Index && at.Index <= g.Start.Last && termAt(g.Start, at.Index) != at.Term {
			r.w.trace.mark(markForked)
		}
	}
	if err := r.judgeStart(); err != nil {
		r.w.fail("%v: after its start: %v", r, err)
	}
	flushBytes, retainBytes := r.w.retention()
	h := host.New(host.Options{
		Member: r.member, Clock: w.Clock, Rand: w.Rand, Tasks: w.Tasks, Log: log,
		Transport: &port{n: r.w.network, from: r, run: r.runs},
		Election:  s.election, Heartbeat: s.heartbeat, NoPreVote: s.unasked>>(r.number%64)&1 == 1,
		Limits: host.Limits{
			BatchBytes: s.batchBytes, FlushBytes: flushBytes, RetainBytes: retainBytes,
			CacheBytes: s.cacheBytes, AppendBytes: s.appendBytes, ChunkBytes: s.appendBytes, WaitingCommands: s.waitingCommands,
		},
		Events:  r.event,
		Trouble: func(_ id.Group, err error) { r.w.trace.tell(r.w.env.Now(), "%v: trouble: %v", r, err) },
	})
	// One that joins waits for a leader to tell it; one that was here before finds
	// its own in the log.
	var conf raft.Conf
	if first := r.w.ledger.confs[0].Conf; first.Has(r.member) {
		conf = first
		r.founding = len(log.Groups()) == 0 && machine.Mark().Index == 0
	}
	group, err := h.Open(id.DefaultGroup, &observed{machine, r}, conf)
	if err != nil {
		return err
	}
	if at := machine.Mark().Index; log.Staged() == 0 && r.flipped == nil {
		// The log was taken as it is: it must agree with the store (rule 12).
		r.w.check(r, r.judgeLog(at, at))
	}
	r.host, r.group = h, group
	r.serve()
	for i, turner := range h.Stages() {
		r.stages[i] = stage{Turner: turner, due: env.Never}
	}
	return nil
}

// serve makes the member's services; the time of leases goes on if anybody has some.
func (r *replica) serve() {
	s, w := &r.w.swarm, r.process.World()
	r.services = server.New(server.Options{
		Member: r.member, Group: r.group, State: r.state, Clock: w.Clock,
		Tasks: w.Tasks, Rand: w.Rand, FS: w.FS, Saves: pilesDir, FarBehind: r.farBehind(), MinLeaseTTL: 1, LeaseGrace: s.leases.grace, LeaseCheckpoint: s.leases.checkpoint,
		Timeout: s.load.timeout, MaxRequestBytes: s.requestBytes(), MaxTxnOps: 128,
		Peers: &peers{r, r.runs}, StrictReconfig: s.members.strict, MaxLearners: s.members.maxLearners,
		Auth: r.w.auth(r), Quota: r.room.quota, BackPressure: s.space.backPressure, Disk: r.room.ask(r), SpaceNews: r.room.hear(r),
	})
	r.forgotten = r.applied
	r.room.begin(r)
	if r.expireAt = env.Never; s.leases.some() {
		r.expireAt = r.w.env.Now()
	}
}

// farBehind is how watches that are far behind read: never turned round, in memory,
// with a file. What they see may not depend on it.
func (r *replica) farBehind() watch.Far {
	return []watch.Far{{}, {Revisions: 6, Pile: 1 << 10, Memory: 1 << 20}, {Revisions: 12, Pile: 200, Memory: 500}}[(r.number+r.runs)%3]
}

// retention draws after how many bytes of the log a run flushes its store, and how
// many it keeps.
func (w *world) retention() (flushBytes, retainBytes int64) {
	s := &w.swarm
	if s.lapsePermille > 0 && w.runs.Int64N(1000) < s.lapsePermille {
		return 1, 1
	}
	return s.flushBytes, s.retainBytes
}

// event is told what happens inside raft, in the stepper's turn.
func (r *replica) event(_ id.Group, e raft.Event) {
	r.w.trace.tell(r.w.env.Now(), "%v %s", r, eventText(e))
	if e.Kind == raft.BecameLeader {
		r.w.elected(r, e.Term)
		r.leads = e.Term
	}
	switch e.Kind {
	case raft.ConfChanged:
		if conf := r.w.confOf(r); len(r.reign) > 0 && r.reign[len(r.reign)-1].Index < conf.Index {
			r.reign = append(r.reign, conf)
		}
	case raft.Removed:
		if conf := r.w.ledger.confAt(e.Index); conf.Index != e.Index || conf.Conf.Has(r.member) {
			r.w.fail("%v hears that configuration %d has removed it, which is %+v at %d", r, e.Index, conf.Conf, conf.Index)
		}
		r.removed = true
	case raft.Truncated:
		r.w.trace.mark(markTruncated)
	case raft.Healed:
		r.harmed = r.flipped != nil
	case raft.LostQuorum:
		r.w.trace.mark(markLostLeader)
	}
}

// afterwards looks at a member after anything has happened: it may have died, it
// may have become leader.
func (r *replica) afterwards() {
	switch {
	case r.host == nil || r.w.failure != nil:
	case r.machine.Disk().Down():
		r.w.trace.mark(markOpCrash)
		r.crash(r.downBy, "goes down")
	case r.host.Err() != nil:
		r.refuse(r.host.Err())
	case r.leads != 0:
		status := r.group.Status()
		if status.Role == raft.Leader && status.Hard.Term == r.leads {
			r.w.check(r, r.w.ledger.holds(status.Last, r.leads))
		}
		r.leads = 0
	case r.removed:
		r.w.trace.mark(markRemoved)
		r.retire(simenv.ProcessCrash, "was removed and stops by itself")
	}
}

// crash ends the member's process.
func (r *replica) crash(how simenv.Crash, why string) {
	if r.gone || !r.born {
		return
	}
	r.w.trace.fold(eventFault, uint64(r.member), uint64(how))
	r.w.trace.tell(r.w.env.Now(), "%v %s (%v)", r, why, how)
	up := r.host != nil
	r.machine.Crash(how)
	r.host, r.group, r.log, r.state, r.process, r.leads, r.removed = nil, nil, nil, nil, nil, 0, false
	if up {
		r.startAt = r.w.env.Now().Add(r.w.faults.outage())
		r.w.network.notice(r)
	}
	if r.w.calm {
		r.startAt = r.w.env.Now()
	}
}

// refuse is called when the product cannot start or go on. That is legal after a
// fault of its disk; damage must be named.
func (r *replica) refuse(err error) {
	r.w.trace.tell(r.w.env.Now(), "%v ends: %v", r, err)
	file, offset := damageOf(err)
	switch {
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENOSPC):
		if errors.Is(err, syscall.EIO) {
			r.w.trace.mark(markDiskError)
		} else {
			r.w.trace.mark(markDiskFull)
		}
		r.crash(simenv.Crash(r.w.rand.Intn(2)), "ends after an error of its disk")
	case r.flipped != nil && file == "":
		r.w.fail("%v: damage was done to %s at %d, but the refusal names no file: %v", r, r.flipped.file, r.flipped.offset, err)
	case r.flipped != nil:
		r.followFlip(file, offset)
		if clean(file) != clean(r.flipped.file) {
			r.w.fail("%v: damage was done to %s at %d, but the refusal names %s at %d", r, r.flipped.file, r.flipped.offset, file, offset)
		}
		r.w.trace.mark(markDamage)
		r.crash(simenv.ProcessCrash, "refuses damage")
		r.unflip()
	default:
		r.w.fail("%v ends without a reason: %v", r, err)
	}
	r.startAt = r.w.env.Now().Add(20 * time.Millisecond)
}

// flip inverts a bit of one of the member's files and kills the process, so that
// the next run reads it.
func (r *replica) flip(rand *simenv.Rand, ofLog bool) {
	disk := r.machine.Disk()
	files := slices.DeleteFunc(disk.Files(), func(file string) bool { return strings.HasPrefix(file, pilesDir+"/") })
	if ofLog {
		files = slices.DeleteFunc(files, func(file string) bool { return !strings.HasSuffix(file, ".wal") })
	}
	if r.flipped != nil || len(files) == 0 {
		return
	}
	file := files[rand.Intn(len(files))]
	info, err := disk.Mount().Stat(file)
	if err != nil || info.Size() == 0 {
		return
	}
	r.crash(simenv.ProcessCrash, "is killed")
	from, to := int64(0), info.Size()
	if ofLog {
		from, to = writtenSector(disk, file, rand, info.Size())
	}
	r.harmed = true
	offset, bit, err := disk.FlipRandom(file, from, to)
	r.w.check(r, err)
	r.flipped = &flip{file, offset, bit}
	r.w.trace.tell(r.w.env.Now(), "%v: bit %d of %s at %d is flipped", r, bit, file, offset)
}

// writtenSector picks a sector of a file that is not blank, if it meets one.
func writtenSector(disk *simenv.Disk, file string, rand *simenv.Rand, size int64) (from, to int64) {
	sector := make([]byte, sectorBytes)
	f, err := disk.Mount().Open(file)
	if err != nil {
		return 0, size
	}
	defer f.Close()
	for range 16 {
		from = rand.Int64N((size+sectorBytes-1)/sectorBytes) * sectorBytes
		to = min(size, from+sectorBytes)
		n, _ := f.ReadAt(sector[:to-from], from)
		if len(bytes.Trim(sector[:n], "\x00")) > 0 {
			break
		}
	}
	return from, to
}

// sectorBytes is how finely a log names what is damaged.
const sectorBytes = 512

// followFlip follows a flipped bit into the segment that its file, a spare then, has
// become. Another spare may have its name by now.
func (r *replica) followFlip(file string, offset int64) {
	if strings.HasSuffix(r.flipped.file, ".spare") && strings.HasSuffix(file, ".wal") && offset/sectorBytes == r.flipped.offset/sectorBytes {
		r.flipped.file = clean(file)
	}
}

// unflip inverts the bit again, if nothing was written over it.
func (r *replica) unflip() {
	if r.flipped == nil || r.host != nil {
		return
	}
	r.w.trace.tell(r.w.env.Now(), "%v: %s at %d is as it was", r, r.flipped.file, r.flipped.offset)
	_ = r.machine.Disk().Flip(r.flipped.file, r.flipped.offset, r.flipped.bit) // it may be gone
	r.flipped = nil
}

// judgeStart judges what the store has after a start: the state as it was at its
// mark.
func (r *replica) judgeStart() error {
	mark, l := r.state.Mark(), r.w.ledger
	if mark.Index > l.last() {
		return fmt.Errorf("the store has applied %d, nobody applied more than %d", mark.Index, l.last())
	}
	if d := l.at(mark.Index); d != nil && d.term != mark.Term {
		return fmt.Errorf("the store's mark %d is of term %d, the entry of term %d", mark.Index, mark.Term, d.term)
	}
	if r.altered {
		return nil
	}
	if err := r.judgeState(l.revisionAt(mark.Index)); err != nil {
		return err
	}
	if err := r.judgeAlarms(mark.Index); err != nil {
		return err
	}
	return r.judgeRights(mark.Index)
}

// judgeState compares all that can be read with the oracle at a revision.
func (r *replica) judgeState(rev id.Revision) error {
	all := &command.RangeRequest{Key: []byte{0}, End: []byte{0}}
	got, err := r.state.View().Range(all)
	if err != nil {
		return err
	}
	want, err := r.w.ledger.oracle.At(rev).Range(all)
	if a, b := model.Text(got), answerText(want, err); a != b {
		return fmt.Errorf("the state is not that of revision %d:\n\tit has    %s\n\tthe model %s", rev, a, b)
	}
	return nil
}

// judge judges a member at rest: its state, and its log against what was decided.
func (r *replica) judge() error {
	if err := r.judgeState(r.w.ledger.revisionAt(r.applied)); err != nil {
		return err
	}
	if err := r.judgeRights(r.applied); err != nil {
		return err
	}
	if err := r.judgeAlarms(r.applied); err != nil {
		return err
	}
	hash, err := r.state.Hash()
	if err != nil {
		return err
	}
	if err := r.w.ledger.state(r.applied, hash); err != nil {
		return err
	}
	if r.applied == r.w.ledger.last() {
		if err := r.w.ledger.members(r.state.View().Members()); err != nil {
			return err
		}
	}
	return r.judgeLog(0, r.log.Bounds(id.DefaultGroup).Last.Index)
}

// judgeLog judges what the log holds of [low, high].
func (r *replica) judgeLog(low, high id.Index) error {
	bounds := r.log.Bounds(id.DefaultGroup)
	high = min(high, bounds.Last.Index)
	for low = max(low, bounds.Base.Index+1); low <= high; {
		entries, err := r.log.Entries(id.DefaultGroup, low, high, 1<<20)
		if err != nil || len(entries) == 0 {
			return fmt.Errorf("the log does not give entry %d: %w", low, err)
		}
		if err := r.w.ledger.log(entries, r.applied); err != nil {
			return err
		}
		low += id.Index(len(entries))
	}
	return nil
}

// describe tells how the member stands.
func (r *replica) describe() string {
	if r.host == nil {
		return r.String() + " is down"
	}
	s := r.group.Status()
	return fmt.Sprintf("%v role %d term %d vote %v leader %v commit %d applied %d durable %d last %v damaged %v waiting %d",
		r, s.Role, s.Hard.Term, s.Hard.Vote, s.Leader, s.Hard.Commit, s.Applied, s.Durable, s.Last, s.Damaged, s.Waiting)
}
