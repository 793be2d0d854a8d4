// Package server is one member's services, a file each: kv.go, watch.go,
// cluster.go, maintenance.go. It says what a request means for this member (admission, what
// is replicated and what is read here) and knows nothing of gRPC: the doors above
// translate. Calls that go through the log are start and completion (rule 30).
package server

import (
	"context"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/watch"
)

// Options are what a Member is made of.
type Options struct {
	Member  id.Member
	Cluster id.Cluster
	Group   *host.Group
	State   *state.Machine
	Clock   env.Clock
	// Tasks runs what the member does beside its calls.
	Tasks env.Tasks
	// Timeout ends a replicated request or a linearizable read that nobody
	// answered: 5 s + 2 election time-outs (spec/v3-api.md 1.5).
	Timeout time.Duration
	// MaxRequestBytes limits an encoded command, MaxTxnOps each list of a txn.
	MaxRequestBytes, MaxTxnOps int
	// Quota bounds the count of rule 17, in bytes; 0 is no bound.
	Quota int64
	// BackPressure slows growth before the quota is reached, and lets the alarm end by
	// itself (pace.go).
	BackPressure bool
	// Disk, when set, tells how full the disks of this member are; SpaceNews is told what
	// KeepSpace notices. Errors of Disk: the file system's.
	Disk      func() (Disk, error)
	SpaceNews func(SpaceNews)
	// Reclaim, when set, gives disk space back, if that is worth it, and waits for it.
	// Errors: the context's, the store's.
	Reclaim func(context.Context) error
	// Compaction is what history is kept without anybody asking; CompactionNews is told
	// of it.
	Compaction     Compaction
	CompactionNews func(CompactionNews)
	// Peers are the connections to the other members.
	Peers Peers
	// StrictReconfig refuses changes of the membership that could cost the quorum;
	// MaxLearners is how many learners there may be.
	StrictReconfig bool
	MaxLearners    int
	// Rand draws the IDs of leases; several goroutines draw at once.
	Rand env.Rand
	// MinLeaseTTL is the least TTL of a lease, in seconds; LeaseGrace is what leases
	// are given on top of their TTL when this member begins to lead (spec 4).
	MinLeaseTTL int64
	LeaseGrace  time.Duration
	// LeaseCheckpoint is how often leases that last longer are checkpointed, so that
	// a change of the leader does not give them all of their time again; 0 is never.
	LeaseCheckpoint time.Duration
	// Auth is how callers are known.
	Auth AuthOptions
	// FS is the disk of the member, Saves a folder on it for what is there for a while.
	FS    env.FS
	Saves string
	// Rest, when set, has readers of history wait between slices of it (time.Sleep).
	Rest func(time.Duration)
	// FarBehind says how history is read for watches that are far behind; zero is the
	// usual. HistoryNews is told, once, why that is not done any more.
	FarBehind   watch.Far
	HistoryNews func(error)
	// ProgressInterval is the time between bookmarks for idle watches, at least 100 ms.
	ProgressInterval time.Duration
}

// Member is what the doors hold: the services of one member on one group.
type Member struct {
	// Session is that of nobody: who forgets to say who calls has no rights.
	Session
	opts           Options
	upgrade, raise duty
	leases         leases
	tokens         tokens
	reports        reports
	space          space
	pacer          pacer
	withdraw       duty
	compactor      *compactor
	hub            *watch.Hub
	measured       Measured
	backups        backups
}

// New makes the services of a member. It follows the leases and the tokens of the
// state, which nobody else may do.
func New(opts Options) *Member {
	m := &Member{opts: opts}
	m.hub = newHub(&opts, &m.space.spare)
	m.measured.init()
	m.Session = m.As(auth.Caller{})
	m.compactor = newCompactor(opts.Compaction, opts.Clock.Now())
	m.tokens.init(opts.State.FollowTokens(), opts.Auth.TokenTTL, opts.Clock.Now())
	m.leases.deadlines = newDeadlines(opts.State.FollowLeases(), opts.LeaseGrace, opts.Clock.Now())
	return m
}

// Header is what every answer says of the member that gives it. Revision is the
// call's own business.
type Header struct {
	Cluster id.Cluster
	Member  id.Member
	Term    id.Term
}

// Header looks at the member as of now.
func (m *Member) Header() Header {
	return Header{Cluster: m.opts.Cluster, Member: m.opts.Member, Term: m.opts.Group.Term()}
}

// HasLeader says whether a leader is known here.
func (m *Member) HasLeader() bool { return m.opts.Group.Leader() != 0 }

// Timeout is how long a call that was answered by nobody may take.
func (m *Member) Timeout() time.Duration { return m.opts.Timeout }

// Deadline is when a call that begins now ends at the latest.
func (m *Member) Deadline() env.Instant { return m.opts.Clock.Now().Add(m.opts.Timeout) }

// MaxRequestBytes is the largest command that is taken.
func (m *Member) MaxRequestBytes() int { return m.opts.MaxRequestBytes }
