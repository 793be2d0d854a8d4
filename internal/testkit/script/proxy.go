package script

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// RunThrough tells some stories of dir with a proxy between etcdctl and the first server
// of each, which goes on when the server is started again: that of `etcd grpc-proxy` of a
// program of the name etcd.
func RunThrough(t *testing.T, dir string, proxy, etcd, etcdctl Program, names ...string) {
	t.Helper()
	var files []string
	for _, name := range names {
		files = append(files, filepath.Join(dir, name+".txtar"))
	}
	run(t, testscript.Params{Files: files}, etcd, etcdctl, &proxy)
}

// proxy is the process of one.
type proxy struct {
	address string
	process *exec.Cmd
	said    bytes.Buffer // complete once gone is closed
	gone    chan struct{}
}

// door is where clients of the first server are to ask: the server itself, or the proxy
// in front of it, which is started with the first question.
func (s *story) door(v *server) (string, error) {
	if s.through == nil {
		return v.client, nil
	}
	if s.proxy != nil {
		return s.proxy.address, nil
	}
	p := &proxy{address: ports.Reserve(s.t), gone: make(chan struct{})}
	// The cluster's own members are told: stories are about those.
	p.process = exec.Command(s.through.path, "grpc-proxy", "start", "--listen-addr="+p.address, "--advertise-client-url=", "--endpoints="+v.client)
	p.process.Args[0] = "etcd" // the test binary is what it is called
	p.process.Stdout, p.process.Stderr, p.process.Dir = &p.said, &p.said, s.dir
	if err := p.process.Start(); err != nil {
		return "", err
	}
	s.proxy = p
	go func() {
		_ = p.process.Wait()
		close(p.gone)
	}()
	for begun := time.Now(); ; time.Sleep(pause(begun)) {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			return p.address, conn.Close()
		}
		select {
		case <-p.gone:
			return "", fmt.Errorf("the proxy ended: %s", p.said.String())
		default:
		}
		if time.Since(begun) > patience {
			return "", fmt.Errorf("the proxy does not listen: %w", err)
		}
	}
}

func (p *proxy) end() {
	_ = p.process.Process.Kill()
	<-p.gone
}
