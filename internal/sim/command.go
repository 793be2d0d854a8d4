package sim

import (
	"flag"
	"fmt"
	"io"

	"github.com/kvorum/kvorum/internal/defect"
)

// progressEvery is after how many worlds a long run says that it lives.
const progressEvery = 100

// Main is the command simulate: it runs worlds from a seed on and returns the
// exit code, 1 when a world failed, 2 for a bad flag.
func Main(args []string, out io.Writer) int {
	flags := flag.NewFlagSet("simulate", flag.ContinueOnError)
	flags.SetOutput(out)
	seed := flags.Uint64("seed", 1, "the first `seed`")
	count := flags.Uint64("count", 100, "how many `worlds`, of seeds one after the other")
	replicas := flags.Int("replicas", 0, "how many `members` found the group, 1 to 7; 0 runs each seed as 1, as 3 and as a cluster")
	cluster := flags.Bool("cluster", false, "clusters only: members may come and go; with --replicas 0 the seed draws how many found it")
	planted := flags.String("defect", "", "plant a deliberate `mistake` (needs the build tag defects)")
	tilt := flags.String("tilt", "", "make the situation common that this `mistake` needs, without planting it")
	verbose := flags.Bool("verbose", false, "say what every world came to, and tell the story of a single one")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || *replicas < 0 || *replicas > maxFounders {
		fmt.Fprintln(out, "simulate: --replicas is 0 to 7, and there are no arguments")
		return 2
	}
	o := Options{Seed: *seed}
	if *verbose && *count == 1 {
		o.Out = out
	}
	if *planted != "" {
		d, err := plant(*planted)
		if err != nil {
			fmt.Fprintln(out, "simulate:", err)
			return 2
		}
		o.Profile = profiles[d].tilt
	} else if *tilt != "" {
		d, err := defectNamed(*tilt)
		if err != nil {
			fmt.Fprintln(out, "simulate:", err)
			return 2
		}
		o.Profile = profiles[d].tilt
	}
	families := []Options{{Replicas: *replicas, Cluster: *cluster}}
	if *replicas == 0 && !*cluster {
		families = []Options{{Replicas: 1}, {Replicas: 3}, {Cluster: true}}
	}
	for _, family := range families {
		o.Replicas, o.Cluster = family.Replicas, family.Cluster
		if !campaign(o, *count, *verbose, how(*planted, *tilt), out) {
			return 1
		}
	}
	return 0
}

// campaign runs the worlds of one family and says whether all of them passed.
func campaign(o Options, count uint64, verbose bool, how string, out io.Writer) bool {
	var done, calls, commands uint64
	var failed *Report
	marks := map[string]uint64{}
	Campaign(o, count, func(r Report) bool {
		done++
		calls += r.Calls
		commands += r.Commands
		for name, n := range r.Marks {
			marks[name] += n
		}
		if verbose {
			fmt.Fprintf(out, "seed %d, %s: hash %016x, %d steps, %d calls, %d commands, %d starts\n",
				r.Seed, o.kind(), r.Hash, r.Steps, r.Calls, r.Commands, r.Starts)
		}
		if r.Failure != nil {
			failed = &r
			return true
		}
		if !verbose && done%progressEvery == 0 && done < count {
			fmt.Fprintf(out, "%d of %d worlds of %s passed\n", done, count, o.kind())
		}
		return false
	})
	if failed == nil {
		fmt.Fprintf(out, "%d worlds of %s passed: seeds %d to %d, %d calls, %d commands\n",
			count, o.kind(), o.Seed, o.Seed+count-1, calls, commands)
		for _, name := range Marks {
			fmt.Fprintf(out, "%8d times %s\n", marks[name], name)
		}
		return true
	}
	o.Seed, o.Tell, o.Out = failed.Seed, true, nil
	told := Run(o)
	fmt.Fprintf(out, "seed %d, %s, FAILED %v\n\nThe end of its story:\n\n%s\n\n", failed.Seed, o.kind(), failed.Failure, told.Story)
	if told.Hash != failed.Hash {
		fmt.Fprintf(out, "AND its second run went another way: hash %016x, then %016x\n", failed.Hash, told.Hash)
	}
	fmt.Fprintf(out, "To see it again:\n\n\t%s\n", failed.replay(how))
	return false
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

// replay is the command that runs the world again.
func (r Report) replay(how string) string {
	if r.Cluster {
		how += " --cluster"
	}
	return fmt.Sprintf("%s --seed %d --count 1 --replicas %d --verbose", how, r.Seed, r.Replicas)
}

// defectNamed finds a defect by its name.
func defectNamed(name string) (defect.Defect, error) {
	for _, d := range defect.All() {
		if d.String() == name {
			return d, nil
		}
	}
	return defect.None, fmt.Errorf("no such defect: %q; there are %v", name, defect.All())
}
