package config

import (
	"strings"
	"time"
)

// group is a section of the help text.
type group string

const (
	member     group = "Member"
	clustering group = "Clustering"
	security   group = "Security"
	auth       group = "Auth"
	profiling  group = "Profiling and Monitoring"
	tracing    group = "Tracing"
	logging    group = "Logging"
	checks     group = "Checks and limits"
)

// groups in the order of the help text.
var groups = []group{member, clustering, security, auth, profiling, tracing, logging, checks}

// state says what a flag does in this version.
type state uint8

const (
	// ready: the flag has its effect.
	ready state = iota
	// accepted: what the flag tunes in etcd is not there to be tuned, and notes says
	// why: in the help, on the page, and in the log when it is given a value other than
	// its default (decision 0038). The value is checked.
	accepted
	// obsolete: etcd itself keeps the flag only for old command lines; giving
	// it warns.
	obsolete
	// source: the flag says where all others come from.
	source
	// silent: accepted from ancient command lines without a word; no help.
	silent
)

// option is one row: a flag, and by its name the variable and the file key.
type option struct {
	name  string
	def   string
	in    group
	state state
	value binding
	help  string
}

// variable is the name of the option's environment variable.
func (o *option) variable() string {
	return "ETCD_" + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))
}

// standard is the default as String says it.
func (o *option) standard() string {
	v := o.value(&Config{})
	if err := v.Set(o.def); err != nil {
		panic("config: default of " + o.name + ": " + err.Error())
	}
	return v.String()
}

// secret reports whether the option's value must not be logged.
func (o *option) secret() bool {
	return strings.Contains(o.name, "password") || o.name == "discovery-user" // which may have one behind a colon
}

const (
	defaultPeerURL   = "http://localhost:2380"
	defaultClientURL = "http://localhost:2379"
)

// table is every flag of etcd 3.7, in the order of the help text. It is read only.
var table = []option{
	{"name", "default", member, ready, bind(parseText, func(c *Config) *string { return &c.Name }),
		"The name that people know this member by."},
	{"data-dir", "", member, ready, bind(parseText, func(c *Config) *string { return &c.DataDir }),
		"Directory of all data of this member; ${name}.etcd when empty."},
	{"wal-dir", "", member, ready, bind(parseText, func(c *Config) *string { return &c.WALDir }),
		"Directory of the write-ahead log, when it should not be inside the data directory."},
	{"snapshot-count", "10000", member, accepted, anyUint,
		"Committed entries between two snapshots to disk."},
	{"snapshot-catchup-entries", "5000", member, accepted, anyUint,
		"Log entries kept behind a snapshot for slow followers."},
	{"heartbeat-interval", "100", member, ready, bind(parseMillis, func(c *Config) *time.Duration { return &c.HeartbeatInterval }),
		"Milliseconds between heartbeats of a leader."},
	{"election-timeout", "1000", member, ready, bind(parseMillis, func(c *Config) *time.Duration { return &c.ElectionTimeout }),
		"Milliseconds without a leader before an election; equal on all members."},
	{"initial-election-tick-advance", "true", member, ready, bindBool(func(c *Config) *bool { return &c.InitialElectionTickAdvance }),
		"Shorten the wait for the first election after a start."},
	{"listen-peer-urls", defaultPeerURL, member, ready, bind(ParseURLs, func(c *Config) *URLs { return &c.ListenPeerURLs }),
		"URLs on which other members are served."},
	{"listen-client-urls", defaultClientURL, member, ready, bind(ParseURLs, func(c *Config) *URLs { return &c.ListenClientURLs }),
		"URLs on which clients are served: gRPC, and HTTP unless --listen-client-http-urls is given."},
	{"listen-client-http-urls", "", member, ready, bind(parseOptionalURLs, func(c *Config) *URLs { return &c.ListenClientHTTPURLs }),
		"URLs for HTTP alone; gRPC stays on --listen-client-urls."},
	{"listen-metrics-urls", "", member, ready, bind(parseOptionalURLs, func(c *Config) *URLs { return &c.ListenMetricsURLs }),
		"Additional URLs that serve metrics and health only."},
	{"max-snapshots", "5", member, obsolete, anyUint,
		"Snapshot files kept. Without effect; goes away in 3.8."},
	{"max-wals", "5", member, accepted, anyUint,
		"Log files kept; 0 is no bound."},
	{"quota-backend-bytes", "0", member, ready, bind(parseInt[int64], func(c *Config) *int64 { return &c.QuotaBackendBytes }),
		"Space quota in bytes; 0 is 2 GiB, negative is none."},
	{"backend-bbolt-freelist-type", "map", member, accepted, anyOf("map", "array"),
		"Free list of etcd's database file: map or array."},
	{"backend-batch-interval", "0s", member, accepted, anyDuration,
		"Longest time before a batch is committed to the store."},
	{"backend-batch-limit", "0", member, accepted, anyInt,
		"Most operations before a batch is committed to the store."},
	{"max-txn-ops", "128", member, ready, bind(parseUint[uint], func(c *Config) *uint { return &c.MaxTxnOps }),
		"Most operations in one transaction."},
	{"max-request-bytes", "1572864", member, ready, bind(parseUint[uint], func(c *Config) *uint { return &c.MaxRequestBytes }),
		"Largest client request in bytes."},
	{"max-concurrent-streams", "4294967295", member, ready, bind(parseUint[uint32], func(c *Config) *uint32 { return &c.MaxConcurrentStreams }),
		"Most open HTTP/2 streams of one client."},
	{"grpc-keepalive-min-time", "5s", member, ready, bindDuration(func(c *Config) *time.Duration { return &c.GRPCKeepAliveMinTime }),
		"Shortest time that a client must leave between pings."},
	{"grpc-keepalive-interval", "2h0m0s", member, ready, bindDuration(func(c *Config) *time.Duration { return &c.GRPCKeepAliveInterval }),
		"Time between the server's pings of a silent client; 0 is never."},
	{"grpc-keepalive-timeout", "20s", member, ready, bindDuration(func(c *Config) *time.Duration { return &c.GRPCKeepAliveTimeout }),
		"How long a ping may stay unanswered before the connection is closed; 0 is no bound."},
	{"socket-reuse-port", "false", member, ready, bindBool(func(c *Config) *bool { return &c.SocketReusePort }),
		"Let several processes bind the same port."},
	{"socket-reuse-address", "false", member, ready, bindBool(func(c *Config) *bool { return &c.SocketReuseAddress }),
		"Bind addresses whose connections are still closing."},
	{"raft-read-timeout", "5s", member, ready, bindDuration(func(c *Config) *time.Duration { return &c.RaftReadTimeout }),
		"How long a peer's connection may be silent, above 5s; else an election time-out."},
	{"raft-write-timeout", "5s", member, ready, bindDuration(func(c *Config) *time.Duration { return &c.RaftWriteTimeout }),
		"How long a peer may take nothing of what is written to it, above 5s; else an election time-out."},
	{"memory-mlock", "false", member, ready, bindBool(func(c *Config) *bool { return &c.MemoryLock }),
		"Keep the process's memory from being swapped out."},
	{"feature-gates", "", member, ready, bind(parseGates, func(c *Config) *Gates { return &c.Gates }),
		"Gates as Name=true|false pairs, separated by commas."},

	{"initial-advertise-peer-urls", defaultPeerURL, clustering, ready, bind(ParseURLs, func(c *Config) *URLs { return &c.AdvertisePeerURLs }),
		"Peer URLs of this member that the other members are told."},
	{"advertise-client-urls", defaultClientURL, clustering, ready, bind(ParseURLs, func(c *Config) *URLs { return &c.AdvertiseClientURLs }),
		"Client URLs of this member that everybody is told; needed whenever --listen-client-urls is given."},
	{"initial-cluster", "", clustering, ready, bind(parseText, func(c *Config) *string { return &c.InitialCluster }),
		"Members of a new cluster as name=url pairs, separated by commas; ${name}=" + defaultPeerURL + " when empty."},
	{"initial-cluster-state", ClusterNew, clustering, ready, bind(oneOf(ClusterNew, ClusterExisting), func(c *Config) *string { return &c.InitialClusterState }),
		"new to form a cluster, existing to join one."},
	{"initial-cluster-token", "etcd-cluster", clustering, ready, bind(parseText, func(c *Config) *string { return &c.InitialClusterToken }),
		"A word that keeps clusters of one network apart."},
	{"discovery-endpoints", "", clustering, ready, bind(parseNames, func(c *Config) *[]string { return &c.Discovery.Endpoints }),
		"Endpoints of a cluster that helps this one to find its members."},
	{"discovery-token", "", clustering, ready, bind(parseText, func(c *Config) *string { return &c.Discovery.Token }),
		"The word under which the members find each other there."},
	{"discovery-dial-timeout", "2s", clustering, ready, bindDuration(func(c *Config) *time.Duration { return &c.Discovery.DialTimeout }),
		"Time-out of a connection to the discovery cluster."},
	{"discovery-request-timeout", "5s", clustering, ready, bindDuration(func(c *Config) *time.Duration { return &c.Discovery.RequestTimeout }),
		"Time-out of a request to the discovery cluster."},
	{"discovery-keepalive-time", "2s", clustering, ready, bindDuration(func(c *Config) *time.Duration { return &c.Discovery.KeepAliveTime }),
		"Time between pings of the discovery cluster."},
	{"discovery-keepalive-timeout", "6s", clustering, ready, bindDuration(func(c *Config) *time.Duration { return &c.Discovery.KeepAliveTimeout }),
		"How long such a ping may stay unanswered."},
	{"discovery-insecure-transport", "true", clustering, ready, bindBool(func(c *Config) *bool { return &c.Discovery.InsecureTransport }),
		"Talk to the discovery cluster in clear text."},
	{"discovery-insecure-skip-tls-verify", "false", clustering, ready, bindBool(func(c *Config) *bool { return &c.Discovery.SkipVerify }),
		"Do not check the discovery cluster's certificate."},
	{"discovery-cert", "", clustering, ready, bind(parseText, func(c *Config) *string { return &c.Discovery.CertFile }),
		"Client certificate file for the discovery cluster."},
	{"discovery-key", "", clustering, ready, bind(parseText, func(c *Config) *string { return &c.Discovery.KeyFile }),
		"Client key file for the discovery cluster."},
	{"discovery-cacert", "", clustering, ready, bind(parseText, func(c *Config) *string { return &c.Discovery.CAFile }),
		"CA file that the discovery cluster's certificate is checked with."},
	{"discovery-user", "", clustering, ready, bind(parseText, func(c *Config) *string { return &c.Discovery.User }),
		"name[:password] at the discovery cluster."},
	{"discovery-password", "", clustering, ready, bind(parseText, func(c *Config) *string { return &c.Discovery.Password }),
		"Password at the discovery cluster."},
	{"discovery-srv", "", clustering, ready, bind(parseText, func(c *Config) *string { return &c.Discovery.SRV }),
		"Domain whose SRV records list the members."},
	{"discovery-srv-name", "", clustering, ready, bind(parseText, func(c *Config) *string { return &c.Discovery.SRVName }),
		"Suffix of the service name in those SRV records."},
	{"discovery-fallback", "exit", clustering, ready, anyOf("exit"),
		"What to do when discovery fails: exit, and nothing else."},
	{"strict-reconfig-check", "true", clustering, ready, bindBool(func(c *Config) *bool { return &c.StrictReconfigCheck }),
		"Refuse membership changes that would cost the quorum."},
	{"pre-vote", "true", clustering, ready, bindBool(func(c *Config) *bool { return &c.PreVote }),
		"Ask for votes in advance, so that a returning member disturbs nobody."},
	{"auto-compaction-mode", "periodic", clustering, ready, bind(parseText, func(c *Config) *string { return &c.AutoCompactionMode }),
		"What --auto-compaction-retention counts: periodic (time) or revision."},
	{"auto-compaction-retention", "0", clustering, ready, bind(parseText, func(c *Config) *string { return &c.AutoCompactionRetention }),
		"History kept by automatic compaction: hours, a time like 30m, or revisions; 0 is off."},
	{"max-learners", "1", clustering, ready, bind(parseInt[int], func(c *Config) *int { return &c.MaxLearners }),
		"Most learners in the cluster."},
	{"force-new-cluster", "false", clustering, ready, bindBool(func(c *Config) *bool { return &c.ForceNewCluster }),
		"Restart one member as a cluster of one."},
	{"v2-deprecation", "write-only", clustering, obsolete, anyOf("write-only", "write-only-skip-check", "write-only-drop-data", "gone"),
		"Phase of the removal of the v2 store. Without effect; goes away in 3.8."},

	{"cert-file", "", security, ready, bind(parseText, func(c *Config) *string { return &c.ClientTLS.CertFile }),
		"Server certificate file for clients."},
	{"key-file", "", security, ready, bind(parseText, func(c *Config) *string { return &c.ClientTLS.KeyFile }),
		"Server key file for clients."},
	{"client-cert-file", "", security, ready, bind(parseText, func(c *Config) *string { return &c.ClientTLS.ClientCertFile }),
		"Client certificate file, when it is not --cert-file: checked at start, with its key."},
	{"client-key-file", "", security, ready, bind(parseText, func(c *Config) *string { return &c.ClientTLS.ClientKeyFile }),
		"Client key file, when it is not --key-file: checked at start, with its certificate."},
	{"client-cert-auth", "false", security, ready, bindBool(func(c *Config) *bool { return &c.ClientTLS.ClientCertAuth }),
		"Demand certificates of clients."},
	{"client-crl-file", "", security, ready, bind(parseText, func(c *Config) *string { return &c.ClientTLS.CRLFile }),
		"File of revoked client certificates."},
	{"client-cert-allowed-hostname", "", security, ready, bind(parseList, func(c *Config) *[]string { return &c.ClientTLS.AllowedHostnames }),
		"Host name that a client certificate must carry."},
	{"trusted-ca-file", "", security, ready, bind(parseText, func(c *Config) *string { return &c.ClientTLS.TrustedCAFile }),
		"CA file that client certificates are checked with."},
	{"auto-tls", "false", security, ready, bindBool(func(c *Config) *bool { return &c.ClientTLS.Auto }),
		"Serve clients with a certificate made at start."},
	{"peer-cert-file", "", security, ready, bind(parseText, func(c *Config) *string { return &c.PeerTLS.CertFile }),
		"Certificate file for peers."},
	{"peer-key-file", "", security, ready, bind(parseText, func(c *Config) *string { return &c.PeerTLS.KeyFile }),
		"Key file for peers."},
	{"peer-client-cert-file", "", security, ready, bind(parseText, func(c *Config) *string { return &c.PeerTLS.ClientCertFile }),
		"Certificate file towards peers, when it is not --peer-cert-file."},
	{"peer-client-key-file", "", security, ready, bind(parseText, func(c *Config) *string { return &c.PeerTLS.ClientKeyFile }),
		"Key file towards peers, when it is not --peer-key-file."},
	{"peer-client-cert-auth", "false", security, ready, bindBool(func(c *Config) *bool { return &c.PeerTLS.ClientCertAuth }),
		"Demand certificates of peers."},
	{"peer-trusted-ca-file", "", security, ready, bind(parseText, func(c *Config) *string { return &c.PeerTLS.TrustedCAFile }),
		"CA file that peer certificates are checked with."},
	{"peer-auto-tls", "false", security, ready, bindBool(func(c *Config) *bool { return &c.PeerTLS.Auto }),
		"Serve peers with a certificate made at start."},
	{"peer-crl-file", "", security, ready, bind(parseText, func(c *Config) *string { return &c.PeerTLS.CRLFile }), "File of revoked peer certificates."},
	{"peer-cert-allowed-cn", "", security, ready, bind(parseList, func(c *Config) *[]string { return &c.PeerTLS.AllowedCNs }),
		"Common name that a peer certificate must carry."},
	{"peer-cert-allowed-hostname", "", security, ready, bind(parseList, func(c *Config) *[]string { return &c.PeerTLS.AllowedHostnames }),
		"Host name that a peer certificate must carry."},
	{"peer-skip-client-san-verification", "false", security, ready, bindBool(func(c *Config) *bool { return &c.PeerTLS.SkipSANCheck }),
		"Do not compare peer certificates with addresses."},
	{"self-signed-cert-validity", "1", security, ready, bind(parseUint[uint], func(c *Config) *uint { return &c.SelfSignedYears }),
		"Years that certificates made at start are valid."},
	{"cipher-suites", "", security, ready, bind(parseNames, func(c *Config) *[]string { return &c.CipherSuites }),
		"TLS cipher suites, separated by commas; empty is Go's choice."},
	{"tls-min-version", "TLS1.2", security, ready, bind(parseText, func(c *Config) *string { return &c.TLSMinVersion }),
		"Lowest TLS version."},
	{"tls-max-version", "", security, ready, bind(parseText, func(c *Config) *string { return &c.TLSMaxVersion }),
		"Highest TLS version; empty is Go's choice."},
	{"cors", "*", security, ready, bind(parseOrigins, func(c *Config) *[]string { return &c.CORS }),
		"Origins that browsers may call from, separated by commas."},
	{"host-whitelist", "*", security, ready, bind(parseList, func(c *Config) *[]string { return &c.HostWhitelist }),
		"Host names that plain HTTP requests may ask for."},

	{"auth-token", "simple", auth, ready, bind(parseText, func(c *Config) *string { return &c.AuthToken }),
		"Kind of tokens: simple, or jwt with its options."},
	{"bcrypt-cost", "10", auth, ready, bind(parseUint[uint], func(c *Config) *uint { return &c.BcryptCost }),
		"Cost of password hashes, 4 to 31."},
	{"auth-token-ttl", "300", auth, ready, bind(parseUint[uint], func(c *Config) *uint { return &c.AuthTokenTTL }),
		"Seconds that a simple token lives."},

	{"enable-pprof", "false", profiling, ready, bindBool(func(c *Config) *bool { return &c.EnablePprof }),
		"Serve run-time profiles under /debug/pprof/."},
	{"metrics", MetricsBasic, profiling, ready, bind(parseText, func(c *Config) *string { return &c.Metrics }), "How much is measured: basic or extensive."},

	{"enable-distributed-tracing", "false", tracing, ready, bindBool(func(c *Config) *bool { return &c.Tracing.Enable }), "Send traces of requests."},
	{"distributed-tracing-address", "localhost:4317", tracing, ready, bind(parseText, func(c *Config) *string { return &c.Tracing.Address }),
		"Address of the trace collector."},
	{"distributed-tracing-service-name", "etcd", tracing, ready, bind(parseText, func(c *Config) *string { return &c.Tracing.ServiceName }),
		"Service name in traces; equal on all members."},
	{"distributed-tracing-instance-id", "", tracing, ready, bind(parseText, func(c *Config) *string { return &c.Tracing.InstanceID }),
		"Instance name in traces; different on each member."},
	{"distributed-tracing-sampling-rate", "0", tracing, ready, bind(parseInt[int], func(c *Config) *int { return &c.Tracing.PerMillion }),
		"Requests traced of each million."},

	{"logger", "zap", logging, ready, bind(parseText, func(c *Config) *string { return &c.Logger }), "Kind of structured logs: zap."},
	{"log-outputs", LogDefault, logging, ready, bind(parseList, func(c *Config) *[]string { return &c.LogOutputs }),
		"Where logs go: default (standard error), stderr, stdout, systemd/journal, or file paths, separated by commas."},
	{"log-level", "info", logging, ready, bind(parseText, func(c *Config) *string { return &c.LogLevel }),
		"Lowest level that is logged: debug, info, warn, error, panic or fatal."},
	{"log-format", FormatJSON, logging, ready, bind(parseText, func(c *Config) *string { return &c.LogFormat }),
		"json or console."},
	{"enable-log-rotation", "false", logging, ready, bindBool(func(c *Config) *bool { return &c.EnableLogRotation }),
		"Rotate the one file of --log-outputs."},
	{"log-rotation-config-json", `{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}`, logging, ready, bind(parseText, func(c *Config) *string { return &c.LogRotation }),
		"How it is rotated: sizes in MB, ages in days, 0 is no bound."},

	{"corrupt-check-time", "0s", checks, ready, bindDuration(func(c *Config) *time.Duration { return &c.CorruptCheckTime }),
		"Time between comparisons of all members' data; 0 is off."},
	{"compact-hash-check-time", "1m0s", checks, ready, bindDuration(func(c *Config) *time.Duration { return &c.CompactHashCheckTime }),
		"Time between comparisons of compaction hashes."},
	{"compaction-batch-limit", "1000", checks, ready, bind(parseInt[int], func(c *Config) *int { return &c.CompactionBatchLimit }),
		"Most changes that one step of a compaction looks at."},
	{"compaction-sleep-interval", "10ms", checks, ready, bindDuration(func(c *Config) *time.Duration { return &c.CompactionSleepInterval }),
		"Pause between two such steps; at its default 16ms, longer while the disk is behind."},
	{"watch-progress-notify-interval", "10m0s", checks, ready, bindDuration(func(c *Config) *time.Duration { return &c.WatchProgressInterval }),
		"Time between progress notifications of idle watches."},
	{"downgrade-check-time", "5s", checks, ready, bindDuration(func(c *Config) *time.Duration { return &c.DowngradeCheckTime }),
		"Time between looks whether a downgrade is over; 0 is never."},
	{"warning-apply-duration", "100ms", checks, ready, bindDuration(func(c *Config) *time.Duration { return &c.WarningApplyDuration }),
		"How long applying a request may take before a warning."},
	{"warning-unary-request-duration", "300ms", checks, ready, bindDuration(func(c *Config) *time.Duration { return &c.WarningUnaryRequestDuration }),
		"How long a unary call may take before a warning."},
	{"bootstrap-defrag-threshold-megabytes", "0", checks, ready, bind(parseUint[uint], func(c *Config) *uint { return &c.BootstrapDefragMegabytes }),
		"Reclaimable megabytes that make a start defragment first; 0 is off."},
	{"enable-grpc-gateway", "true", checks, ready, bindBool(func(c *Config) *bool { return &c.EnableGRPCGateway }), "Serve the JSON gateway."},
	{"unsafe-no-fsync", "false", checks, ready, bindBool(func(c *Config) *bool { return &c.UnsafeNoSync }), "Never sync to disk. Loses data."},

	{"config-file", "", "", source, bind(parseText, func(c *Config) *string { return &c.File }),
		"YAML or JSON file that has the values of all other flags; whatever else flags and variables say is ignored then."},

	{"cluster-active-size", "", "", silent, ignored, ""},
	{"cluster-remove-delay", "", "", silent, ignored, ""},
	{"cluster-sync-interval", "", "", silent, ignored, ""},
	{"config", "", "", silent, ignored, ""},
	{"force", "", "", silent, ignored, ""},
	{"max-result-buffer", "", "", silent, ignored, ""},
	{"max-retry-attempts", "", "", silent, ignored, ""},
	{"peer-heartbeat-interval", "", "", silent, ignored, ""},
	{"peer-election-timeout", "", "", silent, ignored, ""},
	{"retry-interval", "", "", silent, ignored, ""},
	{"snapshot", "", "", silent, ignored, ""},
	{"v", "", "", silent, ignored, ""},
	{"vv", "", "", silent, ignored, ""},
}
