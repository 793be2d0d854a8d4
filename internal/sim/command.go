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
	replicas := flags.Int("replicas", 0, "1 or 3 `members`; 0 runs each seed as both")
	planted := flags.String("defect", "", "plant a deliberate `mistake` (needs the build tag defects)")
	tilt := flags.String("tilt", "", "make the situation common that this `mistake` needs, without planting it")
	verbose := flags.Bool("verbose", false, "say what every world came to, and tell the story of a single one")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || *replicas != 0 && *replicas != 1 && *replicas != 3 {
		fmt.Fprintln(out, "simulate: --replicas is 0, 1 or 3, and there are no arguments")
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
	sizes := []int{*replicas}
	if *replicas == 0 {
		sizes = []int{1, 3}
	}
	for _, size := range sizes {
		o.Replicas = size
		if !campaign(o, *count, *verbose, how(*planted, *tilt), out) {
			return 1
		}
	}
	return 0
}

// campaign runs the worlds of one size and says whether all of them passed.
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
			fmt.Fprintf(out, "seed %d, %d members: hash %016x, %d steps, %d calls, %d commands, %d starts\n",
				r.Seed, r.Replicas, r.Hash, r.Steps, r.Calls, r.Commands, r.Starts)
		}
		if r.Failure != nil {
			failed = &r
			return true
		}
		if !verbose && done%progressEvery == 0 && done < count {
			fmt.Fprintf(out, "%d of %d worlds of %d passed\n", done, count, o.Replicas)
		}
		return false
	})
	if failed == nil {
		fmt.Fprintf(out, "%d worlds of %d members passed: seeds %d to %d, %d calls, %d commands\n",
			count, o.Replicas, o.Seed, o.Seed+count-1, calls, commands)
		for _, name := range Marks {
			fmt.Fprintf(out, "%8d times %s\n", marks[name], name)
		}
		return true
	}
	o.Seed, o.Tell, o.Out = failed.Seed, true, nil
	told := Run(o)
	fmt.Fprintf(out, "seed %d, %d members, FAILED %v\n\nThe end of its story:\n\n%s\n\n", failed.Seed, failed.Replicas, failed.Failure, told.Story)
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
