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
	// from is where tests begin to look, so that they take a minute together: no seed
	// before it finds the defect. 0 is 1.
	from uint64
	tilt func(*swarm)
}

// profiles are for every defect that the simulator must find.
var profiles = map[defect.Defect]profile{
	defect.AckBeforeSync:               {replicas: 1, within: 50, tilt: powerLoss},
	defect.RecoverWithoutSync:          {replicas: 1, within: 200, tilt: killThenPower},
	defect.PersistedByIndex:            {replicas: 3, within: 500, from: 85, tilt: slowLeaders},
	defect.VoteNotPersisted:            {replicas: 3, within: 500, tilt: changingLeaders},
	defect.CommitEarlierTermByCounting: {replicas: 3, within: 1000, from: 540, tilt: halfReplicating},
	defect.ReadByOneAck:                {replicas: 3, within: 100, tilt: parting},
	defect.TornTakenForCorrupt:         {replicas: 1, within: 50, tilt: powerLoss},
	defect.CorruptTakenForTorn:         {replicas: 1, within: 200, tilt: flipping},
	defect.MarkOutsideBatch:            {replicas: 1, within: 50, tilt: powerLoss},
	defect.StartWithoutTermCheck:       {replicas: 3, within: 500, from: 66, tilt: forking},
	defect.NoDirectorySync:             {replicas: 1, within: 100, tilt: powerLoss},
	defect.CompactLate:                 {replicas: 1, within: 50, tilt: compacting},
	defect.ResendWithoutWindow:         {replicas: 3, within: 50, tilt: repeating},
	defect.ApplyBeforeDurable:          {replicas: 3, within: 50, tilt: slowLeaders},
	defect.DutyOutlivesTerm:            {replicas: 3, within: 200, tilt: dutiful},
	defect.ServeReadAtOnce:             {replicas: 3, within: 50, tilt: parting},
	defect.LearnerVotes:                {replicas: 3, within: 50, cluster: true, tilt: learning},
	defect.ChangeAtApply:               {replicas: 3, within: 200, cluster: true, tilt: resizing},
	defect.JointOneHalf:                {replicas: 3, within: 200, cluster: true, tilt: exchanging},
	defect.RemovedVotes:                {replicas: 3, within: 50, cluster: true, tilt: learning},
	defect.SnapshotOlderThanLog:        {replicas: 3, within: 100, tilt: behind},
	defect.ResetBeforeInstall:          {replicas: 3, within: 200, from: 10, tilt: forking},
	defect.InstallTakenForLoss:         {replicas: 3, within: 50, tilt: forking},
	defect.PendingOverJump:             {replicas: 3, within: 50, tilt: leftBehind},
	defect.RefusalTakenForFate:         {replicas: 3, within: 100, tilt: refusing},
	defect.ForwardOfAnyTerm:            {replicas: 3, within: 100, tilt: refusing},
	defect.AgainAtLeaderChange:         {replicas: 3, within: 50, tilt: refusing},
	defect.DutyProposedAgain:           {replicas: 3, within: 50, tilt: reigningAgain},
	defect.DamagedVotes:                {replicas: 3, within: 100, from: 10, tilt: damaging},
	defect.TrimPastDurable:             {replicas: 1, within: 50, tilt: powerLoss},
	defect.ReadOfAnotherBoot:           {replicas: 3, within: 100, tilt: rebooting},
	defect.ReadBeforeTerm:              {replicas: 3, within: 50, tilt: readingAnywhere},
	defect.ReadByEarlierRound:          {replicas: 3, within: 100, tilt: readingAnywhere},
	defect.FollowerReadsAlone:          {replicas: 3, within: 50, tilt: parting},
	defect.VoteForShorterLog:           {replicas: 3, within: 50, tilt: changingLeaders},
	defect.TransferSkipsLog:            {replicas: 3, within: 100, tilt: transferring},
	defect.AppendAnywhere:              {replicas: 3, within: 50, tilt: halfReplicating},
	defect.CommitBeyondMatch:           {replicas: 3, within: 50, tilt: halfReplicating},
	defect.HeartbeatCommitsAll:         {replicas: 3, within: 50, tilt: halfReplicating},
	defect.LeaderCountsUnsynced:        {replicas: 3, within: 50, tilt: slowLeaders},
	defect.ConfKeptOnTruncation:        {replicas: 3, within: 100, cluster: true, tilt: learning},
	defect.SnapshotConfOfNow:           {replicas: 3, within: 50, cluster: true, tilt: joining},
	defect.SnapshotConfIgnored:         {replicas: 3, within: 50, cluster: true, tilt: joining},
	defect.CountForgetsDelete:          {replicas: 1, within: 50, tilt: compacting},
	defect.FencesOutliveLoad:           {replicas: 3, within: 50, tilt: leftBehind},
	defect.RemovalPassesFences:         {replicas: 1, within: 50, tilt: countingAnew},

	defect.RingEdgeSkipped:      {replicas: 1, within: 20, tilt: lagging},
	defect.HistoryOverlapsRing:  {replicas: 1, within: 20, tilt: lagging},
	defect.RingOutlivesLoad:     {replicas: 3, within: 20, tilt: watchingBehind},
	defect.BookmarkOfTheView:    {replicas: 1, within: 20, tilt: lagging},
	defect.FilterStopsBookmarks: {replicas: 1, within: 20, tilt: filtering},
	defect.CompactedWatchHangs:  {replicas: 1, within: 20, tilt: overtaking},
	defect.CompactionEatsDelete: {replicas: 1, within: 20, tilt: overtaking},
	defect.ResumeRepeats:        {replicas: 1, within: 20, tilt: lagging},
	defect.FutureWatchAtOnce:    {replicas: 1, within: 20, tilt: lagging},
	defect.EventBeforeView:      {replicas: 1, within: 20, tilt: overtaking},
	defect.PreviousOfNow:        {replicas: 1, within: 20, tilt: lagging},
	defect.GroupSkipsAhead:      {replicas: 1, within: 20, tilt: lagging},
	defect.PileEndSkipped:       {replicas: 1, within: 20, tilt: lagging},
	defect.ExpireOutlivesTerm:   {replicas: 3, within: 50, tilt: renewingElsewhere},
	defect.RenewUnconfirmed:     {replicas: 3, within: 20, tilt: renewingElsewhere},
	defect.RenewedWhileEnding:   {replicas: 3, within: 20, tilt: renewingLate},
	defect.DeadlineOfFollower:   {replicas: 3, within: 20, tilt: renewingElsewhere},
	defect.CheckpointIgnored:    {replicas: 3, within: 20, tilt: handingOn},
	defect.CheckpointKept:       {replicas: 3, within: 20, tilt: handingOnRenewed},
	defect.LeaseEndsTwice:       {replicas: 1, within: 20, tilt: leasing},
	defect.DetachedKeyDeleted:   {replicas: 1, within: 20, tilt: leasing},
	defect.LoadNotTold:          {replicas: 3, within: 20, tilt: leasingBehind},
	defect.LostEndLeaks:         {replicas: 1, within: 50, tilt: leasingCrowded},

	defect.RightsOutliveLoad:    {replicas: 3, within: 20, tilt: peopledBehind},
	defect.RightsOfBefore:       {replicas: 1, within: 20, tilt: peopled},
	defect.RightsOfTheView:      {replicas: 3, within: 50, tilt: peopledApart},
	defect.RefusedAtOnce:        {replicas: 3, within: 20, tilt: peopledApart},
	defect.TokenOfNobody:        {replicas: 1, within: 20, tilt: peopled},
	defect.TokenOutlivesDisable: {replicas: 1, within: 20, tilt: peopled},
	defect.TokenTooEarly:        {replicas: 3, within: 20, tilt: peopledApart},
	defect.PasswordRaced:        {replicas: 3, within: 50, tilt: peopledApart},
	defect.RoleRowsForgotten:    {replicas: 1, within: 20, tilt: peopledRestarting},

	defect.QuotaForgotten:     {replicas: 1, within: 20, tilt: cramped},
	defect.ReserveSpent:       {replicas: 1, within: 20, tilt: crampedDisks},
	defect.FullUntold:         {replicas: 1, within: 20, tilt: cramped},
	defect.RefusedYetProposed: {replicas: 1, within: 20, tilt: crampedDisks},
	defect.AlarmUnasked:       {replicas: 1, within: 20, tilt: crampedByHand},
	defect.AlarmUnobeyed:      {replicas: 3, within: 20, tilt: crampedByHand},
	defect.AlarmReturns:       {replicas: 1, within: 20, tilt: cramped},
	defect.AlarmsAfterRights:  {replicas: 3, within: 50, tilt: crampedPeople},
	defect.AlarmKept:          {replicas: 1, within: 20, tilt: crampedSlowly},
	defect.SignatureUnread:    {replicas: 1, within: 20, tilt: peopledSigned},
	defect.SignedForGood:      {replicas: 1, within: 20, tilt: peopledSigned},
	defect.SignedBefore:       {replicas: 1, within: 20, tilt: peopledSigned},
	defect.SignedTooEarly:     {replicas: 3, within: 20, tilt: peopledSignedApart},
}

// spaceProfiles are for the mistakes about space that the simulator finds besides those of
// defect.All: other tests find them too (defect.Space).
var spaceProfiles = map[defect.Defect]profile{
	defect.FullRefusesAll:      {replicas: 1, within: 20, tilt: crampedByHand},
	defect.NestedPutFree:       {replicas: 1, within: 20, tilt: crampedByHand},
	defect.AlarmsOutliveLoad:   {replicas: 3, within: 50, tilt: crampedBehind},
	defect.AlarmsForgotten:     {replicas: 1, within: 20, tilt: crampedRestarting},
	defect.DisarmEndsOthers:    {replicas: 3, within: 20, tilt: crampedByHand},
	defect.CorruptTakenForFull: {replicas: 1, within: 20, tilt: crampedByHand},
}

// profileOf finds the profile of a mistake.
func profileOf(d defect.Defect) (p profile, known bool) {
	if p, known = profiles[d]; !known {
		p, known = userProfiles[d]
	}
	if !known {
		p, known = spaceProfiles[d]
	}
	return p, known
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
	s.storm = 3 * time.Second
	s.load = loadSwarm{clients: 24, calls: 700, burst: 4, keys: 4, values: 8, timeout: 60 * time.Millisecond, registers: 1}
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

// countingAnew: as compacting, and the process ends often.
func countingAnew(s *swarm) {
	compacting(s)
	s.faults = faultSwarm{crash: 100 * time.Millisecond, powerCrash: 300 * time.Millisecond, outage: 5 * time.Millisecond}
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

// reigningAgain: duties are slow to be done, and their leaders soon lead again.
func reigningAgain(s *swarm) {
	dutiful(s)
	s.load.timeout = 3 * time.Second
	s.load.transfers, s.load.duties = 6, 12
	s.faults = faultSwarm{part: 100 * time.Millisecond, partFor: 200 * time.Millisecond, aim: 800, oneWay: 300, outage: 20 * time.Millisecond}
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

// resizing: quorums grow and shrink by whole voters, while much is under way.
func resizing(s *swarm) {
	learning(s)
	s.members.pause, s.members.add, s.members.addLearner, s.members.promote = 20*time.Millisecond, 6, 0, 0
	s.load.clients = 8
}

// behind: members are behind all the time, and what brings them on comes twice.
func behind(s *swarm) {
	changingLeaders(s)
	s.flushBytes, s.memtableBytes, s.retainBytes, s.lapsePermille = 1, 256, 1, 1000
	s.faults = faultSwarm{part: 200 * time.Millisecond, partFor: 200 * time.Millisecond, crash: 300 * time.Millisecond, outage: 100 * time.Millisecond}
	s.network.repeatPermille, s.network.slowPermille, s.network.slowDelay = 300, 300, 300*time.Millisecond
	s.disk.SyncMax = time.Millisecond
}

// leftBehind: members are cut off with calls under way, and sent a snapshot.
func leftBehind(s *swarm) {
	behind(s)
	s.network.losePermille = 0
	s.load.timeout, s.load.clients = time.Second, 12
}

// refusing: proposals are forwarded, sent again, and late.
func refusing(s *swarm) {
	changingLeaders(s)
	s.network.repeatPermille, s.network.slowPermille, s.network.slowDelay, s.network.losePermille = 300, 200, 300*time.Millisecond, 100
	s.load.timeout, s.load.clients = time.Second, 12
	s.disk.SyncMax = time.Millisecond
}

// damaging: the end of a log is damaged as soon as something is there.
func damaging(s *swarm) {
	changingLeaders(s)
	s.faults.flip, s.faults.flipLog, s.faults.victims = 150*time.Millisecond, 1000, 1
	s.faults.slowSync = 0
	s.flushBytes, s.memtableBytes = 0, 1<<20
	s.disk.SyncMax = time.Millisecond
	s.segmentBytes, s.maxSegmentBytes = 16<<10, 16<<10
}

// rebooting: members come back before the answers that they waited for.
func rebooting(s *swarm) {
	s.election, s.heartbeat = 500*time.Millisecond, 50*time.Millisecond
	s.faults = faultSwarm{crash: 60 * time.Millisecond, outage: 5 * time.Millisecond}
	s.network = netSwarm{minDelay: time.Millisecond, maxDelay: 5 * time.Millisecond, slowPermille: 200, slowDelay: 300 * time.Millisecond}
	s.disk.SyncMax = time.Millisecond
	s.load = loadSwarm{clients: 16, calls: 3000, burst: 4, keys: 2, values: 8, timeout: time.Second, registers: 4, reads: 8}
}

// readingAnywhere: much is read while leaders change.
func readingAnywhere(s *swarm) {
	changingLeaders(s)
	s.faults.slowSync, s.faults.aim = 0, 700
	s.disk.SyncMax = time.Millisecond
	s.network.slowPermille, s.network.slowDelay = 100, 100*time.Millisecond
	s.load = loadSwarm{clients: 16, calls: 3000, burst: 4, keys: 2, values: 8, timeout: time.Second, registers: 4, reads: 8}
}

// transferring: leadership is handed over again and again.
func transferring(s *swarm) {
	changingLeaders(s)
	s.network.losePermille = 100
	s.load.transfers, s.load.registers = 4, 8
}

// joining: who joins is sent a snapshot.
func joining(s *swarm) {
	learning(s)
	s.flushBytes, s.memtableBytes, s.retainBytes, s.lapsePermille = 1, 256, 1, 1000
}
