package sim

import "time"

// The situations that mistakes about watches and leases need.

// lagging: many watches, slow readers, a ring of a few events, nothing that fails.
func lagging(s *swarm) {
	s.faults, s.storm, s.driftPPM = faultSwarm{}, 2*time.Second, 0
	s.disk.SyncMax = time.Millisecond
	s.load.clients, s.load.calls, s.load.burst = 3, 300, 4
	s.load.keys, s.load.registers, s.load.values, s.load.compactions = 3, 8, 8, 0
	s.watches = watchSwarm{
		clients: 3, most: 4, pause: 40 * time.Millisecond, stall: 60 * time.Millisecond, tick: 10 * time.Millisecond, ring: 300,
	}
}

// filtering: so many watches that some that are left at the end have filters and ask for
// bookmarks.
func filtering(s *swarm) {
	lagging(s)
	s.watches.clients, s.watches.most = 8, 8
}

// overtaking: watches that lag are overtaken by compactions.
func overtaking(s *swarm) {
	lagging(s)
	s.load.compactions = 2
	s.watches.stall = 200 * time.Millisecond
}

// watchingBehind: members that watches are on are sent snapshots.
func watchingBehind(s *swarm) {
	behind(s)
	s.storm, s.load.calls = 3*time.Second, 500
	s.watches = watchSwarm{
		clients: 3, most: 4, pause: time.Second, stall: 20 * time.Millisecond, tick: 50 * time.Millisecond, ring: 1 << 20,
	}
}

// leasing: many leases with keys, nothing that fails.
func leasing(s *swarm) {
	s.faults, s.storm, s.driftPPM = faultSwarm{}, 2*time.Second, 0
	s.disk.SyncMax = time.Millisecond
	s.load.clients, s.load.calls, s.load.keys, s.load.values = 1, 60, 3, 8
	s.leases = leaseSwarm{lessees: 4, pause: 20 * time.Millisecond, ttl: 1, kept: 500, every: 330}
}

// leasingCrowded: there is seldom room for another command.
func leasingCrowded(s *swarm) {
	leasing(s)
	s.disk.SyncMax, s.waitingCommands = 20*time.Millisecond, 2
	s.load.clients, s.load.calls, s.load.burst = 12, 3000, 20
}

// leasingBehind: members are sent snapshots, and lead afterwards.
func leasingBehind(s *swarm) {
	behind(s)
	s.storm, s.load.calls = 3*time.Second, 300
	s.leases = leaseSwarm{lessees: 4, pause: 30 * time.Millisecond, ttl: 1, kept: 300, every: 330}
}

// renewingElsewhere: leaders are cut off and stopped, come back and believe that they
// still lead, while leases are renewed all the time, anywhere.
func renewingElsewhere(s *swarm) {
	leasing(s)
	s.storm, s.election, s.heartbeat = 5*time.Second, 100*time.Millisecond, 10*time.Millisecond
	s.network = netSwarm{minDelay: time.Millisecond, maxDelay: 5 * time.Millisecond}
	s.faults = faultSwarm{
		part: 400 * time.Millisecond, partFor: 300 * time.Millisecond, pause: 400 * time.Millisecond, pauseFor: 300 * time.Millisecond,
		aim: 900, outage: 20 * time.Millisecond,
	}
	s.leases = leaseSwarm{lessees: 6, pause: 50 * time.Millisecond, ttl: 1, kept: 900, every: 250}
}

// renewingLate: leases are renewed when they end, and ends take a while.
func renewingLate(s *swarm) {
	leasing(s)
	s.storm = 4 * time.Second
	s.network = netSwarm{minDelay: time.Millisecond, maxDelay: 40 * time.Millisecond}
	s.disk.SyncMax = 20 * time.Millisecond
	s.leases = leaseSwarm{lessees: 6, pause: 50 * time.Millisecond, ttl: 1, kept: 1000, every: 900}
}

// handingOn: leadership is handed over, and what leases have left is checkpointed.
func handingOn(s *swarm) {
	leasing(s)
	s.election, s.heartbeat = 100*time.Millisecond, 10*time.Millisecond
	s.network = netSwarm{minDelay: time.Millisecond, maxDelay: 2 * time.Millisecond}
	s.load.transfers, s.load.registers, s.load.calls = 4, 1, 30
	s.leases = leaseSwarm{lessees: 2, pause: 100 * time.Millisecond, ttl: 4, checkpoint: 50 * time.Millisecond, every: 330}
}

// handingOnRenewed: the same, and leases are renewed.
func handingOnRenewed(s *swarm) {
	handingOn(s)
	s.storm = 4 * time.Second
	s.leases.lessees, s.leases.ttl, s.leases.kept, s.leases.every = 4, 2, 900, 400
}
