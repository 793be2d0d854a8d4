package bench

import (
	"context"
	"fmt"
	"io"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Loaded is a server after many keys were put into it, and its restarts.
type Loaded struct {
	Server string `json:"server"`
	// Load is how long the puts of all keys took.
	Load time.Duration `json:"load_ns"`
	// AfterLoad is the memory at once after the last put, Peak its highest so far;
	// Idle some time later, when the server has come to rest.
	AfterLoad Memory `json:"after_load"`
	Peak      int64  `json:"peak_resident_bytes"`
	Idle      Memory `json:"idle"`
	// Disk is what the data directory takes then, as du counts it.
	Disk int64 `json:"disk_bytes"`
	// AfterTerm and AfterKill are restarts after SIGTERM and after kill -9.
	AfterTerm []Restart `json:"after_sigterm"`
	AfterKill []Restart `json:"after_kill"`
}

// Memory of a process in bytes.
type Memory struct {
	// Resident counts mapped files too; Anonymous is the part without them.
	Resident  int64 `json:"resident_bytes"`
	Anonymous int64 `json:"anonymous_bytes"`
}

func (u usage) memory() Memory { return Memory{Resident: u.Resident, Anonymous: u.Anonymous} }

// Restart of a server.
type Restart struct {
	// Stop is how long the signal took to end it.
	Stop time.Duration `json:"stop_ns"`
	// Ready is from its execution to its first answer to a linearizable get, CPU
	// what it used until then.
	Ready time.Duration `json:"ready_ns"`
	CPU   time.Duration `json:"cpu_ns"`
	// Idle is its memory when it has come to rest.
	Idle Memory `json:"idle"`
}

// restartPlan is the scenario's options.
type restartPlan struct {
	space Space
	seed  uint64
	// dirty puts are made before each stop, so that there is something to recover.
	dirty int
	// idle is the least time between the load and the look at idle memory: memory
	// that is free goes back to the system slowly.
	idle time.Duration
}

// load puts all keys and looks at memory and disk.
func (p restartPlan) load(ctx context.Context, on *program, rest time.Duration, progress io.Writer) (*Loaded, error) {
	s := on.server()
	took, err := p.filler(s, progress).put(ctx, p.space.Keys)
	if err != nil {
		return nil, err
	}
	full, err := s.observe()
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(p.idle):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := settle(ctx, []Server{s}, rest); err != nil {
		return nil, err
	}
	idle, err := s.observe()
	if err != nil {
		return nil, err
	}
	disk, err := on.disk()
	return &Loaded{Server: s.label(), Load: took, AfterLoad: full.memory(), Peak: full.Peak, Idle: idle.memory(), Disk: disk}, err
}

func (p restartPlan) filler(s Server, progress io.Writer) filler {
	return filler{server: s, space: p.space, seed: p.seed, progress: progress}
}

// restart stops and starts one server and checks that no key is missing.
func (p restartPlan) restart(ctx context.Context, on *program, signal syscall.Signal, rest time.Duration, progress io.Writer) (Restart, error) {
	if _, err := p.filler(on.server(), progress).put(ctx, p.dirty); err != nil {
		return Restart{}, err
	}
	var (
		r   Restart
		err error
	)
	if r.Stop, err = on.stop(signal); err != nil {
		return r, err
	}
	if r.Ready, err = on.start(ctx, p.space.key(0)); err != nil {
		return r, err
	}
	s := on.server()
	up, err := s.observe()
	if err != nil {
		return r, err
	}
	r.CPU = up.CPU
	if err := p.verify(ctx, s); err != nil {
		return r, err
	}
	if err := settle(ctx, []Server{s}, rest); err != nil {
		return r, err
	}
	idle, err := s.observe()
	r.Idle = idle.memory()
	return r, err
}

// verify fails if a restart lost keys.
func (p restartPlan) verify(ctx context.Context, s Server) error {
	conns, err := dial(ctx, s, 1)
	if err != nil {
		return err
	}
	defer conns.close()
	c := &client{stub: pb.NewKVClient(conns.all[0]), space: p.space}
	if err := count(ctx, c); err != nil {
		return fmt.Errorf("%s after its restart: %w", s.label(), err)
	}
	return nil
}

// compareRestarts loads all programs, then restarts them in turns.
func compareRestarts(ctx context.Context, all programs, p restartPlan, t turns, progress io.Writer) (*table, error) {
	if err := p.space.check(); err != nil {
		return nil, err
	}
	loaded := make([]*Loaded, len(all))
	for i, on := range all {
		var err error
		if loaded[i], err = p.load(ctx, on, t.rest, progress); err != nil {
			return nil, err
		}
	}
	for round := range max(t.rounds, 1) {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			for _, i := range order(round, len(all)) {
				if err := settle(ctx, all.servers(), t.rest); err != nil {
					return nil, err
				}
				turn := p
				turn.seed += uint64(1 + round)
				r, err := turn.restart(ctx, all[i], signal, t.rest, progress)
				if err != nil {
					return nil, err
				}
				if signal == syscall.SIGTERM {
					loaded[i].AfterTerm = append(loaded[i].AfterTerm, r)
				} else {
					loaded[i].AfterKill = append(loaded[i].AfterKill, r)
				}
			}
		}
	}
	return restartTable(loaded, p, t.rounds), nil
}

// restartFigures are the lines of the table, in its order.
var restartFigures = []struct {
	name string
	of   func(*Loaded) figure
}{
	{"load", func(l *Loaded) figure { return span(l.Load) }},
	{"resident after load", func(l *Loaded) figure { return size(l.AfterLoad.Resident) }},
	{"of it anonymous", func(l *Loaded) figure { return size(l.AfterLoad.Anonymous) }},
	{"peak resident", func(l *Loaded) figure { return size(l.Peak) }},
	{"resident when idle", func(l *Loaded) figure { return size(l.Idle.Resident) }},
	{"of it anonymous", func(l *Loaded) figure { return size(l.Idle.Anonymous) }},
	{"data directory", func(l *Loaded) figure { return size(l.Disk) }},
	{"SIGTERM: stops in", func(l *Loaded) figure { return span(median(l.AfterTerm, stopOf)) }},
	{"SIGTERM: first get after", func(l *Loaded) figure { return span(median(l.AfterTerm, readyOf)) }},
	{"SIGTERM: CPU until then", func(l *Loaded) figure { return span(median(l.AfterTerm, cpuOf)) }},
	{"SIGTERM: resident when idle", func(l *Loaded) figure { return size(median(l.AfterTerm, residentOf)) }},
	{"kill -9: first get after", func(l *Loaded) figure { return span(median(l.AfterKill, readyOf)) }},
	{"kill -9: CPU until then", func(l *Loaded) figure { return span(median(l.AfterKill, cpuOf)) }},
	{"kill -9: resident when idle", func(l *Loaded) figure { return size(median(l.AfterKill, residentOf)) }},
}

func stopOf(r Restart) time.Duration  { return r.Stop }
func readyOf(r Restart) time.Duration { return r.Ready }
func cpuOf(r Restart) time.Duration   { return r.CPU }
func residentOf(r Restart) int64      { return r.Idle.Resident }

func restartTable(loaded []*Loaded, p restartPlan, rounds int) *table {
	t := &table{
		title: "Memory, disk and restart", data: loaded, header: []string{"figure"},
		about: fmt.Sprintf("%d keys of %d bytes with %d random bytes each. First get: from the execution to the first answer to a linearizable get. "+
			"%d more puts before each stop; %s; files are in the page cache.",
			p.space.Keys, p.space.KeyBytes, p.space.ValueBytes, p.dirty, medianOf(rounds)),
	}
	for _, l := range loaded {
		t.header = append(t.header, l.Server)
	}
	if len(loaded) == 2 {
		t.header = append(t.header, ratioRow)
	}
	for _, f := range restartFigures {
		row := []string{f.name}
		for _, l := range loaded {
			row = append(row, f.of(l).String())
		}
		if len(loaded) == 2 {
			row = append(row, over(f.of(loaded[0]).value, f.of(loaded[1]).value))
		}
		t.add(row...)
	}
	return t
}
