package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// process is an etcd of somebody else's, alone in its cluster.
type process struct {
	binary, dir string
	dirs        int

	client, peer string
	cmd          *exec.Cmd
	output       bytes.Buffer
	conn         *grpc.ClientConn
}

func (p *process) Conn() grpc.ClientConnInterface { return p.conn }

// Renew is Server's.
func (p *process) Renew() error {
	p.stop(syscall.SIGKILL)
	if err := os.RemoveAll(p.data()); err != nil {
		return err
	}
	p.dirs++
	return p.start()
}

// Restart is Server's.
func (p *process) Restart(how Restart) error {
	signal := syscall.SIGTERM
	if how == Kill {
		signal = syscall.SIGKILL
	}
	p.stop(signal)
	return p.start()
}

func (p *process) data() string { return filepath.Join(p.dir, fmt.Sprint(p.dirs)) }

// start returns once the server answers.
func (p *process) start() error {
	client, peer := "http://"+p.client, "http://"+p.peer
	p.output.Reset()
	p.cmd = exec.Command(p.binary, "--name=other", "--data-dir="+p.data(), "--log-level=error",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=other="+peer)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	// It ends with us, whatever our end is.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return err
	}
	conn, err := grpc.NewClient(p.client, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return err
	}
	p.conn = conn
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("is there a leader")})
	if err != nil {
		p.stop(syscall.SIGKILL)
		return fmt.Errorf("%s does not come up: %w\n%s", p.binary, err, p.output.String())
	}
	return nil
}

func (p *process) stop(signal syscall.Signal) {
	if p.cmd == nil {
		return
	}
	if p.conn != nil {
		p.conn.Close()
	}
	if errors.Is(p.cmd.Process.Signal(signal), os.ErrProcessDone) {
		signal = syscall.SIGKILL
	}
	hard := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait() // a signal is what it ends with
	hard.Stop()
	p.cmd = nil
}

// theirs is the etcd that histories are played against, when there is one.
const theirs = "/usr/bin/etcd"

// memoryDir is a directory without syncs that take their time, where the system
// has one.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "history")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestARealEtcdDiffersOnlyWhereTheSpecificationSaysSo plays histories against
// etcd 3.4: where it differs is listed in the table of differences and in the
// document. KVORUM_ETCD_HISTORIES is another number of them.
func TestARealEtcdDiffersOnlyWhereTheSpecificationSaysSo(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(theirs); err != nil {
		t.Skipf("no etcd to compare with: %v (Debian: apt-get install etcd-server)", err)
	}
	histories := 250
	if testing.Short() {
		histories = 40
	}
	histories = number(t, "KVORUM_ETCD_HISTORIES", histories)
	s := &process{binary: theirs, dir: memoryDir(t), client: ports.Reserve(t), peer: ports.Reserve(t)}
	t.Cleanup(func() { s.stop(syscall.SIGKILL) })
	p := &Player{
		Server: s, UnstableTies: true, Rules: rules(), Restarts: []Restart{Clean, Kill}, RestartOneIn: 60,
	}
	for seed := range histories {
		check(t, p.Play(uint64(seed), seed%125 == 0))
	}
	t.Logf("%d histories, %d calls, %d restarts", histories, p.Calls, p.Restarted)
	for _, rule := range p.Rules {
		t.Logf("%d times: %s", rule.Seen, rule.Title)
	}
	if !testing.Short() {
		p.Tally.judge(t, worth)
	}
}

// TestEachDifferenceIsOne shows the need for each rule: the other server's answer
// to its scene is as the table says, and not what the oracle says.
func TestEachDifferenceIsOne(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(theirs); err != nil {
		t.Skipf("no etcd to compare with: %v", err)
	}
	s := &process{binary: theirs, dir: memoryDir(t), client: ports.Reserve(t), peer: ports.Reserve(t)}
	t.Cleanup(func() { s.stop(syscall.SIGKILL) })
	p := &Player{Server: s}
	for _, d := range differences {
		r, err := p.begin(true)
		check(t, err)
		last := len(d.requests) - 1
		for _, request := range d.requests[:last] {
			check(t, r.play(Step{Request: request}))
		}
		if !d.Applies(d.requests[last]) {
			t.Errorf("%s: the rule does not see its scene", d.Title)
		}
		want := expected(r.oracle, Step{}, d.requests[last])
		got, _ := p.call(d.requests[last], false, 0)
		switch {
		case d.dies && got.code != codes.Unavailable:
			t.Errorf("%s: it lives and says %v", d.Title, got)
		case !d.dies && !strings.Contains(got.String(), d.answers):
			t.Errorf("%s: it says %v", d.Title, got)
		case p.identity.difference(want, got) == nil:
			t.Errorf("%s: there is no difference", d.Title)
		}
	}
}

// TestEachDifferenceIsInTheDocument holds the document against the table.
func TestEachDifferenceIsInTheDocument(t *testing.T) {
	page, err := os.ReadFile("../../../docs/guide/differences-from-etcd-3.4.md")
	check(t, err)
	for _, d := range differences {
		if !strings.Contains(string(page), "\n### "+d.Title+"\n") {
			t.Errorf("no heading %q", d.Title)
		}
	}
}
