package sim

import (
	"fmt"
	"time"

	"github.com/kvorum/kvorum/internal/env/simenv"
)

// swarm is what the seed decides before a world begins. Each fault is absent from
// many worlds altogether, so that rare combinations get worlds of their own.
type swarm struct {
	storm time.Duration // how long faults happen and clients call

	election, heartbeat time.Duration
	// unasked are the members, by their bits, that stand without a pre-vote.
	unasked  uint64
	turnCost time.Duration // the most that one turn takes
	driftPPM int64

	// Sizes, small so that batches are cut, segments recycled, logs trimmed and
	// stores flushed within seconds.
	segmentBytes, maxSegmentBytes int64
	batchBytes                    int
	flushBytes, retainBytes       int64
	appendBytes                   int
	cacheBytes, logCacheBytes     int
	memtableBytes                 int
	waitingCommands               int

	// lapsePermille of runs keep nothing of the log that the store has: whoever is
	// behind then is sent a snapshot.
	lapsePermille int64

	// auditPermille of promises are held against what a power loss would leave.
	auditPermille int64

	disk    simenv.DiskOptions
	network netSwarm
	faults  faultSwarm
	load    loadSwarm
	watches watchSwarm
	leases  leaseSwarm
	users   userSwarm
	space   spaceSwarm
	// cluster: members may come and go.
	cluster bool
	members memberSwarm
}

// memberSwarm is what operators do to the membership: relative weights of changes.
type memberSwarm struct {
	operators   int
	pause       time.Duration // mean time between the changes of one
	least, most int           // voters that are left, members that there may be
	shutdown    time.Duration // mean time until a member that was removed is shut down
	strict      bool
	maxLearners int
	// connectedBefore is how long members count as connected before they started:
	// the strict check wants more than a storm lasts.
	connectedBefore time.Duration

	add, addLearner, remove, replace, promote, swap, update int64
}

func (m memberSwarm) total() int64 {
	return m.add + m.addLearner + m.remove + m.replace + m.promote + m.swap + m.update
}

// requestBytes is the largest request that the services take.
func (s *swarm) requestBytes() int {
	if s.users.some() || s.space.some() {
		return 32 * pieceBytes // txns of people, values of spenders
	}
	if s.cluster {
		return 4 * pieceBytes // the founders' names are in one
	}
	return pieceBytes
}

// netSwarm is what becomes of messages.
type netSwarm struct {
	minDelay, maxDelay time.Duration
	losePermille       int64
	repeatPermille     int64
	slowPermille       int64 // a message that takes slowDelay more
	slowDelay          time.Duration
	noticePermille     int64 // a lost connection that the other side hears of
}

// faultSwarm is the mean time between faults of a kind; 0 is never.
type faultSwarm struct {
	crash, powerCrash, opCrash, part, pause, stall, syncError, full, flip, slowSync, split, rolling time.Duration

	outage     time.Duration // mean time that a crashed member stays down
	partFor    time.Duration
	oneWay     int64 // permille of partitions that are one-way
	pauseFor   time.Duration
	slowFor    time.Duration
	aim        int64 // permille of faults that hit a leader, if there is one
	coup       int64 // permille of new leaders that are struck at once
	midload    int64 // permille of snapshots whose receiver goes down right after
	doublePerm int64 // permille of process crashes soon followed by a power crash
	flipLog    int64 // permille of flips that hit what is written of the log
	victims    int   // members whose bits may flip, at most a minority; 0 is one
	bridge     int64 // permille of splits in which one member still reaches both sides
}

// loadSwarm is what clients do: relative weights of the workloads.
type loadSwarm struct {
	clients int
	calls   int64 // about how many calls all clients make in the storm
	burst   int64 // how many calls a client makes without a pause, on average
	keys    int64
	values  int64 // longest value in bytes
	timeout time.Duration

	registers, pairs, anything, reads, history, compactions, duties, transfers int64
}

// watchSwarm is what watchers do.
type watchSwarm struct {
	clients int           // with a stream each
	most    int           // watches of a client
	pause   time.Duration // mean time between the changes of one
	stall   time.Duration // how long a client does not read at most, now and then
	tick    time.Duration // between bookmarks
	ring    int           // bytes for the newest events
}

// leaseSwarm is what those do who have leases.
type leaseSwarm struct {
	lessees, lockers int
	pause            time.Duration // mean time between the calls of one
	ttl              int64         // longest, in seconds
	kept             int64         // permille of leases that are kept alive for a while
	every            int64         // mean time between renewals, in permille of the TTL
	grace            time.Duration
	checkpoint       time.Duration // between checkpoints; 0 is never
}

// userSwarm is what people do who have to say who they are.
type userSwarm struct {
	people   int           // who make calls; beside them there is one who administers
	pause    time.Duration // mean time between the calls of one
	changes  time.Duration // mean time between changes of users and roles
	ttl      time.Duration // of tokens
	signed   bool          // tokens are signed
	watching int64         // permille of watchers that are judged as somebody
}

// some says whether there are users: if not, permissions are never checked.
func (u *userSwarm) some() bool { return u.people > 0 }

// some says whether anybody has leases, so that their time must go on.
func (l *leaseSwarm) some() bool { return l.lessees+l.lockers > 0 }

// total is the sum of the weights.
func (l loadSwarm) total() int64 {
	return l.registers + l.pairs + l.anything + l.reads + l.history + l.compactions + l.duties + l.transfers
}

// drawSwarm draws a world's swarm. A profile, if given, tilts it afterwards.
func drawSwarm(r *simenv.Rand, replicas int) swarm {
	s := swarm{
		storm:           between(r, time.Second, 6*time.Second),
		election:        oneOf(r, 100*time.Millisecond, 200*time.Millisecond, 500*time.Millisecond),
		turnCost:        oneOf(r, 10*time.Microsecond, 50*time.Microsecond, 200*time.Microsecond),
		driftPPM:        oneOf[int64](r, 0, 100, 20_000),
		segmentBytes:    oneOf[int64](r, 16<<10, 32<<10, 64<<10),
		batchBytes:      oneOf(r, 256, 2<<10, 16<<10, 0),
		flushBytes:      oneOf[int64](r, 2<<10, 16<<10, 128<<10, 0),
		retainBytes:     oneOf[int64](r, 1, 16<<10, 128<<10, 0),
		appendBytes:     oneOf(r, 1, 4<<10, 0, 0),
		cacheBytes:      oneOf(r, 1, 4<<10, 64<<10),
		logCacheBytes:   oneOf(r, 0, 0, 16<<10),
		memtableBytes:   oneOf(r, 2<<10, 16<<10, 256<<10),
		waitingCommands: oneOf(r, 0, 0, 4),
	}
	s.auditPermille = oneOf[int64](r, 0, 0, 20)
	s.heartbeat = s.election / 10
	s.maxSegmentBytes = s.segmentBytes * oneOf[int64](r, 1, 2, 8)
	s.disk = simenv.DiskOptions{
		WholeBlocks: r.OneIn(3),
		SyncMin:     50 * time.Microsecond,
		SyncMax:     oneOf(r, 200*time.Microsecond, 5*time.Millisecond, 40*time.Millisecond),
	}
	s.network = drawNetwork(r)
	s.faults = drawFaults(r, replicas)
	s.load = drawLoad(r)
	if replicas > 1 && r.OneIn(6) {
		// A world of snapshots: logs are trimmed at once, and members stay away.
		s.flushBytes, s.memtableBytes, s.retainBytes = 1, 2<<10, 1
		s.faults.outage, s.faults.crash = 600*time.Millisecond, 500*time.Millisecond
	}
	return s
}

// drawLater draws the faults that came to be later, from a stream of their own: worlds
// without them are what they were.
func (s *swarm) drawLater(r *simenv.Rand, founders int) {
	f := &s.faults
	if founders > 1 && r.OneIn(4) {
		f.split = between(r, 200*time.Millisecond, 2*time.Second)
		f.bridge = oneOf[int64](r, 0, 500, 1000)
	}
	if r.OneIn(6) {
		f.rolling = between(r, 500*time.Millisecond, 3*time.Second)
	}
	if founders > 1 && r.OneIn(4) {
		s.lapsePermille = oneOf[int64](r, 100, 500)
	}
	minority := max(1, (founders-1)/2)
	f.victims = 1 + r.Intn(minority)
	f.flipLog = oneOf[int64](r, 0, 500, 1000)
	if s.cluster && founders > 2 && s.members.operators == 0 && r.OneIn(3) {
		f.flip = between(r, 200*time.Millisecond, 2*time.Second)
	}
	s.unasked = oneOf(r, 0, 0, 0, 0, 0, 0, ^uint64(0), uint64(r.Intn(256)))
}

// drawWatches draws who watches and who has leases, from a stream of its own.
func (s *swarm) drawWatches(r *simenv.Rand) {
	s.watches = watchSwarm{
		clients: 1 + r.Intn(3),
		most:    1 + r.Intn(4),
		pause:   oneOf(r, 20*time.Millisecond, 100*time.Millisecond, 500*time.Millisecond),
		stall:   oneOf(r, 0, 10*time.Millisecond, 300*time.Millisecond),
		tick:    oneOf(r, 20*time.Millisecond, 60*time.Millisecond, 150*time.Millisecond),
		ring:    oneOf(r, 300, 2000, 1<<20),
	}
	s.leases = leaseSwarm{
		lessees:    1 + r.Intn(2),
		lockers:    r.Intn(3),
		pause:      oneOf(r, 50*time.Millisecond, 150*time.Millisecond, 400*time.Millisecond),
		ttl:        oneOf[int64](r, 1, 1, 1, 3),
		kept:       oneOf[int64](r, 300, 900),
		every:      oneOf[int64](r, 100, 330, 900),
		grace:      oneOf(r, 0, s.election),
		checkpoint: oneOf(r, 0, 0, 50*time.Millisecond, 300*time.Millisecond),
	}
}

// drawUsers draws whether there are users, from a stream of its own: in a quarter of the
// worlds. The others are what they were.
func (s *swarm) drawUsers(r *simenv.Rand) {
	if !r.OneIn(4) {
		return
	}
	s.users = userSwarm{
		people:   1 + r.Intn(3),
		pause:    oneOf(r, 30*time.Millisecond, 100*time.Millisecond),
		changes:  oneOf(r, 30*time.Millisecond, 100*time.Millisecond, 400*time.Millisecond),
		ttl:      oneOf(r, 300*time.Millisecond, 2*time.Second, time.Minute),
		watching: oneOf[int64](r, 0, 500, 1000),
	}
	if s.users.signed = r.OneIn(3); s.users.signed {
		s.users.ttl = oneOf(r, 2*time.Second, time.Minute) // they end at a full second
	}
}

// maxFounders is the largest group that is founded.
const maxFounders = 7

// drawCluster draws the swarm of a cluster, and how many found it unless that is
// given.
func drawCluster(r *simenv.Rand, given int) (s swarm, founders int) {
	founders = oneOf(r, 1, 2, 3, 3, 3, 4, 5, 5, 6, 7)
	if given > 0 {
		founders = given
	}
	s = drawSwarm(r, maxFounders)
	if founders == 2 {
		s.faults.flip = 0 // a pair cannot stand the damage of one: it must not vote
	}
	// Many members need many steps: their calls are fewer.
	s.load.calls = s.load.calls * 3 / int64(max(3, founders))
	s.cluster = true
	if s.members = drawMembers(r); s.members.operators > 0 {
		// What a damaged member may not do could be what a change needs.
		s.faults.flip = 0
	}
	// Every turn takes time from all: the machines of many members are as fast
	// together as those of three.
	s.turnCost = s.turnCost * 3 / time.Duration(max(3, founders, s.members.most))
	return s, founders
}

// drawMembers draws what operators do; a third of the worlds have none.
func drawMembers(r *simenv.Rand) memberSwarm {
	some := func() int64 { return oneOf[int64](r, 0, 1, 1, 4) }
	m := memberSwarm{
		operators:       oneOf(r, 0, 1, 2),
		pause:           oneOf(r, 50*time.Millisecond, 200*time.Millisecond, 600*time.Millisecond),
		least:           1 + r.Intn(3),
		most:            3 + r.Intn(6),
		shutdown:        oneOf(r, 50*time.Millisecond, time.Second, 3*time.Second),
		strict:          r.OneIn(3),
		maxLearners:     1 + r.Intn(3),
		connectedBefore: oneOf(r, 0, 4500*time.Millisecond, 5*time.Second),

		add: 1 + some(), addLearner: 1 + some(), remove: 1 + some(), replace: some(), promote: some(), swap: some(), update: some() / 4,
	}
	if m.least == 1 {
		m.add = 0 // a lone voter takes in learners
	}
	return m
}

func drawNetwork(r *simenv.Rand) netSwarm {
	return netSwarm{
		minDelay:       50 * time.Microsecond,
		maxDelay:       oneOf(r, 200*time.Microsecond, 2*time.Millisecond, 20*time.Millisecond),
		losePermille:   oneOf[int64](r, 0, 0, 5, 50, 200),
		repeatPermille: oneOf[int64](r, 0, 0, 10, 100),
		slowPermille:   oneOf[int64](r, 0, 0, 10, 100),
		slowDelay:      between(r, 10*time.Millisecond, time.Second),
		noticePermille: oneOf[int64](r, 0, 500, 1000),
	}
}

func drawFaults(r *simenv.Rand, replicas int) faultSwarm {
	// A kind of fault is in about half of the worlds, those that need a lone disk
	// to be perfect in fewer.
	rarer := oneOf[time.Duration](r, 1, 1, 3, 10)
	sometimes := func(oneIn int64, low, high time.Duration) time.Duration {
		if !r.OneIn(oneIn) {
			return 0
		}
		return rarer * between(r, low, high)
	}
	f := faultSwarm{
		crash:      sometimes(2, 100*time.Millisecond, 2*time.Second),
		powerCrash: sometimes(2, 100*time.Millisecond, 2*time.Second),
		opCrash:    sometimes(2, 100*time.Millisecond, 2*time.Second),
		pause:      sometimes(3, 200*time.Millisecond, 2*time.Second),
		stall:      sometimes(3, 200*time.Millisecond, 2*time.Second),
		syncError:  sometimes(4, 300*time.Millisecond, 3*time.Second),
		full:       sometimes(5, 500*time.Millisecond, 3*time.Second),
		flip:       sometimes(4, 500*time.Millisecond, 3*time.Second),
		slowSync:   sometimes(3, 200*time.Millisecond, time.Second),
		outage:     oneOf(r, 5*time.Millisecond, 100*time.Millisecond, 600*time.Millisecond),
		partFor:    oneOf(r, 50*time.Millisecond, 400*time.Millisecond, time.Second),
		oneWay:     oneOf[int64](r, 0, 300, 1000),
		pauseFor:   oneOf(r, 20*time.Millisecond, 200*time.Millisecond, time.Second),
		slowFor:    oneOf(r, 20*time.Millisecond, 200*time.Millisecond, 800*time.Millisecond),
		aim:        oneOf[int64](r, 0, 0, 700),
		coup:       oneOf[int64](r, 0, 0, 0, 300),
		midload:    oneOf[int64](r, 0, 500),
		doublePerm: oneOf[int64](r, 0, 300, 800),
	}
	if replicas > 1 {
		f.part = sometimes(2, 100*time.Millisecond, time.Second)
	}
	return f
}

func drawLoad(r *simenv.Rand) loadSwarm {
	some := func() int64 { return oneOf[int64](r, 0, 1, 1, 4) }
	return loadSwarm{
		clients: int(1 + r.Int64N(8)),
		calls:   100 + r.Int64N(1200),
		burst:   oneOf[int64](r, 1, 4, 20),
		keys:    1 + r.Int64N(8),
		values:  oneOf[int64](r, 8, 100, 2000),
		timeout: oneOf(r, 300*time.Millisecond, time.Second),

		registers: 1 + some(), pairs: some(), anything: some(), reads: some(), history: some(),
		compactions: some() / 2, duties: some() / 4, transfers: some() / 4,
	}
}

// between draws a duration of [low, high), short ones as likely as long ones.
func between(r *simenv.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}

// around draws a time with the given mean, from a twentieth of it to about twice.
func around(r *simenv.Rand, mean time.Duration) time.Duration {
	return mean/20 + time.Duration(r.Int64N(int64(2*mean)+1))
}

func oneOf[T any](r *simenv.Rand, choices ...T) T { return choices[r.Intn(len(choices))] }

// String tells the swarm in a few lines, for stories.
func (s swarm) String() string {
	text := ""
	if s.cluster {
		text = fmt.Sprintf("\nmembers %+v", s.members)
	}
	return fmt.Sprintf("storm %v, election %v, turn cost %v, segments %d..%d, batch %d, flush %d, retain %d, memtable %d\nnetwork %+v\nfaults  %+v\nload    %+v\nwatches %+v\nleases  %+v\nusers   %+v\nspace   %+v",
		s.storm, s.election, s.turnCost, s.segmentBytes, s.maxSegmentBytes, s.batchBytes, s.flushBytes,
		s.retainBytes, s.memtableBytes, s.network, s.faults, s.load, s.watches, s.leases, s.users, s.space) + text
}
