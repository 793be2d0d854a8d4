package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/testkit/script"
)

// Self links the running test binary under a name, so that its TestMain can be
// that program (testkit/script.Main).
func Self(t testing.TB, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Member is one member: its place, and its process while that runs.
type Member struct {
	c *Cluster
	// Name, data directory, and the addresses of its client port and of the peer
	// port that it advertises.
	Name, Dir, Client, Peer string

	listens string
	run     *run
	asked   *clientv3.Client
}

// run is one process.
type run struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone and its output read

	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed and replaced at every line
}

// Flags are those of the member, in a cluster formed anew of all its members.
func (m *Member) Flags() []string {
	return append([]string{
		"--name=" + m.Name, "--data-dir=" + m.Dir,
		"--listen-client-urls=http://" + m.Client, "--advertise-client-urls=http://" + m.Client,
		"--listen-peer-urls=http://" + m.listens, "--initial-advertise-peer-urls=http://" + m.Peer,
		"--initial-cluster=" + InitialCluster(m.c.Members...),
	}, m.c.opts.Flags...)
}

// Launch starts the member with its flags, and with more, of which the last one
// of a name counts; see AwaitReady.
func (m *Member) Launch(flags ...string) {
	m.c.t.Helper()
	m.LaunchIn(nil, append(m.Flags(), flags...)...)
}

// LaunchIn starts the member with an environment and flags of its own.
func (m *Member) LaunchIn(environ []string, flags ...string) {
	m.c.t.Helper()
	if m.Running() {
		m.c.t.Fatalf("%s runs already", m.Name)
	}
	r := &run{cmd: exec.Command(m.c.opts.Etcd, flags...), exited: make(chan struct{}), more: make(chan struct{})}
	r.cmd.Env = append(inherited(environ), faultsVariable+"="+m.faults())
	read, write, err := os.Pipe()
	if err != nil {
		m.c.t.Fatal(err)
	}
	r.cmd.Stdout, r.cmd.Stderr = write, write
	err = r.cmd.Start()
	write.Close()
	if err != nil {
		read.Close()
		m.c.t.Fatal(err)
	}
	m.run = r
	go func() {
		m.read(r, read)
		read.Close()
		_ = r.cmd.Wait()
		script.ReportRace(m.c.t, r.cmd)
		close(r.exited)
	}()
}

// inherited adds what every program gets from the test's own environment.
func inherited(environ []string) []string {
	environ = slices.Clip(environ)
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GOCOVERDIR", "GORACE"} {
		if value, has := os.LookupEnv(name); has {
			environ = append(environ, name+"="+value)
		}
	}
	return environ
}

// read keeps what the process says, and learns its id.
func (m *Member) read(r *run, from io.Reader) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			ID string `json:"member-id"`
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.ID != "" {
			if id, err := strconv.ParseUint(line.ID, 16, 64); err == nil {
				m.c.network.know(id, m.Name)
			}
		}
		r.mu.Lock()
		r.lines = append(r.lines, lines.Text())
		close(r.more)
		r.more = make(chan struct{})
		r.mu.Unlock()
	}
}

// Running says whether there is a process that has not ended.
func (m *Member) Running() bool {
	if m.run == nil {
		return false
	}
	select {
	case <-m.run.exited:
		return false
	default:
		return true
	}
}

// Log are the lines of the latest process.
func (m *Member) Log() []string {
	if m.run == nil {
		return nil
	}
	m.run.mu.Lock()
	defer m.run.mu.Unlock()
	return append([]string(nil), m.run.lines...)
}

// AwaitLog waits for a line of the latest process that has the text.
func (m *Member) AwaitLog(text string) string {
	m.c.t.Helper()
	after := time.After(patience)
	for next := 0; ; {
		m.run.mu.Lock()
		lines, more := m.run.lines, m.run.more
		m.run.mu.Unlock()
		for ; next < len(lines); next++ {
			if strings.Contains(lines[next], text) {
				return lines[next]
			}
		}
		select {
		case <-more:
		case <-m.run.exited:
			if m.run.mu.Lock(); len(m.run.lines) == next {
				m.run.mu.Unlock()
				m.c.t.Fatalf("%s ended and never said %q:\n%s", m.Name, text, strings.Join(lines, "\n"))
			}
			m.run.mu.Unlock()
		case <-after:
			m.c.t.Fatalf("%s does not say %q:\n%s", m.Name, text, m.c.said())
		}
	}
}

// AwaitReady waits until the member serves clients.
func (m *Member) AwaitReady() {
	m.c.t.Helper()
	m.AwaitLog("ready to serve client requests")
}

// AwaitExit waits for the end of the process and tells how it exited (-1: by a
// signal) and its last line.
func (m *Member) AwaitExit() (code int, last string) {
	m.c.t.Helper()
	select {
	case <-m.run.exited:
	case <-time.After(patience):
		m.c.t.Fatalf("%s does not end:\n%s", m.Name, m.c.said())
	}
	if lines := m.Log(); len(lines) > 0 {
		last = lines[len(lines)-1]
	}
	return m.run.cmd.ProcessState.ExitCode(), last
}

// Signal sends a signal to the process.
func (m *Member) Signal(sig syscall.Signal) {
	m.c.t.Helper()
	if err := m.run.cmd.Process.Signal(sig); err != nil {
		m.c.t.Errorf("%v to %s: %v", sig, m.Name, err)
	}
}

// Kill is kill -9, and waits until the process is gone.
func (m *Member) Kill() {
	m.c.t.Helper()
	m.Signal(syscall.SIGKILL)
	<-m.run.exited
}

// Terminate is SIGTERM, and waits until the process is gone.
func (m *Member) Terminate() {
	m.c.t.Helper()
	m.Signal(syscall.SIGTERM)
	m.AwaitExit()
}

// Wipe removes the data directory.
func (m *Member) Wipe() {
	m.c.t.Helper()
	if err := os.RemoveAll(m.Dir); err != nil {
		m.c.t.Fatal(err)
	}
}

// status asks the member itself.
func (m *Member) status(ctx context.Context) (*clientv3.StatusResponse, error) {
	if m.asked == nil {
		asked, err := m.c.client([]string{"http://" + m.Client})
		if err != nil {
			return nil, err // of a user: the member is asked for a token
		}
		m.asked = asked
	}
	return m.asked.Status(ctx, "http://"+m.Client)
}

// Term is the raft term that the member is in.
func (m *Member) Term() (term uint64) {
	m.c.t.Helper()
	m.c.Eventually("the term of "+m.Name, func(ctx context.Context) bool {
		s, err := m.status(ctx)
		if err == nil {
			term = s.RaftTerm
		}
		return err == nil
	})
	return term
}

// AwaitCaughtUp waits until the member has applied all that the cluster had
// committed when it was asked.
func (m *Member) AwaitCaughtUp(with *Member) {
	m.c.t.Helper()
	var goal uint64
	m.c.Eventually(m.Name+" to catch up", func(ctx context.Context) bool {
		if goal == 0 {
			if s, err := with.status(ctx); err == nil {
				goal = s.RaftIndex
			}
			return false
		}
		s, err := m.status(ctx)
		return err == nil && s.RaftAppliedIndex >= goal
	})
}
