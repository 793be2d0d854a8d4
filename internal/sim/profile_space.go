package sim

import "time"

// The situations that mistakes about space and alarms need.

// cramped: spenders write all the time, there is little room, nothing fails.
func cramped(s *swarm) {
	s.faults, s.storm, s.driftPPM = faultSwarm{}, 2*time.Second, 0
	s.disk.SyncMax = time.Millisecond
	s.waitingCommands = 0
	s.load.clients, s.load.calls, s.load.keys, s.load.values = 1, 40, 3, 8
	s.space = spaceSwarm{quota: 20_000, spenders: 2, pause: 20 * time.Millisecond, keep: 100 * time.Millisecond}
}

// crampedByHand: alarms are raised and ended all the time.
func crampedByHand(s *swarm) {
	cramped(s)
	s.space.keep, s.space.byHand = 20*time.Millisecond, 400
}

// crampedDisks: others write on the members' disks.
func crampedDisks(s *swarm) {
	cramped(s)
	s.space.quota = 1 << 20
	s.space.scarce, s.space.scarceFor = 200*time.Millisecond, 700*time.Millisecond
}

// crampedSlowly: growth is slowed before there is no room.
func crampedSlowly(s *swarm) {
	cramped(s)
	s.space.backPressure = true
	s.space.spenders, s.space.pause, s.space.keep = 60, 50*time.Millisecond, 800*time.Millisecond
	s.load.timeout = 300 * time.Millisecond
}

// crampedPeople: people without rights write while alarms come and go.
func crampedPeople(s *swarm) {
	peopled(s)
	s.space = spaceSwarm{quota: 1 << 20, spenders: 1, pause: 50 * time.Millisecond, keep: 20 * time.Millisecond, byHand: 400}
	s.network = netSwarm{minDelay: time.Millisecond, maxDelay: 10 * time.Millisecond}
}

// crampedBehind: members are sent snapshots, with the alarms in them.
func crampedBehind(s *swarm) {
	behind(s)
	s.storm, s.load.calls, s.load.clients, s.load.keys, s.load.values = 3*time.Second, 300, 2, 3, 8
	s.space = spaceSwarm{quota: 40_000, spenders: 1, pause: 20 * time.Millisecond, keep: 50 * time.Millisecond, byHand: 400}
}

// crampedRestarting: members are killed again and again.
func crampedRestarting(s *swarm) {
	crampedByHand(s)
	s.flushBytes, s.memtableBytes = 2<<10, 2<<10
	s.faults = faultSwarm{crash: 200 * time.Millisecond, powerCrash: 400 * time.Millisecond, outage: 20 * time.Millisecond}
}

// peopledSigned: what people show is signed, and ends soon.
func peopledSigned(s *swarm) {
	peopled(s)
	s.storm = 5 * time.Second
	s.users.signed, s.users.ttl = true, 2*time.Second
}

// peopledSignedApart: what people show is signed, and shown to members that lag.
func peopledSignedApart(s *swarm) {
	peopledApart(s)
	s.users.signed, s.users.ttl = true, 5*time.Second
}
