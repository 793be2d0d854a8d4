// Package config turns a command line, an environment or a file into the
// configuration of one member. One table (table.go) holds every flag of etcd
// 3.7: its default, its kind, its help, and whether this program acts on it;
// flags, variables, keys of the file (file.go), warnings, the help text and the
// page docs/guide/configuration.md (page.go) all come from that table.
//
// The package is pure: it is handed the arguments, the environment and a
// function that reads a file, and touches neither the process nor the network.
// Texts and exit codes follow spec/server-ops.md section 1.
package config

import (
	"log/slog"
	"time"
)

// Config is what one member is told at its start. Parse fills it completely;
// a Config written by hand should begin with Default.
type Config struct {
	// File is the configuration file that all the rest was read from; empty if
	// flags and variables were asked.
	File string
	// Name is the member's human-readable name.
	Name string
	// DataDir is the member's directory; Parse derives "<name>.etcd" when the
	// flag is absent.
	DataDir string
	// WALDir is a separate directory for the log; empty means inside DataDir.
	WALDir string

	// HeartbeatInterval is the time between a leader's heartbeats; whole
	// milliseconds, above zero.
	HeartbeatInterval time.Duration
	// ElectionTimeout is the shortest time without a leader before an election;
	// whole milliseconds, at least 5 heartbeats, at most 50 s.
	ElectionTimeout time.Duration
	// InitialElectionTickAdvance: a member that is all of its cluster leads at once when
	// it starts, not after an election time-out.
	InitialElectionTickAdvance bool
	// PreVote: votes are asked for in advance, so that nobody is disturbed by a member
	// that could not win.
	PreVote bool
	// RaftReadTimeout and RaftWriteTimeout, above LeastRaftTimeout, are how long a
	// connection of a peer may be silent, and may take nothing of what is written to it.
	// Up to that it is ElectionTimeout.
	RaftReadTimeout, RaftWriteTimeout time.Duration
	// StrictReconfigCheck refuses membership changes that would lose quorum.
	StrictReconfigCheck bool
	// ForceNewCluster makes a member that has data the only one of its cluster.
	ForceNewCluster bool

	// ListenPeerURLs and ListenClientURLs are bound at start: hosts are
	// addresses or "localhost".
	ListenPeerURLs   URLs
	ListenClientURLs URLs
	// ListenClientHTTPURLs, when not empty, take HTTP away from
	// ListenClientURLs.
	ListenClientHTTPURLs URLs
	// ListenMetricsURLs serve metrics and health only.
	ListenMetricsURLs URLs
	// AdvertisePeerURLs and AdvertiseClientURLs are what others are told; hosts
	// may be names.
	AdvertisePeerURLs   URLs
	AdvertiseClientURLs URLs

	// InitialCluster is "name=url,name=url"; see InitialMembers. Parse derives
	// "<name>=http://localhost:2380" when the flag is absent.
	InitialCluster string
	// InitialClusterState is ClusterNew or ClusterExisting.
	InitialClusterState string
	// InitialClusterToken enters the hash that makes member and cluster ids.
	InitialClusterToken string

	// Discovery finds the members of a new cluster, instead of InitialCluster.
	Discovery Discovery

	// MaxLearners is how many learners the cluster may have.
	MaxLearners int

	// AutoCompactionMode says what AutoCompactionRetention counts; see Compaction.
	AutoCompactionMode, AutoCompactionRetention string

	// ClientTLS and PeerTLS are the files of the two ports.
	ClientTLS, PeerTLS TLS
	// SelfSignedYears is how long certificates made at start are valid.
	SelfSignedYears uint
	// CipherSuites, TLSMinVersion and TLSMaxVersion hold for both ports.
	CipherSuites                 []string
	TLSMinVersion, TLSMaxVersion string
	// SocketReusePort and SocketReuseAddress set SO_REUSEPORT and SO_REUSEADDR on
	// every listener.
	SocketReusePort, SocketReuseAddress bool
	// MemoryLock keeps the process's memory from being swapped out.
	MemoryLock bool
	// UnsafeNoSync never syncs to disk: a crash of the machine loses data.
	UnsafeNoSync bool

	// QuotaBackendBytes bounds the stored versions, in bytes: 0 is the default
	// (2 GiB), negative is no bound.
	QuotaBackendBytes int64
	// MaxTxnOps bounds the operations of one transaction.
	MaxTxnOps uint
	// MaxRequestBytes bounds one client request, in bytes.
	MaxRequestBytes uint
	// MaxConcurrentStreams bounds the open HTTP/2 streams of one client.
	MaxConcurrentStreams uint32
	// GRPCKeepAliveMinTime is the shortest allowed time between a client's pings.
	GRPCKeepAliveMinTime time.Duration
	// GRPCKeepAliveInterval is the time between the server's own pings.
	GRPCKeepAliveInterval time.Duration
	// GRPCKeepAliveTimeout is how long a ping may stay unanswered.
	GRPCKeepAliveTimeout time.Duration

	// CompactionBatchLimit is how many changes a step of a compaction looks at at most;
	// below 1 is the default. CompactionSleepInterval is the pause between two steps; at
	// DefaultCompactionSleep it is the member's own.
	CompactionBatchLimit    int
	CompactionSleepInterval time.Duration
	// BootstrapDefragMegabytes is how much disk space (in units of 1024 * 1024 bytes) a
	// start must find to be of no use to give it back before it serves; 0 is off.
	BootstrapDefragMegabytes uint

	// AuthToken is the kind of tokens: "simple", or "jwt" and its options.
	AuthToken string
	// AuthTokenTTL is how long a simple token lives after its last use, in seconds.
	AuthTokenTTL uint
	// BcryptCost is the cost of password hashes, 4 to 31; others stand for 10.
	BcryptCost uint

	// Gates are the features that are switched on or off by name.
	Gates Gates

	// EnablePprof serves run-time profiles beside /health; so does LogLevel debug.
	EnablePprof bool
	// Tracing sends traces of requests.
	Tracing Tracing

	// CORS lists the origins that browsers may call from, HostWhitelist the host
	// names that requests without TLS may ask for; "*" among them is any.
	CORS, HostWhitelist []string
	// EnableGRPCGateway serves the v3 calls as JSON, too.
	EnableGRPCGateway bool
	// Metrics is MetricsBasic or MetricsExtensive.
	Metrics string

	// Logger is the kind of structured logs; only "zap" exists, the name of the
	// line format.
	Logger string
	// LogLevel is one of debug, info, warn, error, dpanic, panic, fatal.
	LogLevel string
	// LogFormat is FormatJSON or FormatConsole.
	LogFormat string
	// LogOutputs are "default", "stderr", "stdout" or file paths; "default" is
	// standard error and stands alone.
	LogOutputs []string
	// EnableLogRotation rotates the one file of LogOutputs as LogRotation says, a
	// JSON object.
	EnableLogRotation bool
	LogRotation       string

	// WatchProgressInterval is the time between bookmarks for watches that ask for
	// them and have no events.
	WatchProgressInterval time.Duration
	// CorruptCheckTime is the time between comparisons of the members' data by the
	// leader; 0 is never.
	CorruptCheckTime time.Duration
	// CompactHashCheckTime is the time between comparisons of the hashes of
	// compactions, with the gate CompactHashCheck; above zero.
	CompactHashCheckTime time.Duration
	// DowngradeCheckTime is the time between the leader's looks whether a downgrade is
	// over; 0 is never.
	DowngradeCheckTime time.Duration
	// WarningApplyDuration is how long applying a request may take before a
	// warning is logged.
	WarningApplyDuration time.Duration
	// WarningUnaryRequestDuration is the same for a whole unary call.
	WarningUnaryRequestDuration time.Duration
}

// TLS names the files of one port; empty is clear text.
type TLS struct {
	CertFile, KeyFile             string
	ClientCertFile, ClientKeyFile string
	TrustedCAFile                 string
	// CRLFile lists revoked certificates of the other side.
	CRLFile string
	// ClientCertAuth demands certificates of those who connect.
	ClientCertAuth bool
	// AllowedCNs are the common names, AllowedHostnames the host names, of which a
	// certificate of the other side must carry one; at most one of the lists is given.
	AllowedCNs, AllowedHostnames []string
	// SkipSANCheck does not compare the certificates of those who connect with the
	// address that they come from.
	SkipSANCheck bool
	// Auto serves with a certificate made at start.
	Auto bool
}

// Discovery says where the members of a new cluster find each other: at a running
// cluster (Endpoints and Token) or in DNS (SRV).
type Discovery struct {
	Endpoints []string
	// Token is the word under which the members register.
	Token                                                        string
	DialTimeout, RequestTimeout, KeepAliveTime, KeepAliveTimeout time.Duration
	// InsecureTransport is clear text where no file is given.
	InsecureTransport, SkipVerify bool
	CertFile, KeyFile, CAFile     string
	// User is a name, or "name:password" when Password is empty.
	User, Password string
	// SRV is a domain, SRVName the suffix of the service in it.
	SRV, SRVName string
}

// Tracing says where traces of requests go (OpenTelemetry, by gRPC).
type Tracing struct {
	Enable  bool
	Address string
	// ServiceName is equal on all members, InstanceID different on each.
	ServiceName, InstanceID string
	// PerMillion is how many of a million requests are traced.
	PerMillion int
}

// LeastRaftTimeout is the lowest RaftReadTimeout and RaftWriteTimeout that count
// (spec/server-ops.md 1.2).
const LeastRaftTimeout = 5 * time.Second

// DefaultCompactionSleep is the default of Config.CompactionSleepInterval.
const DefaultCompactionSleep = 10 * time.Millisecond

// Values of Config.AutoCompactionMode.
const (
	CompactPeriodic = "periodic"
	CompactRevision = "revision"
)

// Values of Config.Metrics.
const (
	MetricsBasic     = "basic"
	MetricsExtensive = "extensive"
)

// Values of Config.InitialClusterState.
const (
	ClusterNew      = "new"
	ClusterExisting = "existing"
)

// Values of Config.LogFormat.
const (
	FormatJSON    = "json"
	FormatConsole = "console"
)

// Values among Config.LogOutputs, beside "stderr", "stdout" and paths.
const (
	// LogDefault stands for standard error.
	LogDefault = "default"
	// LogJournal is systemd's journal, with a priority for each line.
	LogJournal = "systemd/journal"
)

// Default returns the configuration of an empty command line in an empty
// environment.
func Default() Config {
	var c Config
	for i := range table {
		o := &table[i]
		if err := o.value(&c).Set(o.def); err != nil {
			panic("config: default of " + o.name + ": " + err.Error())
		}
	}
	c.derive()
	return c
}

// derive fills what follows from other fields.
func (c *Config) derive() {
	if c.DataDir == "" {
		c.DataDir = c.Name + ".etcd"
	}
	if c.InitialCluster == "" {
		c.InitialCluster = c.Name + "=" + defaultPeerURL
	}
}

// A Warning is something to log once the logger stands: a flag without effect,
// a variable that nobody knows, a variable that was used.
type Warning struct {
	Level slog.Level
	Msg   string
	Attrs []slog.Attr
}

// An Error ends the start of the program. Code is the exit code: 0 for help and
// version, 1 for an unusable configuration, 2 for a flag that cannot be parsed.
// Stdout and Stderr are to be written as they are; when both are empty, the
// error itself is what should be logged, with Attrs.
type Error struct {
	Code   int
	Stdout string
	Stderr string
	Attrs  []slog.Attr
	err    error
}

// Error is the one-line reason.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.err }
