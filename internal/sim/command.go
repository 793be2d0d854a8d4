package sim

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kvorum/kvorum/internal/defect"
)

// progressEvery is after how many worlds a long run says that it lives.
const progressEvery = 100

// Main is the command simulate: it runs worlds from a seed on and returns the
// exit code, 1 when a world failed, 2 for a bad flag.
// wall is how long the process has run.
func Main(args []string, out io.Writer, wall func() time.Duration) int {
	flags := flag.NewFlagSet("simulate", flag.ContinueOnError)
	flags.SetOutput(out)
	seed := flags.Uint64("seed", 1, "the first `seed`")
	count := flags.Uint64("count", 100, "how many `worlds`, of seeds one after the other")
	replicas := flags.Int("replicas", 0, "how many `members` found the group, 1 to 7; 0 runs each seed as 1, as 3 and as a cluster")
	cluster := flags.Bool("cluster", false, "clusters only: members may come and go; with --replicas 0 the seed draws how many found it")
	planted := flags.String("defect", "", "plant a deliberate `mistake` (needs the build tag defects)")
	tilt := flags.String("tilt", "", "make the situation common that this `mistake` needs, without planting it")
	verbose := flags.Bool("verbose", false, "say what every world came to, and tell the story of a single one")
	all := flags.Bool("all", false, "go on after a world that fails, and name all of them")
	shrink := flags.Bool("shrink", false, "look for a smaller world that fails as well as the first that does, and tell its story")
	without := flags.String("without", "", "take `things` from the world, as --shrink does; separated by commas")
	salt := flags.Uint64("salt", 0, "another `course` of the same world, as --shrink finds it")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || *replicas < 0 || *replicas > maxFounders {
		fmt.Fprintln(out, "simulate: --replicas is 0 to 7, and there are no arguments")
		return 2
	}
	o := Options{Seed: *seed, Salt: *salt, Brief: *without != ""}
	if *without != "" {
		o.Without = strings.Split(*without, ",")
	}
	for _, name := range o.Without {
		if cutNamed(name) == nil {
			fmt.Fprintf(out, "simulate: nothing is called %q; there are %s\n", name, cutNames())
			return 2
		}
	}
	if *verbose && *count == 1 {
		o.Out = out
	}
	if *planted != "" {
		d, err := plant(*planted)
		if err != nil {
			fmt.Fprintln(out, "simulate:", err)
			return 2
		}
		o.Profile = tiltOf(d)
	} else if *tilt != "" {
		d, err := defectNamed(*tilt)
		if err != nil {
			fmt.Fprintln(out, "simulate:", err)
			return 2
		}
		o.Profile = tiltOf(d)
	}
	families := []Options{{Replicas: *replicas, Cluster: *cluster}}
	if *replicas == 0 && !*cluster {
		families = []Options{{Replicas: 1}, {Replicas: 3}, {Cluster: true}}
	}
	run := runner{count: *count, verbose: *verbose, all: *all, shrink: *shrink, how: how(*planted, *tilt), wall: wall, out: out}
	code := 0
	for _, family := range families {
		o.Replicas, o.Cluster = family.Replicas, family.Cluster
		if !run.campaign(o) {
			if code = 1; !*all {
				break
			}
		}
	}
	return code
}

// runner is how worlds are to be run and told.
type runner struct {
	count                uint64
	verbose, all, shrink bool
	how                  string
	wall                 func() time.Duration
	out                  io.Writer
}

// campaign runs the worlds of one family and says whether all of them passed.
func (run *runner) campaign(o Options) bool {
	var done, failures uint64
	var total Report
	var failed *Report
	marks := map[string]uint64{}
	began := run.wall()
	Campaign(o, run.count, func(r Report) bool {
		done++
		total.Calls, total.Commands, total.Simulated = total.Calls+r.Calls, total.Commands+r.Commands, total.Simulated+r.Simulated
		total.Latest = max(total.Latest, r.Latest)
		for name, n := range r.Marks {
			marks[name] += n
		}
		if run.verbose {
			fmt.Fprintf(run.out, "seed %d, %s: hash %016x, %d steps, %d calls, %d commands, %d starts\n",
				r.Seed, o.kind(), r.Hash, r.Steps, r.Calls, r.Commands, r.Starts)
		}
		if r.Failure != nil {
			failures++
			if failed = &r; run.all {
				fmt.Fprintf(run.out, "seed %d, %s, FAILED %v\n\t%s\n", r.Seed, o.kind(), r.Failure, o.replay(r.Seed, run.how))
			}
			return !run.all
		}
		if !run.verbose && done%progressEvery == 0 && done < run.count {
			fmt.Fprintf(run.out, "%d of %d worlds of %s passed\n", done-failures, run.count, o.kind())
		}
		return false
	})
	verb := "passed"
	if failures > 0 {
		verb = fmt.Sprintf("run, %d FAILED", failures)
	}
	fmt.Fprintf(run.out, "%d worlds of %s %s: seeds %d to %d, %d calls, %d commands; %.1f hours simulated in %v\n",
		done, o.kind(), verb, o.Seed, o.Seed+done-1, total.Calls, total.Commands, total.Simulated.Hours(), (run.wall() - began).Round(time.Second))
	if failures == 0 {
		for _, name := range Marks {
			fmt.Fprintf(run.out, "%8d times %s\n", marks[name], name)
		}
		fmt.Fprintf(run.out, "in the calm no lease has ended more than %v late\n", total.Latest.Round(time.Millisecond))
		return true
	}
	if !run.all {
		run.tell(o, failed)
	}
	return false
}

// tell tells the story of a world that has failed.
func (run *runner) tell(o Options, failed *Report) {
	o.Seed, o.Out = failed.Seed, nil
	if run.shrink {
		fmt.Fprintf(run.out, "seed %d, %s, FAILED %v\n\n", failed.Seed, o.kind(), failed.Failure)
		var smaller Report
		o, smaller = Shrink(o, run.out)
		o.Brief, failed = true, &smaller
	}
	o.Tell = true
	told := Run(o)
	fmt.Fprintf(run.out, "seed %d, %s, FAILED %v\n\nThe end of its story:\n\n%s\n\n", failed.Seed, o.kind(), failed.Failure, told.Story)
	if told.Hash != failed.Hash {
		fmt.Fprintf(run.out, "AND its second run went another way: hash %016x, then %016x\n", failed.Hash, told.Hash)
	}
	fmt.Fprintf(run.out, "To see it again:\n\n\t%s\n", o.replay(o.Seed, run.how))
}

func cutNames() string {
	var names []string
	for _, c := range cuts {
		names = append(names, c.name)
	}
	return strings.Join(names, ", ")
}

// how is the beginning of the command that runs a world again.
func how(planted, tilt string) string {
	switch {
	case planted != "":
		return "go run -tags defects ./cmd/simulate --defect " + planted
	case tilt != "":
		return "go run ./cmd/simulate --tilt " + tilt
	}
	return "go run ./cmd/simulate"
}

// replay is the command that runs the world of a seed again.
func (o Options) replay(seed uint64, how string) string {
	if o.Cluster {
		how += " --cluster"
	}
	how = fmt.Sprintf("%s --seed %d --count 1 --replicas %d --verbose", how, seed, o.Replicas)
	if len(o.Without) > 0 {
		how += " --without " + strings.Join(o.Without, ",")
	}
	if o.Salt != 0 {
		how += fmt.Sprintf(" --salt %d", o.Salt)
	}
	return how
}

// found lists the mistakes that the simulator finds.
func found() []defect.Defect {
	all := defect.All()
	for _, d := range defect.Permissions() {
		if _, known := userProfiles[d]; known {
			all = append(all, d)
		}
	}
	return append(all, defect.Space()...)
}

func tiltOf(d defect.Defect) func(*swarm) {
	p, _ := profileOf(d)
	return p.tilt
}

// defectNamed finds a defect by its name.
func defectNamed(name string) (defect.Defect, error) {
	all := found()
	for _, d := range all {
		if d.String() == name {
			return d, nil
		}
	}
	return defect.None, fmt.Errorf("no such defect: %q; there are %v", name, all)
}
