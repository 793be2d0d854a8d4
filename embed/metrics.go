package embed

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kvorum/kvorum/internal/api/metrics"
	"github.com/kvorum/kvorum/internal/api/ops"
	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/measure"
	"github.com/kvorum/kvorum/internal/state/command"
)

// tallies are what this floor counts itself, of what the host tells.
type tallies struct {
	leaders   atomic.Uint64 // changes of the leader that is known
	leader    atomic.Uint64 // the last one
	snapshots snapshotTallies
	rewriting atomic.Int64 // rewrites of the store that are under way
	rewrites  *measure.Histogram
}

// newRewrites counts how long rewrites of the store take, by etcd's bounds of a
// defragmentation.
func newRewrites() *measure.Histogram { return measure.NewDurations(100*time.Millisecond, 13) }

// leaderKnown counts a leader that is another one than before.
func (t *tallies) leaderKnown(leader id.Member) {
	if leader != 0 && t.leader.Swap(uint64(leader)) != uint64(leader) {
		t.leaders.Add(1)
	}
}

// snapshotTallies are what became of snapshots, by way and member.
type snapshotTallies struct {
	mu  sync.Mutex
	ofs map[snapshotWay]*snapshotTally
}

type snapshotWay struct {
	member  id.Member
	sending bool
}

type snapshotTally struct {
	underWay         int
	complete, failed uint64
	took             *measure.Histogram
}

// note counts what the host tells of a snapshot.
func (t *snapshotTallies) note(n *host.SnapshotNews) {
	t.mu.Lock()
	defer t.mu.Unlock()
	way := snapshotWay{n.Member, n.Sending}
	tally := t.ofs[way]
	if tally == nil {
		if t.ofs == nil {
			t.ofs = map[snapshotWay]*snapshotTally{}
		}
		tally = &snapshotTally{took: measure.NewDurations(100*time.Millisecond, 10)}
		t.ofs[way] = tally
	}
	switch n.Stage {
	case host.SnapshotBegun:
		tally.underWay++
		return
	case host.SnapshotComplete:
		tally.complete++
		tally.took.Took(n.Took)
	case host.SnapshotGivenUp:
		tally.failed++
	}
	tally.underWay = max(tally.underWay-1, 0) // one may be given up before it began
}

// metricsHandler shows all that this member counts.
func (s *Server) metricsHandler() http.Handler {
	return metrics.Handler(
		s.showStanding, s.showChecks, s.showStore, s.showLog, s.showLeases, s.showWatches, s.showPeers, s.showSnapshots, showFiles,
		metrics.Calls(s.grpc.Stats(), s.cfg.Metrics == config.MetricsExtensive),
	)
}

// showStanding tells who this member is in its cluster.
func (s *Server) showStanding(to *metrics.Sink) {
	status, measured, member := s.group.Status(), s.host.Measured(), s.member.Measured()
	leader := s.group.Leader()
	to.Gauge("etcd_server_has_leader", "Whether a leader is known here.", metrics.Is(leader != 0))
	to.Gauge("etcd_server_is_leader", "Whether this member leads.", metrics.Is(leader == s.home.Member))
	to.Gauge("etcd_server_is_learner", "Whether this member follows without a vote.", metrics.Is(s.member.IsLearner()))
	to.Counter("etcd_server_leader_changes_seen_total", "Leaders that followed another one, as seen here.", s.tallies.leaders.Load())
	to.Gauge("etcd_server_proposals_committed_total", "The index up to which proposals are committed.", float64(status.Hard.Commit))
	to.Gauge("etcd_server_proposals_applied_total", "The index up to which proposals are applied here.", float64(status.Applied))
	to.Gauge("etcd_server_proposals_pending", "Proposals of this member's callers that wait for their end.", float64(status.Waiting))
	to.Counter("etcd_server_proposals_failed_total", "Proposals of this member's callers that nobody answered in time, or that are lost.", measured.FailedProposals.Load())
	to.Counter("etcd_server_slow_apply_total", "Turns of applying that took longer than --warning-apply-duration.", measured.SlowApplies.Load())
	to.Counter("etcd_server_slow_read_indexes_total", "Reads that the leader confirmed late, half a second or more.", measured.SlowReads.Load())
	to.Counter("etcd_server_read_indexes_failed_total", "Reads that no leader confirmed in time.", measured.FailedReads.Load())
	to.Seconds("etcd_server_apply_duration_seconds", "How long turns of applying took, each of one command or many.", measured.Applies.Read(),
		"version", "v3", "op", "Batch", "success", "true")
	to.Gauge("etcd_server_quota_backend_bytes", "The quota in bytes; 0 is none.", float64(s.member.Status().Quota))
	to.Gauge("etcd_server_id", "Which member this is.", 1, "server_id", s.home.Member.String())
	to.Gauge("etcd_server_version", "The version of etcd that this member behaves like.", 1, "server_version", s.version)
	to.Gauge("kvorum_build_info", "The program's own version.", 1, "version", config.KvorumVersion)
	to.Gauge("etcd_server_go_version", "What the program was built with.", 1, "server_go_version", runtime.Version())
	if v := s.member.ClusterVersion(); v != (command.Version{}) {
		to.Gauge("etcd_cluster_version", "The version that the cluster has agreed on.", 1, "cluster_version", v.String())
	}
	s.cfg.Gates.Each(func(name, stage string, on bool) {
		to.Gauge("etcd_server_feature_enabled", "Whether a feature gate is on.", metrics.Is(on), "name", name, "stage", stage)
	})
	for client, n := range member.Clients() {
		kind := "unary"
		if client.Stream {
			kind = "stream"
		}
		to.Counter("etcd_server_client_requests_total", "Calls, by what their clients say of themselves.", n,
			"type", kind, "client_api_version", client.Version)
	}
	to.Counter("etcd_server_learner_promote_successes", "Learners that were given a vote at the request of this member's callers.", member.Promoted.Load())
	for reason, n := range member.NotPromoted() {
		to.Counter("etcd_server_learner_promote_failures", "Learners that were not, and why.", n, "Reason", reason)
	}
	to.Gauge("etcd_debugging_auth_revision", "The revision of users and roles.", float64(s.state.View().Auth().Revision()))
}

// showChecks tells what asking for this member's health has found.
func (s *Server) showChecks(to *metrics.Sink) {
	tally := s.ops.Tally()
	to.Counter("etcd_server_health_success", "Answers of /health that all is well.", tally.Healthy)
	to.Counter("etcd_server_health_failures", "Answers of /health that not.", tally.Unwell)
	for _, c := range tally.Checks {
		to.Gauge("etcd_server_healthcheck", "Whether a check of /livez or /readyz passed when it was last asked.", metrics.Is(c.Well), "type", c.Kind, "name", c.Name)
		to.Counter("etcd_server_healthchecks_total", "Checks of /livez and /readyz.", c.Passed, "type", c.Kind, "name", c.Name, "status", "success")
		to.Counter("etcd_server_healthchecks_total", "Checks of /livez and /readyz.", c.Failed, "type", c.Kind, "name", c.Name, "status", "error")
	}
	for _, alarm := range []ops.Alarm{ops.NoSpace, ops.Corrupt} {
		raised := false
		for _, a := range (operator{s}).Alarms() {
			raised = raised || a == alarm
		}
		to.Gauge("kvorum_alarm", "Whether an alarm is in force in the cluster.", metrics.Is(raised), "alarm", string(alarm))
	}
}

// showStore tells of keys, and of the store below them.
func (s *Server) showStore(to *metrics.Sink) {
	view, counts, sizes := s.state.View(), s.state.Counts(), s.db.Metrics()
	state, done := view.State(), counts.Store
	to.Gauge("etcd_mvcc_db_total_size_in_bytes", "What all stored versions weigh, as the quota counts.", float64(state.Bytes()))
	to.Gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "The same: what is freed is not kept.", float64(state.Bytes()))
	to.Gauge("etcd_mvcc_db_open_read_transactions", "Reads of the store that are under way.", float64(sizes.Iterators))
	to.Seconds("etcd_disk_backend_defrag_duration_seconds", "How long rewrites of the store took, which give disk space back beside everything else.", s.tallies.rewrites.Read())
	to.Gauge("etcd_disk_defrag_inflight", "Whether the store is being rewritten.", float64(s.tallies.rewriting.Load()))
	to.Gauge("kvorum_store_disk_bytes", "What the store takes on disk.", float64(sizes.DiskBytes))
	to.Gauge("kvorum_store_memtable_bytes", "What was applied and is not yet in the store on disk; the log has it.", float64(sizes.MemtableBytes))
	to.Gauge("kvorum_store_backlog_bytes", "What the store has still to flush and compact before writers go at full speed.", float64(sizes.StallBytes))
	to.Counter("etcd_mvcc_put_total", "Puts applied here, those in transactions too.", done.Puts.Load())
	to.Counter("etcd_mvcc_delete_total", "Deletions applied here, those in transactions and of leases that ended too.", done.Deletes.Load())
	to.Counter("etcd_mvcc_txn_total", "Transactions applied or read here.", done.Txns.Load())
	to.Counter("etcd_mvcc_range_total", "Ranges answered here, those in transactions too.", done.Ranges.Load())
	measured := s.member.Measured()
	to.Seconds("etcd_mvcc_hash_duration_seconds", "How long hashes of everything took.", measured.Hashes.Read())
	to.Seconds("etcd_mvcc_hash_rev_duration_seconds", "How long hashes up to a revision took.", measured.RevisionHashes.Read())
	to.Gauge("etcd_debugging_mvcc_current_revision", "The newest revision here.", float64(state.Revision))
	to.Gauge("etcd_debugging_mvcc_compact_revision", "The last compaction's revision.", float64(state.Compacted))
	to.Gauge("etcd_debugging_mvcc_total_put_size_in_bytes", "Keys and values of the puts applied here.", float64(done.PutBytes.Load()))
	to.Counter("etcd_debugging_mvcc_db_compaction_keys_total", "Versions that compactions have removed here.", done.Compacted.Load())
	to.Gauge("etcd_debugging_mvcc_db_compaction_last", "When the last compaction was asked for, in seconds of the calendar; 0 if none was since the start.",
		float64(counts.LastCompaction.Load()/int64(time.Second)))
	removals := counts.Removals.Read()
	to.Histogram("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "How long removing what compactions freed took, beside everything else.",
		removals, removals.Bounds, float64(time.Millisecond))
	if all, err := s.member.Range(&command.RangeRequest{Key: []byte{0}, End: []byte{0}, CountOnly: true, Serializable: true}); err == nil {
		to.Gauge("etcd_debugging_mvcc_keys_total", "Keys.", float64(all.Count))
	}
	to.Seconds("etcd_disk_backend_commit_duration_seconds", "How long commits to the store took: into memory, and longer when the disk is behind.", s.commits())
}

// showLog tells of the log.
func (s *Server) showLog(to *metrics.Sink) {
	log := s.raftLog.Measured()
	to.Seconds("etcd_disk_wal_fsync_duration_seconds", "How long syncs of the log took.", log.Syncs.Read())
	to.Seconds("etcd_disk_wal_write_duration_seconds", "How long writes to the log took.", log.Writes.Read())
	to.Gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log.", float64(log.Bytes.Load()))
}

// showLeases tells of leases.
func (s *Server) showLeases(to *metrics.Sink) {
	counts := s.state.Counts()
	to.Counter("etcd_debugging_lease_granted_total", "Leases granted.", counts.Granted.Load())
	to.Counter("etcd_debugging_lease_revoked_total", "Leases that ended.", counts.Revoked.Load())
	to.Counter("etcd_debugging_lease_renewed_total", "Leases that this member has renewed.", s.member.Measured().Renewed.Load())
	to.Counter("etcd_debugging_server_lease_expired_total", "Leases that ended because nobody renewed them.", counts.Expired.Load())
	ttls := counts.TTLs.Read()
	to.Histogram("etcd_debugging_lease_ttl_total", "How long leases were granted for.", ttls, ttls.Bounds, 1)
}

// showWatches tells of watches.
func (s *Server) showWatches(to *metrics.Sink) {
	t := s.member.Watches()
	to.Gauge("etcd_debugging_mvcc_watch_stream_total", "Streams of watches.", float64(t.Streams))
	to.Gauge("etcd_debugging_mvcc_watcher_total", "Watches.", float64(t.Watches))
	to.Gauge("etcd_debugging_mvcc_slow_watcher_total", "Watches that read history, since they are behind.", float64(t.Behind))
	to.Counter("etcd_debugging_mvcc_events_total", "Events sent to watches.", t.Sent)
}

// showPeers tells of the connections to the other members.
func (s *Server) showPeers(to *metrics.Sink) {
	own, standing, known := s.home.Member.String(), 0, 0
	var unsent uint64
	for _, p := range s.peers.Peers() {
		name := p.Member.String()
		known++
		up := p.URL != ""
		if up {
			standing++
		}
		var dropped uint64
		for _, n := range p.Dropped {
			dropped += n
		}
		unsent += p.Dropped[0]
		to.Counter("etcd_network_peer_sent_bytes_total", "Bytes sent to a peer.", p.SentBytes, "To", name)
		to.Counter("etcd_network_peer_received_bytes_total", "Bytes received from a peer.", p.ReceivedBytes, "From", name)
		to.Counter("etcd_network_peer_sent_failures_total", "Messages to a peer that were dropped.", dropped, "To", name)
		to.Counter("etcd_network_peer_received_failures_total", "Connections from a peer that were lost.", p.Cuts, "From", name)
		to.Seconds("etcd_network_peer_round_trip_time_seconds", "Round trips to a peer.", p.RoundTrips, "To", name)
		to.Gauge("etcd_network_active_peers", "Whether the connection to a peer stands.", metrics.Is(up), "Local", own, "Remote", name)
		to.Counter("etcd_network_disconnected_peers_total", "Connections to a peer that were lost.", p.Losses, "Local", own, "Remote", name)
	}
	to.Gauge("etcd_network_known_peers", "Peers that this member knows.", float64(known), "Local", own)
	to.Counter("etcd_server_heartbeat_send_failures_total", "Urgent messages to peers, heartbeats among them, that were dropped.", unsent)
	to.Gauge("kvorum_peers_connected", "Peers that this member is connected to.", float64(standing))
	to.Counter("kvorum_peer_refusals_total", "Connections of peers that were not welcome.", s.peers.Refusals())
}

// showSnapshots tells of whole states sent and received.
func (s *Server) showSnapshots(to *metrics.Sink) {
	t := &s.tallies.snapshots
	t.mu.Lock()
	defer t.mu.Unlock()
	arriving := 0
	defer func() {
		to.Gauge("etcd_server_snapshot_apply_in_progress_total", "Whole states that this member is taking in.", float64(arriving))
	}()
	for way, n := range t.ofs {
		prefix, label, what := "etcd_network_snapshot_receive", "From", "received from a peer"
		if way.sending {
			prefix, label, what = "etcd_network_snapshot_send", "To", "sent to a peer"
		} else {
			arriving += n.underWay
		}
		name := way.member.String()
		to.Gauge(prefix+"_inflights_total", "Snapshots being "+what+".", float64(n.underWay), label, name)
		to.Counter(prefix+"_success", "Snapshots "+what+".", n.complete, label, name)
		to.Counter(prefix+"_failures", "Snapshots not "+what+" to their end.", n.failed, label, name)
		to.Seconds(prefix+"_total_duration_seconds", "How long snapshots "+what+" took.", n.took.Read(), label, name)
	}
}

// showFiles tells how many files the process may open, and has.
func showFiles(to *metrics.Sink) {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		to.Gauge("os_fd_limit", "Files that the process may have open.", float64(limit.Cur))
	}
	if list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", os.Getpid())); err == nil {
		to.Gauge("os_fd_used", "Files that the process has open.", float64(len(list)))
	}
}

// commits is how long commits took, if the engine measures them.
func (s *Server) commits() measure.Distribution {
	if db, ok := s.db.(interface{ Commits() *measure.Histogram }); ok {
		return db.Commits().Read()
	}
	return (*measure.Histogram)(nil).Read()
}
