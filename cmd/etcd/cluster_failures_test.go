package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvorum/kvorum/embed"
	"github.com/kvorum/kvorum/internal/cli/ctl"
	"github.com/kvorum/kvorum/internal/testkit/cluster"
)

// Real clusters under the load of the official Go client, and what happens to
// machines. Each history is judged, and so is every error that a client saw; the
// figures are logged. How long a pause may be is a question to a quiet machine:
// -cluster.strict asks it.

var (
	clusterRounds = flag.Int("cluster.rounds", 1, "rounds of every failure of a cluster")
	clusterStrict = flag.Bool("cluster.strict", false, "hold the pauses of a cluster to their targets, one failure at a time")
)

// programs are what the test binary is under these names.
var programs = map[string]func() int{
	"etcd": func() int { return embed.MainIn(cluster.World(), os.Args[1:], os.Environ()) },
	"etcdctl": func() int {
		return ctl.Main(context.Background(), ctl.Process{
			Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		}, os.Args[1:])
	},
}

// election is the default of --election-timeout, in which the targets are told.
const election = time.Second

// generous is how long a pause may be on a machine that has other things to do.
const generous = 10 * time.Second

func newCluster(t *testing.T, size int, flags ...string) *cluster.Cluster {
	t.Helper()
	if !*clusterStrict {
		t.Parallel()
	}
	return cluster.New(t, cluster.Options{
		Etcd: cluster.Self(t, "etcd"), Etcdctl: cluster.Self(t, "etcdctl"), Size: size, Flags: flags,
	})
}

// What a call may end with whose member died, or cannot reach the others: nobody
// can say whether it was done.
var (
	died    = []string{"error reading from server", "connection reset", "connection refused", "broken pipe", "connection closed"}
	deposed = []string{"etcdserver: request timed out, possibly due to previous leader failure", "etcdserver: no leader"}
	cutOff  = append([]string{"etcdserver: request timed out", "context deadline exceeded"}, deposed...)
)

// failure is one story: what is done to the leader under load, and how it is
// made good again.
type failure struct {
	strike func(c *cluster.Cluster, leader *cluster.Member, load *cluster.Load)
	mend   func(c *cluster.Cluster, leader *cluster.Member)
	// gap is the target of the longest time that passes without a write, client
	// that of a single writer; 0 is any.
	gap, client time.Duration
	// errors are parts of the texts with which calls may fail, at most perWorker of
	// each client; none: no call may fail.
	errors    []string
	perWorker int
	// timeout is how long a client waits for an answer.
	timeout time.Duration
	// stays is whether the leader does.
	stays bool
}

// rounds plays a failure again and again on one cluster of three.
func (f failure) rounds(t *testing.T) {
	c := newCluster(t, 3)
	c.Start(c.Members...)
	var worst, worstClient time.Duration
	failed := 0
	for round := range *clusterRounds {
		seen := f.round(t, c, round)
		worst, worstClient, failed = max(worst, seen.Gap), max(worstClient, seen.WorstClient), failed+len(seen.Failed)
	}
	t.Logf("%d rounds: worst gap %v, worst client %v, %d calls failed", *clusterRounds, worst, worstClient, failed)
}

func (f failure) round(t *testing.T, c *cluster.Cluster, round int) *cluster.Seen {
	const writers, readers = 9, 6
	leader := c.Leader()
	term := leader.Term()
	load := c.StartLoad(cluster.LoadOptions{
		Prefix: fmt.Sprintf("round%d", round), Writers: writers, Readers: readers, Keys: 12, Pace: 4 * time.Millisecond,
		Timeout: cmp.Or(f.timeout, 15*time.Second),
	})
	load.AwaitWrites(20)
	f.strike(c, leader, load)
	f.mend(c, leader)
	load.AwaitWrites(20)
	seen := load.Stop()
	t.Logf("round %d: %v", round+1, seen)
	if now := c.Leader(); (now.Term() == term) != f.stays {
		t.Errorf("round %d: the term was %d, is %d, and the leader is %s after %s", round+1, term, now.Term(), now.Name, leader.Name)
	}
	if err := seen.Check(); err != nil {
		t.Fatal(err)
	}
	gap, client := f.gap, f.client
	if !*clusterStrict {
		gap, client = generous, 0
	}
	if gap != 0 && seen.Gap > gap {
		t.Errorf("round %d: no write for %v, want at most %v", round+1, seen.Gap, gap)
	}
	if client != 0 && seen.WorstClient > client {
		t.Errorf("round %d: a writer waited for %v, want at most %v", round+1, seen.WorstClient, client)
	}
	if len(seen.Failed) > f.perWorker*(writers+readers) {
		t.Errorf("round %d: %d calls failed, want at most %d for a client", round+1, len(seen.Failed), f.perWorker)
	}
	for _, text := range seen.Failed {
		if !slices.ContainsFunc(f.errors, func(part string) bool { return strings.Contains(text, part) }) {
			t.Errorf("round %d: failed: %s", round+1, text)
		}
	}
	return seen
}

func restart(c *cluster.Cluster, m *cluster.Member) {
	c.Start(m)
	m.AwaitCaughtUp(c.Leader())
}

// The others go on at once; only calls that were made to the dead one fail.
func TestKillNineOfTheLeader(t *testing.T) {
	failure{
		strike: func(_ *cluster.Cluster, leader *cluster.Member, load *cluster.Load) {
			leader.Kill()
			load.AwaitWrites(20)
		},
		mend: restart, gap: 3 * election / 2, client: 3 * election / 2, errors: died, perWorker: 1,
	}.rounds(t)
}

func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("one failure is enough for a short run")
	}
}

func TestSIGTERMOfTheLeader(t *testing.T) {
	skipShort(t)
	failure{
		strike: func(_ *cluster.Cluster, leader *cluster.Member, load *cluster.Load) {
			leader.Terminate()
			load.AwaitWrites(20)
		},
		mend: restart, gap: 150 * time.Millisecond,
	}.rounds(t)
}

// A leader that freezes comes back to a cluster that has gone on without it. Its
// connections stay open, so that a client's calls wait there for as long as the
// client lets them.
func TestAFrozenLeader(t *testing.T) {
	skipShort(t)
	failure{
		strike: func(c *cluster.Cluster, leader *cluster.Member, _ *cluster.Load) {
			leader.Signal(syscall.SIGSTOP)
			time.Sleep(3 * time.Second) // the length of the freeze is the story
			leader.Signal(syscall.SIGCONT)
		},
		mend: func(c *cluster.Cluster, leader *cluster.Member) { leader.AwaitCaughtUp(c.Leader()) },
		gap:  5 * election / 2, errors: cutOff, perWorker: 10, timeout: election,
	}.rounds(t)
}

// Nothing reaches the leader any more, though it reaches the others.
func TestALeaderThatHearsNothing(t *testing.T) {
	skipShort(t)
	partition(t, func(c *cluster.Cluster, leader *cluster.Member) { c.Link(nil, leader, cluster.Rule{Blackhole: true}) })
}

// Nothing that the leader says arrives, though it hears the others.
func TestALeaderThatNobodyHears(t *testing.T) {
	skipShort(t)
	partition(t, func(c *cluster.Cluster, leader *cluster.Member) { c.Link(leader, nil, cluster.Rule{Blackhole: true}) })
}

// partition lasts until the others have written for a while. Clients do not know of
// it: one call in three goes to the member that is cut off, and waits in vain.
func partition(t *testing.T, cut func(c *cluster.Cluster, leader *cluster.Member)) {
	failure{
		strike: func(c *cluster.Cluster, leader *cluster.Member, load *cluster.Load) {
			cut(c, leader)
			c.LeaderOf(c.Others(leader)...)
			load.AwaitAny(30)
		},
		mend: func(c *cluster.Cluster, leader *cluster.Member) {
			c.Link(nil, nil, cluster.Rule{})
			leader.AwaitCaughtUp(c.Leader())
		},
		gap: 4 * election, errors: cutOff, perWorker: 10, timeout: election,
	}.rounds(t)
}

func TestAFollowerIsRestarted(t *testing.T) {
	skipShort(t)
	follower := func(c *cluster.Cluster, leader *cluster.Member) *cluster.Member {
		return c.Others(leader)[0]
	}
	failure{
		strike: func(c *cluster.Cluster, leader *cluster.Member, load *cluster.Load) {
			follower(c, leader).Terminate()
			load.AwaitWrites(20)
		},
		mend: func(c *cluster.Cluster, leader *cluster.Member) { restart(c, follower(c, leader)) },
		gap:  150 * time.Millisecond, stays: true,
	}.rounds(t)
}

// A leader whose disk is full ends and says why; with room it comes back.
func TestALeaderWhoseDiskIsFull(t *testing.T) {
	skipShort(t)
	failure{
		strike: func(c *cluster.Cluster, leader *cluster.Member, load *cluster.Load) {
			leader.FillDisk(true)
			if code, last := leader.AwaitExit(); code != 1 || !strings.Contains(last, "no space left on device") {
				t.Errorf("it ended with %d and said %q", code, last)
			}
			load.AwaitWrites(20)
		},
		mend: func(c *cluster.Cluster, leader *cluster.Member) {
			leader.FillDisk(false)
			restart(c, leader)
		},
		gap: 3 * election / 2, errors: slices.Concat(died, cutOff, []string{"etcdserver: server stopped"}), perWorker: 2,
	}.rounds(t)
}

// A leader whose disk takes five seconds to sync hands over; clients of the others
// hardly notice, its own are told to go elsewhere.
func TestALeaderWhoseDiskStalls(t *testing.T) {
	skipShort(t)
	failure{
		strike: func(c *cluster.Cluster, leader *cluster.Member, load *cluster.Load) {
			leader.StallDisk(true)
			time.Sleep(5 * time.Second) // the length of the stall is the story
			leader.StallDisk(false)
		},
		mend: func(c *cluster.Cluster, leader *cluster.Member) { leader.AwaitCaughtUp(c.Leader()) },
		gap:  3 * election / 2, errors: deposed, perWorker: 1000,
	}.rounds(t)
}
