package embed

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kvorum/kvorum/internal/api/metrics"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// family is what a scrape says of one name: its type, the label names of its series,
// and for a histogram where its buckets end.
type family struct {
	kind    string
	labels  map[string]bool
	buckets []string
	values  map[string]string // by series as written
}

// scrape reads the metrics of a port.
func scrape(t *testing.T, address string) map[string]*family {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %v %s", resp.Status, resp.Header, text)
	}
	all := map[string]*family{}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			all[name] = &family{kind: kind, labels: map[string]bool{}, values: map[string]string{}}
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		series, value, _ := strings.Cut(line, " ")
		if i := strings.Index(line, "} "); i > 0 {
			series, value = line[:i+1], line[i+2:]
		}
		name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		f := all[name]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if f == nil {
				f = all[strings.TrimSuffix(name, suffix)]
			}
		}
		if f == nil {
			t.Fatalf("%s has no type", name)
		}
		f.values[series] = value
		for _, pair := range strings.Split(labels, `",`) {
			label, text, _ := strings.Cut(pair, `="`)
			switch end := strings.TrimSuffix(text, `"`); {
			case label == "":
			case label == "le" && f.kind == "histogram":
				if !slices.Contains(f.buckets, end) {
					f.buckets = append(f.buckets, end)
				}
			default:
				f.labels[label] = true
			}
		}
	}
	return all
}

// doubling are bounds as they are written.
func doubling(first float64, n int) (list []string) {
	for range n {
		list = append(list, fmt.Sprint(first))
		first *= 2
	}
	return append(list, "+Inf")
}

// listed is what spec/server-ops.md 10 asks for: a type, label names, and the
// buckets of histograms.
var listed = map[string]struct {
	kind, labels string
	buckets      []string
}{
	"etcd_server_has_leader": {kind: "gauge"}, "etcd_server_is_leader": {kind: "gauge"}, "etcd_server_is_learner": {kind: "gauge"},
	"etcd_server_leader_changes_seen_total":                         {kind: "counter"},
	"etcd_server_proposals_committed_total":                         {kind: "gauge"},
	"etcd_server_proposals_applied_total":                           {kind: "gauge"},
	"etcd_server_proposals_pending":                                 {kind: "gauge"},
	"etcd_server_proposals_failed_total":                            {kind: "counter"},
	"etcd_server_slow_apply_total":                                  {kind: "counter"},
	"etcd_server_slow_read_indexes_total":                           {kind: "counter"},
	"etcd_server_read_indexes_failed_total":                         {kind: "counter"},
	"etcd_server_heartbeat_send_failures_total":                     {kind: "counter"},
	"etcd_server_health_success":                                    {kind: "counter"},
	"etcd_server_health_failures":                                   {kind: "counter"},
	"etcd_server_healthcheck":                                       {kind: "gauge", labels: "name type"},
	"etcd_server_healthchecks_total":                                {kind: "counter", labels: "name status type"},
	"etcd_server_quota_backend_bytes":                               {kind: "gauge"},
	"etcd_server_id":                                                {kind: "gauge", labels: "server_id"},
	"etcd_server_version":                                           {kind: "gauge", labels: "server_version"},
	"etcd_server_go_version":                                        {kind: "gauge", labels: "server_go_version"},
	"etcd_cluster_version":                                          {kind: "gauge", labels: "cluster_version"},
	"etcd_server_feature_enabled":                                   {kind: "gauge", labels: "name stage"},
	"etcd_server_client_requests_total":                             {kind: "counter", labels: "client_api_version type"},
	"etcd_server_request_duration_seconds":                          {"histogram", "success type", doubling(0.001, 14)},
	"etcd_server_range_duration_seconds":                            {"histogram", "success", doubling(0.0001, 20)},
	"etcd_server_apply_duration_seconds":                            {"histogram", "op success version", doubling(0.0001, 20)},
	"etcd_server_learner_promote_successes":                         {kind: "counter"},
	"etcd_server_learner_promote_failures":                          {kind: "counter", labels: "Reason"},
	"etcd_disk_wal_fsync_duration_seconds":                          {"histogram", "", doubling(0.001, 14)},
	"etcd_disk_wal_write_duration_seconds":                          {"histogram", "", doubling(0.001, 14)},
	"etcd_disk_wal_write_bytes_total":                               {kind: "gauge"},
	"etcd_disk_backend_commit_duration_seconds":                     {"histogram", "", doubling(0.001, 14)},
	"etcd_disk_backend_snapshot_duration_seconds":                   {"histogram", "", doubling(0.01, 17)},
	"etcd_disk_backend_defrag_duration_seconds":                     {"histogram", "", doubling(0.1, 13)},
	"etcd_disk_defrag_inflight":                                     {kind: "gauge"},
	"etcd_mvcc_db_total_size_in_bytes":                              {kind: "gauge"},
	"etcd_mvcc_db_total_size_in_use_in_bytes":                       {kind: "gauge"},
	"etcd_mvcc_db_open_read_transactions":                           {kind: "gauge"},
	"etcd_mvcc_put_total":                                           {kind: "counter"},
	"etcd_mvcc_delete_total":                                        {kind: "counter"},
	"etcd_mvcc_txn_total":                                           {kind: "counter"},
	"etcd_mvcc_range_total":                                         {kind: "counter"},
	"etcd_mvcc_hash_duration_seconds":                               {"histogram", "", doubling(0.01, 15)},
	"etcd_mvcc_hash_rev_duration_seconds":                           {"histogram", "", doubling(0.01, 15)},
	"etcd_debugging_mvcc_keys_total":                                {kind: "gauge"},
	"etcd_debugging_mvcc_current_revision":                          {kind: "gauge"},
	"etcd_debugging_mvcc_compact_revision":                          {kind: "gauge"},
	"etcd_debugging_mvcc_watcher_total":                             {kind: "gauge"},
	"etcd_debugging_mvcc_watch_stream_total":                        {kind: "gauge"},
	"etcd_debugging_mvcc_slow_watcher_total":                        {kind: "gauge"},
	"etcd_debugging_mvcc_events_total":                              {kind: "counter"},
	"etcd_debugging_mvcc_total_put_size_in_bytes":                   {kind: "gauge"},
	"etcd_debugging_mvcc_db_compaction_keys_total":                  {kind: "counter"},
	"etcd_debugging_mvcc_db_compaction_last":                        {kind: "gauge"},
	"etcd_debugging_mvcc_db_compaction_total_duration_milliseconds": {"histogram", "", doubling(100, 14)},
	"etcd_debugging_lease_granted_total":                            {kind: "counter"},
	"etcd_debugging_lease_revoked_total":                            {kind: "counter"},
	"etcd_debugging_lease_renewed_total":                            {kind: "counter"},
	"etcd_debugging_lease_ttl_total":                                {"histogram", "", doubling(1, 24)},
	"etcd_debugging_server_lease_expired_total":                     {kind: "counter"},
	"etcd_debugging_auth_revision":                                  {kind: "gauge"},
	"etcd_network_peer_sent_bytes_total":                            {kind: "counter", labels: "To"},
	"etcd_network_peer_received_bytes_total":                        {kind: "counter", labels: "From"},
	"etcd_network_peer_sent_failures_total":                         {kind: "counter", labels: "To"},
	"etcd_network_peer_received_failures_total":                     {kind: "counter", labels: "From"},
	"etcd_network_peer_round_trip_time_seconds":                     {"histogram", "To", doubling(0.0001, 16)},
	"etcd_network_active_peers":                                     {kind: "gauge", labels: "Local Remote"},
	"etcd_network_disconnected_peers_total":                         {kind: "counter", labels: "Local Remote"},
	"etcd_network_known_peers":                                      {kind: "gauge", labels: "Local"},
	"etcd_network_server_stream_failures_total":                     {kind: "counter", labels: "API Type"},
	"etcd_server_snapshot_apply_in_progress_total":                  {kind: "gauge"},
	"etcd_network_snapshot_send_inflights_total":                    {kind: "gauge", labels: "To"},
	"etcd_network_snapshot_send_success":                            {kind: "counter", labels: "To"},
	"etcd_network_snapshot_send_failures":                           {kind: "counter", labels: "To"},
	"etcd_network_snapshot_send_total_duration_seconds":             {"histogram", "To", doubling(0.1, 10)},
	"etcd_network_client_grpc_sent_bytes_total":                     {kind: "counter"},
	"etcd_network_client_grpc_received_bytes_total":                 {kind: "counter"},
	"os_fd_used":                     {kind: "gauge"},
	"os_fd_limit":                    {kind: "gauge"},
	"grpc_server_started_total":      {kind: "counter", labels: "grpc_method grpc_service grpc_type"},
	"grpc_server_msg_received_total": {kind: "counter", labels: "grpc_method grpc_service grpc_type"},
	"grpc_server_msg_sent_total":     {kind: "counter", labels: "grpc_method grpc_service grpc_type"},
	"grpc_server_handled_total":      {kind: "counter", labels: "grpc_code grpc_method grpc_service grpc_type"},
	"grpc_server_handling_seconds": {"histogram", "grpc_method grpc_service grpc_type",
		[]string{"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"}},
	"go_goroutines": {kind: "gauge"}, "process_resident_memory_bytes": {kind: "gauge"},
	"promhttp_metric_handler_requests_total": {kind: "counter", labels: "code"},
	"kvorum_build_info":                      {kind: "gauge", labels: "version"},
	"kvorum_alarm":                           {kind: "gauge", labels: "alarm"},
	"kvorum_store_disk_bytes":                {kind: "gauge"},
	"kvorum_store_memtable_bytes":            {kind: "gauge"},
	"kvorum_store_backlog_bytes":             {kind: "gauge"},
	"kvorum_peers_connected":                 {kind: "gauge"},
	"kvorum_peer_refusals_total":             {kind: "counter"},
}

// A leader under load shows every name of the list, in its shape, and has counted
// what was done.
func TestMetricsUnderLoad(t *testing.T) {
	tb := newTable(t, 2)
	tb.flags = []string{"--metrics", "extensive"}
	tb.start("new", tb.seats...)
	leader := tb.seats[0]
	tb.eventually("the first one leads", func(ctx context.Context) bool {
		_, _ = pb.NewMaintenanceClient(tb.seats[1].conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: leader.id()})
		return uint64(leader.group.Leader()) == leader.id()
	})
	work(t, leader.member)
	if _, err := pb.NewClusterClient(leader.conn).MemberPromote(t.Context(), &pb.MemberPromoteRequest{ID: 7}); err == nil {
		t.Error("a stranger was promoted")
	}
	got := scrape(t, leader.client)
	for name, want := range listed {
		f := got[name]
		if strings.HasPrefix(name, "etcd_network_snapshot_") {
			continue // TestASnapshotIsCounted
		}
		if f == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		labels := strings.Join(slices.Sorted(maps.Keys(f.labels)), " ")
		if f.kind != want.kind || labels != want.labels || !slices.Equal(f.buckets, want.buckets) {
			t.Errorf("%s is a %s of %q with buckets %v\nwant %s of %q with %v", name, f.kind, labels, f.buckets, want.kind, want.labels, want.buckets)
		}
	}
	for name := range got {
		if _, known := listed[name]; !known && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && !strings.HasPrefix(name, "promhttp_") {
			t.Errorf("%s is shown and not listed", name)
		}
	}
	counted(t, got)
	shipped(t, got)
}

// work does a little of everything.
func work(t *testing.T, m *member) {
	t.Helper()
	ctx, kv := t.Context(), pb.NewKVClient(m.conn)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w := openWatch(t, m)
	w.create(&pb.WatchCreateRequest{Key: []byte("k")})
	w.recv()
	for range 10 {
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("value")})
		must(err)
	}
	w.recv()
	_, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("t")}}},
		{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}},
		{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("d"), RangeEnd: []byte("e")}}},
	}})
	must(err)
	for range 5 {
		_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z")})
		must(err)
	}
	if _, err := kv.Put(ctx, &pb.PutRequest{}); err == nil {
		t.Error("a key that is empty")
	}
	_, err = kv.Compact(ctx, &pb.CompactionRequest{Revision: 9, Physical: true})
	must(err)
	lease, err := pb.NewLeaseClient(m.conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 100})
	must(err)
	_, err = pb.NewLeaseClient(m.conn).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease.ID})
	must(err)
	_, err = pb.NewMaintenanceClient(m.conn).HashKV(ctx, &pb.HashKVRequest{Revision: 10})
	must(err)
	for _, path := range []string{"/health", "/livez", "/readyz"} {
		resp, err := http.Get("http://" + m.client + path)
		must(err)
		resp.Body.Close()
	}
}

// counted compares values with what work has done. The leader's first round trip to
// its peer may still be on its way.
func counted(t *testing.T, got map[string]*family) {
	t.Helper()
	for series, want := range map[string]string{
		"etcd_server_has_leader": "1", "etcd_server_is_leader": "1", "etcd_server_is_learner": "0",
		"etcd_mvcc_put_total": "11", "etcd_mvcc_delete_total": "1", "etcd_mvcc_txn_total": "1",
		"etcd_debugging_mvcc_current_revision": "12", "etcd_debugging_mvcc_compact_revision": "9",
		"etcd_debugging_mvcc_total_put_size_in_bytes": "61", "etcd_debugging_mvcc_keys_total": "2",
		"etcd_debugging_mvcc_watcher_total": "1", "etcd_debugging_mvcc_watch_stream_total": "1",
		"etcd_debugging_lease_granted_total": "1", "etcd_debugging_lease_revoked_total": "1", "etcd_debugging_server_lease_expired_total": "0",
		"etcd_debugging_lease_ttl_total_sum": "100",
		"etcd_server_health_success":         "1", "etcd_server_health_failures": "0",
		`etcd_server_healthcheck{name="non_learner",type="readyz"}`:                                                                 "1",
		`etcd_server_healthchecks_total{name="serializable_read",status="success",type="livez"}`:                                    "1",
		"etcd_server_quota_backend_bytes":                                                                                           fmt.Sprintf("%.10g", float64(2<<30)),
		"etcd_mvcc_hash_rev_duration_seconds_count":                                                                                 "1",
		"etcd_debugging_auth_revision":                                                                                              "1",
		`etcd_cluster_version{cluster_version="3.7.0"}`:                                                                             "1",
		`etcd_server_version{server_version="3.7.1"}`:                                                                               "1",
		`etcd_server_feature_enabled{name="LeaseCheckpoint",stage="ALPHA"}`:                                                         "0",
		`etcd_server_learner_promote_failures{Reason="etcdserver: member not found"}`:                                               "1",
		`grpc_server_started_total{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}`:                             "11",
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}`:              "10",
		`grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}`: "1",
		`grpc_server_msg_sent_total{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"}`:                          "5",
		`grpc_server_handling_seconds_count{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"}`:                  "5",
		`etcd_server_range_duration_seconds_count{success="true"}`:                                                                  "5",
		`etcd_server_request_duration_seconds_count{success="false",type="Put"}`:                                                    "1",
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}`:   "0",
		`grpc_server_started_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}`:                  "1",
	} {
		name, _, _ := strings.Cut(series, "{")
		f := got[name]
		for _, suffix := range []string{"_sum", "_count"} {
			if f == nil {
				f = got[strings.TrimSuffix(name, suffix)]
			}
		}
		if f == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		value := f.values[series]
		if value != want && fmt.Sprint(value) != want {
			var v, w float64
			fmt.Sscan(value, &v)
			fmt.Sscan(want, &w)
			if value == "" || v != w {
				t.Errorf("%s is %q, want %s", series, value, want)
			}
		}
	}
	for _, name := range []string{
		"etcd_server_proposals_committed_total", "etcd_server_proposals_applied_total", "etcd_server_leader_changes_seen_total", "etcd_mvcc_range_total",
		"etcd_disk_wal_fsync_duration_seconds_count", "etcd_disk_wal_write_duration_seconds_count", "etcd_disk_wal_write_bytes_total",
		"etcd_disk_backend_commit_duration_seconds_count", "etcd_mvcc_db_total_size_in_bytes", "etcd_debugging_mvcc_events_total",
		"etcd_debugging_mvcc_db_compaction_last", "etcd_debugging_mvcc_db_compaction_keys_total",
		"etcd_network_client_grpc_sent_bytes_total", "etcd_network_client_grpc_received_bytes_total", "os_fd_used", "os_fd_limit",
		`etcd_server_apply_duration_seconds_count{op="Batch",success="true",version="v3"}`,
	} {
		plain, _, _ := strings.Cut(name, "{")
		f := got[strings.TrimSuffix(plain, "_count")]
		if f == nil {
			f = got[plain]
		}
		if f == nil || f.values[name] == "" || f.values[name] == "0" {
			t.Errorf("%s is nothing", name)
		}
	}
	for _, name := range []string{"etcd_network_peer_sent_bytes_total", "etcd_network_peer_received_bytes_total", "etcd_network_active_peers"} {
		some := false
		for _, value := range got[name].values {
			some = some || value != "0"
		}
		if !some {
			t.Errorf("%s: %v", name, got[name].values)
		}
	}
}

// A snapshot is counted by its way and by what became of it; one that arrives is shown
// as long as it does.
func TestASnapshotIsCounted(t *testing.T) {
	s := &Server{}
	web := httptest.NewServer(metrics.Handler(s.showSnapshots))
	defer web.Close()
	address := strings.TrimPrefix(web.URL, "http://")
	shown := func(name string) string {
		t.Helper()
		f := scrape(t, address)[name]
		if f == nil {
			return "nothing"
		}
		var all []string
		for _, series := range slices.Sorted(maps.Keys(f.values)) {
			all = append(all, strings.TrimPrefix(series, name)+" "+f.values[series])
		}
		return strings.Join(all, ", ")
	}
	note := func(member id.Member, sending bool, stage host.SnapshotStage) {
		s.tallies.snapshots.note(&host.SnapshotNews{Member: member, Sending: sending, Stage: stage, Took: time.Second})
	}
	expect := func(when string, want map[string]string) {
		t.Helper()
		for name, value := range want {
			if got := shown(name); got != value {
				t.Errorf("%s: %s is %q, want %q", when, name, got, value)
			}
		}
	}
	expect("at first", map[string]string{"etcd_server_snapshot_apply_in_progress_total": " 0", "etcd_network_snapshot_receive_success": "nothing"})
	note(1, false, host.SnapshotBegun)
	note(2, true, host.SnapshotBegun)
	expect("under way", map[string]string{"etcd_server_snapshot_apply_in_progress_total": " 1",
		"etcd_network_snapshot_receive_inflights_total": `{From="1"} 1`, "etcd_network_snapshot_send_inflights_total": `{To="2"} 1`})
	note(1, false, host.SnapshotComplete)
	note(2, true, host.SnapshotGivenUp)
	expect("at the end", map[string]string{"etcd_server_snapshot_apply_in_progress_total": " 0",
		"etcd_network_snapshot_receive_success": `{From="1"} 1`, "etcd_network_snapshot_send_failures": `{To="2"} 1`, "etcd_network_snapshot_send_success": `{To="2"} 0`})
}

// leftOut are names of etcd's that nothing here could feed (docs/guide/monitoring.md),
// by their beginning.
var leftOut = []string{
	"etcd_debugging_disk_backend_commit_", "etcd_debugging_mvcc_db_compaction_pause_", "etcd_debugging_mvcc_index_compaction_pause_",
	"etcd_debugging_mvcc_pending_events_total", "etcd_debugging_snap_", "etcd_debugging_store_",
	"etcd_grpc_proxy_", "etcd_snap_",
	// Names that etcd itself has dropped since 3.4.
	"etcd_debugging_mvcc_db_total_size_in_bytes", "etcd_debugging_mvcc_delete_total", "etcd_debugging_mvcc_put_total",
	"etcd_debugging_mvcc_range_total", "etcd_debugging_mvcc_txn_total",
}

// What Debian's etcd shows is shown here, in the same shape.
func TestMetricsAreThoseOfEtcd(t *testing.T) {
	binary, err := exec.LookPath("/usr/bin/etcd")
	if err != nil {
		t.Skip("no /usr/bin/etcd to compare with")
	}
	client, peer := ports.Reserve(t), ports.Reserve(t)
	cmd := exec.CommandContext(t.Context(), binary, "--data-dir", t.TempDir(), "--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer)
	cmd.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=arm64")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get("http://" + client + "/health"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				break
			}
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatal("it does not come up")
		}
	}
	want, got := scrape(t, client), scrape(t, startMember(t, t.TempDir()).client)
	for name, theirs := range want {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || slices.ContainsFunc(leftOut, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		ours := got[name]
		if ours == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		if ours.kind != theirs.kind || !maps.Equal(ours.labels, theirs.labels) || !slices.Equal(ours.buckets, theirs.buckets) {
			t.Errorf("%s: %s %v %v\netcd has %s %v %v", name, ours.kind, ours.labels, ours.buckets, theirs.kind, theirs.labels, theirs.buckets)
		}
	}
	for _, p := range leftOut {
		for name := range got {
			if strings.HasPrefix(name, p) {
				t.Errorf("%s is said to be left out", name)
			}
		}
	}
}
