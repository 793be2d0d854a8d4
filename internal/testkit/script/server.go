package script

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/ports"
)

const (
	firstName = "default"

	// readyText is in the line that every etcd logs once clients can call.
	readyText = "ready to serve client requests"
	// patience bounds the wait for a server that neither serves nor ends.
	patience = 60 * time.Second
)

// pause is how long to wait before another look at what must change by itself: a
// tenth of the time since begun, so that nobody is kept much longer than needed,
// and long waits cost few looks.
func pause(begun time.Time) time.Duration {
	return min(max(time.Since(begun)/10, 5*time.Millisecond), 250*time.Millisecond)
}

// story is the state of one running story.
type story struct {
	t        testing.TB
	bin, dir string
	root     string         // of the checkout
	locks    []net.Listener // see cmdAlone
	servers  map[string]*server
	names    []string // of servers, in the order of their first mention
	through  *Program // see RunThrough
	proxy    *proxy
}

// server is one member: its ports, and its process while it runs.
type server struct {
	name         string
	client, peer string // host:port
	process      *exec.Cmd
	gone         chan struct{} // closed when the process has been waited for
}

// find returns the server of that name, with ports of its own.
func (s *story) find(name string) *server {
	if v := s.servers[name]; v != nil {
		return v
	}
	v := &server{name: name, client: ports.Reserve(s.t), peer: ports.Reserve(s.t)}
	s.servers[name] = v
	s.names = append(s.names, name)
	return v
}

// start runs etcd and returns once it serves.
func (s *story) start(v *server, environ, flags []string) error {
	if v.process != nil {
		return fmt.Errorf("server %s is running already", v.name)
	}
	client, peer := "http://"+v.client, "http://"+v.peer
	args := append([]string{
		"--name=" + v.name, "--data-dir=" + filepath.Join(s.dir, v.name+".etcd"),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=" + v.name + "=" + peer,
	}, flags...)
	cmd := exec.Command(filepath.Join(s.bin, "etcd"), args...)
	cmd.Dir, cmd.Env = s.dir, environ
	return s.launch(v, cmd, nil)
}

// launch starts a server's process and returns once it has said in its log that
// it serves or, if told is not nil, once that says how the start went.
func (s *story) launch(v *server, cmd *exec.Cmd, told <-chan error) error {
	log, err := os.Create(filepath.Join(s.dir, v.name+".log"))
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		log.Close()
		return err
	}
	cmd.Stdout, cmd.Stderr = write, write
	err = cmd.Start()
	write.Close()
	if err != nil {
		read.Close()
		log.Close()
		return err
	}
	v.process, v.gone = cmd, make(chan struct{})
	heard := make(chan error, 1)
	go func() {
		listen(read, log, heard)
		read.Close()
		log.Close()
		_ = cmd.Wait()
		ReportRace(s.t, cmd)
		close(v.gone)
	}()
	if err = await(heard, told); err != nil {
		err = fmt.Errorf("server %s: %w", v.name, err)
		v.kill(syscall.SIGKILL)
	}
	return err
}

// await waits for the end of a start.
func await(heard, told <-chan error) error {
	after := time.After(patience)
	for {
		select {
		case err := <-heard:
			if err != nil || told == nil {
				return err
			}
		case err := <-told:
			return err
		case <-after:
			return fmt.Errorf("it did not become ready within %v", patience)
		}
	}
}

// listen copies the server's log to its file. It reports once: nil when the
// server is ready, an error when its output ended before.
func listen(from io.Reader, to io.Writer, heard chan<- error) {
	last := errors.New("it said nothing")
	lines := bufio.NewReader(from)
	for told := false; ; {
		line, err := lines.ReadString('\n')
		_, _ = io.WriteString(to, line)
		switch {
		case told:
		case strings.Contains(line, readyText):
			heard <- nil
			told = true
		case line != "":
			last = errors.New(strings.TrimSpace(line))
		}
		if err != nil {
			if !told {
				heard <- fmt.Errorf("the server ended before it was ready: %w", last)
			}
			return
		}
	}
}

// kill ends the process by a signal and waits until it and its output are gone.
// A server that a polite signal does not end is killed; it reports whether that
// was not needed.
func (v *server) kill(signal syscall.Signal) bool {
	_ = v.process.Process.Signal(signal)
	polite := true
	select {
	case <-v.gone:
	case <-time.After(patience):
		polite = false
		_ = v.process.Process.Kill()
		<-v.gone
	}
	v.process = nil
	return polite
}

// end kills what still runs.
func (s *story) end() {
	for _, name := range s.names {
		if v := s.servers[name]; v.process != nil {
			v.kill(syscall.SIGKILL)
		}
	}
	for _, l := range s.locks {
		l.Close()
	}
	if s.proxy != nil {
		s.proxy.end()
		ReportRace(s.t, s.proxy.process)
	}
}
