package sim

import (
	"time"

	"github.com/kvorum/kvorum/internal/defect"
)

// profile tilts the swarm so that the situation a defect needs is common. It
// never scripts what happens in it.
type profile struct {
	replicas int
	// cluster: it is a world of that family.
	cluster bool
	// within is how many seeds, counted from 1, it takes at most to find the defect.
	within uint64
	tilt   func(*swarm)
}

// profiles are for every defect that the simulator must find.
var profiles = map[defect.Defect]profile{
	defect.AckBeforeSync:               {replicas: 1, within: 50, tilt: powerLoss},
	defect.RecoverWithoutSync:          {replicas: 1, within: 200, tilt: killThenPower},
	defect.PersistedByIndex:            {replicas: 3, within: 500, tilt: slowLeaders},
	defect.VoteNotPersisted:            {replicas: 3, within: 500, tilt: changingLeaders},
	defect.CommitEarlierTermByCounting: {replicas: 3, within: 500, tilt: halfReplicating},
	defect.ReadByOneAck:                {replicas: 3, within: 100, tilt: parting},
	defect.TornTakenForCorrupt:         {replicas: 1, within: 50, tilt: powerLoss},
	defect.CorruptTakenForTorn:         {replicas: 1, within: 200, tilt: flipping},
	defect.MarkOutsideBatch:            {replicas: 1, within: 50, tilt: powerLoss},
	defect.StartWithoutTermCheck:       {replicas: 3, within: 500, tilt: forking},
	defect.NoDirectorySync:             {replicas: 1, within: 100, tilt: powerLoss},
	defect.CompactLate:                 {replicas: 1, within: 50, tilt: compacting},
	defect.ResendWithoutWindow:         {replicas: 3, within: 50, tilt: repeating},
	defect.ApplyBeforeDurable:          {replicas: 3, within: 50, tilt: slowLeaders},
	defect.DutyOutlivesTerm:            {replicas: 3, within: 200, tilt: dutiful},
	defect.ServeReadAtOnce:             {replicas: 3, within: 50, tilt: parting},
	defect.LearnerVotes:                {replicas: 3, within: 50, cluster: true, tilt: learning},
	defect.ChangeAtApply:               {replicas: 3, within: 200, cluster: true, tilt: learning},
	defect.JointOneHalf:                {replicas: 3, within: 200, cluster: true, tilt: exchanging},
	defect.RemovedVotes:                {replicas: 3, within: 50, cluster: true, tilt: learning},
}

// powerLoss: power is lost often, logs are short.
func powerLoss(s *swarm) {
	s.faults = faultSwarm{powerCrash: 200 * time.Millisecond, opCrash: 300 * time.Millisecond, outage: 5 * time.Millisecond}
	s.load.clients, s.load.calls = 6, 1500
	s.disk.SyncMax = 5 * time.Millisecond
}

// killThenPower: a kill -9 is soon followed by a power loss.
func killThenPower(s *swarm) {
	s.faults = faultSwarm{crash: 150 * time.Millisecond, outage: 5 * time.Millisecond, doublePerm: 1000}
	s.load.clients, s.load.calls = 3, 800
	s.disk.SyncMax = 40 * time.Millisecond
}

// changingLeaders: short reigns, slow disks, processes that die with much undone.
func changingLeaders(s *swarm) {
	s.storm = 6 * time.Second
	s.election, s.heartbeat = 100*time.Millisecond, 10*time.Millisecond
	s.faults = faultSwarm{
		crash: 150 * time.Millisecond, powerCrash: 400 * time.Millisecond, part: 100 * time.Millisecond,
		slowSync: 100 * time.Millisecond, outage: 20 * time.Millisecond, partFor: 200 * time.Millisecond, oneWay: 300,
	}
	s.load.clients, s.load.calls = 6, 1000
	s.disk.SyncMax = 40 * time.Millisecond
}

// slowLeaders: leaders whose disks hang are cut off, and heard of again while
// their disks still hang.
func slowLeaders(s *swarm) {
	changingLeaders(s)
	s.faults = faultSwarm{
		slowSync: 100 * time.Millisecond, slowFor: 600 * time.Millisecond, part: 150 * time.Millisecond,
		partFor: 200 * time.Millisecond, aim: 700, outage: 20 * time.Millisecond,
	}
	s.auditPermille = 200
}

// halfReplicating: entries travel alone, and new leaders are struck before they
// have sent all.
func halfReplicating(s *swarm) {
	changingLeaders(s)
	s.faults = faultSwarm{coup: 800, outage: 60 * time.Millisecond, part: 300 * time.Millisecond, partFor: 150 * time.Millisecond}
	s.appendBytes, s.batchBytes, s.driftPPM = 1, 1, 0
	s.network = netSwarm{minDelay: time.Millisecond, maxDelay: 20 * time.Millisecond}
	s.disk.SyncMax = time.Millisecond
	s.load.clients, s.load.calls, s.load.timeout = 6, 300, 300*time.Millisecond
}

// forking: leaders that were cut off with much in their logs are sent snapshots,
// and go down when these are in place.
func forking(s *swarm) {
	changingLeaders(s)
	s.faults = faultSwarm{
		part: 150 * time.Millisecond, partFor: 300 * time.Millisecond, aim: 900, midload: 900, outage: 20 * time.Millisecond,
	}
	s.network.losePermille, s.network.slowPermille, s.disk.SyncMax = 0, 0, 2*time.Millisecond
	s.batchBytes, s.flushBytes, s.memtableBytes, s.retainBytes, s.waitingCommands = 1, 1, 256, 1, 0
	s.load = loadSwarm{clients: 24, calls: 2000, burst: 4, keys: 4, values: 8, timeout: 300 * time.Millisecond, registers: 1}
}

// parting: members are cut off and go on believing.
func parting(s *swarm) {
	s.faults = faultSwarm{part: 100 * time.Millisecond, partFor: 300 * time.Millisecond, pause: 300 * time.Millisecond, pauseFor: 200 * time.Millisecond}
	s.load.clients, s.load.calls, s.load.reads, s.load.registers = 8, 1500, 4, 4
}

// flipping: bits flip as soon as there is something to lose.
func flipping(s *swarm) {
	s.faults = faultSwarm{flip: 300 * time.Millisecond, outage: 5 * time.Millisecond}
	s.flushBytes, s.memtableBytes = 0, 1<<20
}

// compacting: history is read while it is removed.
func compacting(s *swarm) {
	s.faults = faultSwarm{}
	s.load.clients, s.load.calls, s.load.history, s.load.compactions, s.load.registers = 8, 1500, 8, 4, 8
}

// repeating: messages are repeated and late, answers get lost.
func repeating(s *swarm) {
	s.faults = faultSwarm{part: 300 * time.Millisecond, partFor: 50 * time.Millisecond, outage: 5 * time.Millisecond}
	s.network.repeatPermille, s.network.slowPermille = 200, 100
}

// dutiful: leaders make duties and lose their office.
func dutiful(s *swarm) {
	changingLeaders(s)
	s.load.duties, s.load.transfers, s.load.clients = 8, 2, 8
}

// learning: members come, first as learners, and go, while leaders change.
func learning(s *swarm) {
	changingLeaders(s)
	s.load.clients, s.load.calls = 3, 400
	s.members = memberSwarm{
		operators: 2, pause: 100 * time.Millisecond, least: 2, most: 6, shutdown: time.Second, maxLearners: 3,
		add: 2, addLearner: 4, remove: 3, promote: 2,
	}
}

// exchanging: voters are exchanged for learners in joint changes.
func exchanging(s *swarm) {
	learning(s)
	s.members.addLearner, s.members.swap, s.members.remove = 4, 8, 1
}
