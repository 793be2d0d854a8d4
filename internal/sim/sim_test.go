package sim

import (
	"bytes"
	"flag"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/state/command"
)

// seeds is how many worlds of each size the tests run: 200 in CI, 2,000 and more
// by the flag or by KVORUM_SIM_SEEDS.
var seeds = flag.Uint64("sim.seeds", envSeeds(200), "how many worlds of each size to run")

func envSeeds(usual uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv("KVORUM_SIM_SEEDS"), 10, 64); err == nil {
		return n
	}
	return usual
}

// families are the kinds of worlds.
var families = []Options{{Replicas: 1}, {Replicas: 3}, {Cluster: true}}

// firstWorld begins a stretch of 200 seeds in which every mark is met: what is met
// five times in most stretches is missed by some, and worlds change with the faults
// that they know.
const firstWorld = 201

// Worlds of every family keep every promise, and together they reach every rare
// thing that the simulator is there for.
func TestWorlds(t *testing.T) {
	for _, o := range families {
		t.Run(o.kind(), func(t *testing.T) {
			marks := map[string]uint64{}
			o.Seed = firstWorld
			Campaign(o, *seeds, func(r Report) bool {
				for name, n := range r.Marks {
					marks[name] += n
				}
				if r.Failure != nil {
					o.Seed, o.Tell = r.Seed, true
					told := Run(o)
					t.Errorf("seed %d: %v\n\n%s\n\nagain: %s", r.Seed, r.Failure, told.Story, o.replay(r.Seed, how("", "")))
				}
				return r.Failure != nil
			})
			if *seeds < 200 || t.Failed() {
				return
			}
			for _, name := range Marks {
				if needsCluster[name] && !o.Cluster {
					continue
				}
				if marks[name] == 0 && (o.Replicas != 1 || !needsOthers[name]) && !veryRare[name] {
					t.Errorf("in no world: %s", name)
				}
			}
		})
	}
}

// needsOthers are marks that a lone member cannot reach.
var needsOthers = map[string]bool{
	markSnapshot: true, markTruncated: true, markDamagedLog: true, markLostLeader: true, markForked: true,
	markSplit: true,
}

// needsCluster are marks of changes of the membership.
var needsCluster = map[string]bool{
	markJoint: true, markLost: true, markRemoved: true, markShutDown: true, markStrict: true,
	markChange[command.AddMember]: true, markChange[command.AddLearner]: true,
	markChange[command.RemoveMember]: true, markChange[command.PromoteMember]: true,
}

// veryRare are marks that 200 worlds may miss.
var veryRare = map[string]bool{markForked: true, markGivenUp: true}

// skipAlone leaves out of a short run, which is that of the race detector, what runs on
// the test's own goroutine and nobody else's. In TestWorlds worlds run beside each other:
// that is where they could share what they must not.
func skipAlone(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: one goroutine has no races")
	}
}

// The same seed is the same world, event by event, whether its story is told or
// not; another seed is another.
func TestSameSeedSameHash(t *testing.T) {
	skipAlone(t)
	hashes := map[uint64]uint64{}
	for _, o := range families {
		for seed := uint64(1); seed <= 12; seed++ {
			o.Seed, o.Tell = seed, false
			first := Run(o)
			o.Tell = true
			again := Run(o)
			if first.Hash != again.Hash || first.Events != again.Events {
				t.Errorf("seed %d of %s: hash %x with %d events, then %x with %d",
					seed, o.kind(), first.Hash, first.Events, again.Hash, again.Events)
			}
			if other, taken := hashes[first.Hash]; taken {
				t.Errorf("seeds %d and %d have one hash", seed, other)
			}
			hashes[first.Hash] = seed
		}
	}
}

func noClock() time.Duration { return 0 }

func TestCommandRunsAndReplays(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"--seed 3 --count 2", 0, []string{"2 worlds of 1 members passed: seeds 3 to 4", "2 worlds of 3 members passed", "2 worlds of clusters passed"}},
		{"--seed 3 --count 1 --replicas 1 --verbose", 0, []string{"seed 3, 1 members: hash", "m1 starts, run 1", "m1 leads in term 1"}},
		{"--seed 4 --count 2 --cluster --replicas 5", 0, []string{"2 worlds of clusters of 5 passed"}},
		{"--seed 4 --count 1 --replicas 5", 0, []string{"1 worlds of 5 members passed"}},
		{"--replicas 8", 2, []string{"--replicas is 0 to 7"}},
		{"--seed 3 --count 1 --replicas 3 --without crashes,half-the-calls --salt 5", 0, []string{"1 worlds of 3 members passed", "hours simulated"}},
		{"--without gravity", 2, []string{"nothing is called \"gravity\"; there are "}},
		{"--tilt nothing", 2, []string{"no such defect"}},
		{"--nonsense", 2, []string{"flag provided but not defined"}},
	} {
		var out bytes.Buffer
		if code := Main(strings.Fields(c.args), &out, noClock); code != c.code {
			t.Errorf("%s: code %d, want %d", c.args, code, c.code)
		}
		for _, text := range c.says {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%s: does not say %q:\n%.2000s", c.args, text, &out)
			}
		}
	}
	if !defect.Planted {
		var out bytes.Buffer
		if code := Main([]string{"--defect", "ack-before-sync"}, &out, noClock); code != 2 || !strings.Contains(out.String(), "-tags defects") {
			t.Errorf("a binary without defects: code %d, %s", code, &out)
		}
	}
}
