package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"
)

// targets are the servers to measure: running ones by their endpoints, or
// programs to start.
type targets struct {
	ours, other               Server
	program, otherProgram, in string
	// size of the cluster that each program is started as.
	size int
}

func (t *targets) addPrograms(f *pflag.FlagSet) {
	f.StringVar(&t.program, "program", "", "start this server, with an empty directory, and measure it")
	f.StringVar(&t.otherProgram, "against-program", "", "start this second server too, and print ratios")
	f.StringVar(&t.in, "dir", "", "where started servers keep their data meanwhile (default: the system's directory for temporary files)")
	f.StringVar(&t.ours.Name, "name", "", "what tables call the server")
	f.StringVar(&t.other.Name, "against-name", "", "what tables call the second server")
}

func (t *targets) add(f *pflag.FlagSet) {
	f.StringVar(&t.ours.Endpoint, "endpoint", "127.0.0.1:2379", "server to measure")
	f.IntVar(&t.ours.PID, "pid", 0, "its process on this machine, for CPU and memory")
	f.StringVar(&t.other.Endpoint, "against", "", "second server, measured in turns with the first; ratios are printed")
	f.IntVar(&t.other.PID, "against-pid", 0, "process of the second server")
	t.ours.add(f, "", "the server")
	t.other.add(f, "against-", "the second server")
	t.addPrograms(f)
	f.IntVar(&t.size, "members", 1, "start each program as a cluster of so many members; clients are spread over all, CPU and memory are those of all together")
}

// launch starts the programs, each as a cluster of so many members.
func (t *targets) launch(ctx context.Context, members int) (programs, error) {
	if t.program == "" {
		return nil, errors.New("--program is needed")
	}
	paths := []string{t.program}
	if t.otherProgram != "" {
		paths = append(paths, t.otherProgram)
	}
	return launch(ctx, t.in, []Server{t.ours, t.other}, paths, members)
}

// measured calls f with the servers; those that are programs run meanwhile.
func (t *targets) measured(ctx context.Context, f func([]Server) error) error {
	if t.program == "" {
		switch {
		case t.otherProgram != "":
			return errors.New("--against-program needs --program")
		case t.size != 1:
			return errors.New("--members needs --program")
		}
		servers := []Server{t.ours}
		if t.other.Endpoint != "" {
			servers = append(servers, t.other)
		}
		return f(servers)
	}
	if t.size < 1 {
		return fmt.Errorf("a cluster cannot have %d members", t.size)
	}
	all, err := t.launch(ctx, t.size)
	if err != nil {
		return err
	}
	return errors.Join(f(all.servers()), all.remove())
}

// settings are the flags that most commands share.
type settings struct {
	opts     Options
	clients  []int
	turns    turns
	arrivals string
	json, md bool
}

func (s *settings) addSpace(f *pflag.FlagSet, keys int) {
	f.IntVar(&s.opts.Keys, "keys", keys, "size of the key space")
	f.IntVar(&s.opts.KeyBytes, "key-bytes", 16, "size of a key")
	f.IntVar(&s.opts.ValueBytes, "value-bytes", 256, "size of a value; its bytes are random, so they cannot be compressed")
	f.Uint64Var(&s.opts.Seed, "seed", 1, "equal seeds draw equal keys, values and arrivals")
}

func (s *settings) addTurns(f *pflag.FlagSet, rounds int) {
	f.IntVar(&s.turns.rounds, "rounds", rounds, "turns of each server; of each figure the median counts")
	f.DurationVar(&s.turns.rest, "rest", calm, "wait at most this long before a turn until servers of known processes are idle")
	f.BoolVar(&s.json, "json", false, "print JSON, an object per table")
	f.BoolVar(&s.md, "markdown", false, "print tables for a document")
}

func (s *settings) addLoop(f *pflag.FlagSet, clients []int, rate float64) {
	f.IntSliceVar(&s.clients, "clients", clients, "calls in flight at most; several values are measured one after the other")
	f.IntVar(&s.opts.Connections, "conns", 0, "connections (0: one for up to 10 clients each, 100 at most)")
	f.Float64Var(&s.opts.Rate, "rate", rate, "calls a second of an open loop, however long they take (0: a closed loop, each client calls when it has its answer)")
	f.StringVar(&s.arrivals, "arrivals", string(Poisson), "of an open loop: poisson (at random) or even")
	f.DurationVar(&s.opts.Duration, "duration", 5*time.Second, "length of each measurement")
	f.DurationVar(&s.opts.Warmup, "warmup", time.Second, "run before each measurement")
}

func (s *settings) format() (Format, error) {
	switch {
	case s.json && s.md:
		return Text, fmt.Errorf("--json and --markdown exclude each other")
	case s.json:
		return JSON, nil
	case s.md:
		return Markdown, nil
	}
	return Text, nil
}

// with are the options for a number of clients.
func (s *settings) with(clients int) Options {
	o := s.opts
	o.Clients, o.Arrivals = clients, Arrivals(s.arrivals)
	if o.Connections == 0 {
		o.Connections = defaultConnections(clients)
	}
	return o
}
