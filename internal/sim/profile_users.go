package sim

import (
	"time"

	"github.com/kvorum/kvorum/internal/defect"
)

// userProfiles are for the mistakes about permissions that the simulator finds besides
// those of defect.All: other tests find them too (defect.Permissions).
var userProfiles = map[defect.Defect]profile{
	defect.ApplyUnchecked:         {replicas: 3, within: 20, tilt: peopled},
	defect.OldRevisionObeyed:      {replicas: 3, within: 20, tilt: peopled},
	defect.TokenOutlivesPassword:  {replicas: 1, within: 20, tilt: peopled},
	defect.WatchOutlivesGrant:     {replicas: 1, within: 20, tilt: peopledWatching},
	defect.PasswordInCommand:      {replicas: 1, within: 20, tilt: peopled},
	defect.NestedTxnUnchecked:     {replicas: 1, within: 20, tilt: peopled},
	defect.NestedPrevUnchecked:    {replicas: 1, within: 50, tilt: peopled},
	defect.NestedLeaseUnchecked:   {replicas: 1, within: 50, tilt: peopledLeasing},
	defect.FailureBranchUnchecked: {replicas: 1, within: 20, tilt: peopled},
	defect.ComparesUnchecked:      {replicas: 1, within: 20, tilt: peopled},
	defect.DeletePrevUnchecked:    {replicas: 1, within: 20, tilt: peopled},
	defect.LeaseKeysUnchecked:     {replicas: 1, within: 20, tilt: peopledLeasing},
	defect.OpenEndForgotten:       {replicas: 1, within: 20, tilt: peopled},
	defect.GapCovered:             {replicas: 1, within: 50, tilt: peopled},
}

// peopled: people call all the time, and what they may changes as often; nothing fails.
func peopled(s *swarm) {
	s.faults, s.storm, s.driftPPM = faultSwarm{}, 2*time.Second, 0
	s.disk.SyncMax = time.Millisecond
	s.waitingCommands = 0
	s.load.clients, s.load.calls, s.load.keys, s.load.values = 1, 40, 3, 8
	s.users = userSwarm{people: 3, pause: 15 * time.Millisecond, changes: 20 * time.Millisecond, ttl: time.Minute}
}

// peopledWatching: what they watch is taken from them.
func peopledWatching(s *swarm) {
	peopled(s)
	s.users.watching = 1000
	s.watches = watchSwarm{clients: 3, most: 4, pause: 30 * time.Millisecond, stall: 20 * time.Millisecond, tick: 10 * time.Millisecond, ring: 2000}
}

// peopledLeasing: keys hang on leases.
func peopledLeasing(s *swarm) {
	peopled(s)
	s.leases = leaseSwarm{lessees: 2, pause: 20 * time.Millisecond, ttl: 3, kept: 500, every: 330}
}

// peopledBehind: members are sent snapshots all the time.
func peopledBehind(s *swarm) {
	behind(s)
	s.storm, s.load.calls, s.load.clients = 3*time.Second, 300, 2
	s.users = userSwarm{people: 3, pause: 20 * time.Millisecond, changes: 20 * time.Millisecond, ttl: time.Minute}
}

// peopledApart: members lag, since messages take their time.
func peopledApart(s *swarm) {
	peopled(s)
	s.network = netSwarm{minDelay: time.Millisecond, maxDelay: 10 * time.Millisecond, slowPermille: 100, slowDelay: 100 * time.Millisecond}
	s.faults = faultSwarm{part: 300 * time.Millisecond, partFor: 150 * time.Millisecond, oneWay: 300, outage: 20 * time.Millisecond}
}

// peopledRestarting: members are killed again and again.
func peopledRestarting(s *swarm) {
	peopled(s)
	s.faults = faultSwarm{crash: 200 * time.Millisecond, powerCrash: 400 * time.Millisecond, outage: 20 * time.Millisecond}
}
