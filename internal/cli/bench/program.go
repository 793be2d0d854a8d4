package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// program is a server that this one starts and stops itself: an etcd, or one that
// takes its flags. It has a directory of its own, with its data and what it logs.
type program struct {
	name string
	path string
	dir  string
	// node is its name in its cluster, and initial what the cluster is formed of.
	node, initial string
	// client and peer are its ports, the same at each start.
	client, peer string
	cmd          *exec.Cmd
	exited       chan struct{}
	// others are the other members of its cluster, started and stopped with it.
	others []*program
}

// starting is how long a server may take until its first answer.
const starting = 10 * time.Minute

// stopping is how long a server may take to stop in order.
const stopping = time.Minute

// newProgram chooses ports and makes directories below dir, for a cluster of so
// many members.
func newProgram(name, path, dir string, members int) (first *program, err error) {
	var initial []string
	for i := range members {
		p := &program{name: name, path: path, node: fmt.Sprintf("bench%d", i)}
		if first == nil {
			first = p
		} else {
			first.others = append(first.others, p)
		}
		if p.dir, err = os.MkdirTemp(dir, "kvorum-bench-"); err == nil {
			if p.client, err = freePort(); err == nil {
				p.peer, err = freePort()
			}
		}
		if err != nil {
			return nil, errors.Join(err, first.remove())
		}
		initial = append(initial, p.node+"=http://"+p.peer)
	}
	for _, p := range first.members() {
		p.initial = strings.Join(initial, ",")
	}
	return first, nil
}

// members are all of its cluster, itself first.
func (p *program) members() []*program { return append([]*program{p}, p.others...) }

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (p *program) data() string { return filepath.Join(p.dir, "data") }

func (p *program) log() string { return filepath.Join(p.dir, "log") }

// server is the program as it runs now.
func (p *program) server() Server {
	s := Server{Name: p.name, Endpoint: p.client}
	if p.cmd != nil {
		s.PID = p.cmd.Process.Pid
	}
	for _, o := range p.others {
		s.Others = append(s.Others, o.server())
	}
	return s
}

// start executes the program, and the other members of its cluster, and waits for
// the first answer to a linearizable get. It returns how long that took since the
// execution.
func (p *program) start(ctx context.Context, key []byte) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, starting, fmt.Errorf("no answer within %s", starting))
	defer cancel()
	ctx, died := context.WithCancelCause(ctx)
	defer died(nil)
	begin := time.Now()
	for _, m := range p.members() {
		if err := m.execute(); err != nil {
			return 0, err
		}
		// The channel of this execution, which the next one replaces.
		go func(exited chan struct{}) {
			select {
			case <-exited:
				died(fmt.Errorf("%s ended; it said last:\n%s", m.path, m.lastWords()))
			case <-ctx.Done():
			}
		}(m.exited)
	}
	for _, m := range p.members() {
		if err := await(ctx, m.server(), key); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

// execute starts the process.
func (p *program) execute() error {
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	client, peer := "http://"+p.client, "http://"+p.peer
	p.cmd = exec.Command(p.path, "--name", p.node, "--data-dir", p.data(),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", p.initial,
		// Enough for what the scenarios write; etcd's own limit is 2 GiB.
		"--quota-backend-bytes", "8589934592")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// Variables of the caller's own etcd must not change the servers.
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "ETCD") })
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return err
	}
	p.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(p.cmd, p.exited)
	return nil
}

// lastWords are the end of the program's log.
func (p *program) lastWords() string {
	text, _ := os.ReadFile(p.log())
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(len(lines)-10, 0):], "\n")
}

// stop sends a signal to all members and waits until they have ended, which it
// returns how long it took. One that outlives its time is killed.
func (p *program) stop(signal syscall.Signal) (time.Duration, error) {
	begin := time.Now()
	var errs []error
	for _, m := range p.members() {
		if m.cmd == nil {
			continue
		}
		if err := m.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
	}
	for _, m := range p.members() {
		if m.cmd == nil {
			continue
		}
		select {
		case <-m.exited:
		case <-time.After(stopping - time.Since(begin)):
			errs = append(errs, fmt.Errorf("%s did not stop within %s", m.path, stopping))
			_ = m.cmd.Process.Kill()
			<-m.exited
		}
		m.cmd = nil
	}
	return time.Since(begin), errors.Join(errs...)
}

// remove ends the program and deletes the directories.
func (p *program) remove() error {
	_, err := p.stop(syscall.SIGKILL)
	for _, m := range p.members() {
		err = errors.Join(err, os.RemoveAll(m.dir))
	}
	return err
}

// disk is what the data directory takes, in bytes of allocated blocks as du counts them.
func (p *program) disk() (int64, error) {
	var total int64
	err := filepath.WalkDir(p.data(), func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a running server deletes files
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		total += allocated(info)
		return nil
	})
	return total, err
}

// programs are started together and removed together.
type programs []*program

// launch starts a program for each path, with empty directories, as a cluster of so
// many members. The names of
// those that have none are made from what they answer.
func launch(ctx context.Context, dir string, named []Server, paths []string, members int) (programs, error) {
	var all programs
	for i, path := range paths {
		p, err := newProgram(named[i].Name, path, dir, members)
		if err != nil {
			return nil, errors.Join(err, all.remove())
		}
		all = append(all, p)
		if _, err := p.start(ctx, []byte("0")); err != nil {
			return nil, errors.Join(err, all.remove())
		}
		if p.name == "" {
			p.name = filepath.Base(path) + " " + p.server().version(ctx)
		}
	}
	return all, nil
}

func (all programs) servers() []Server {
	servers := make([]Server, len(all))
	for i, p := range all {
		servers[i] = p.server()
	}
	return servers
}

func (all programs) remove() error {
	var errs []error
	for _, p := range all {
		errs = append(errs, p.remove())
	}
	return errors.Join(errs...)
}
