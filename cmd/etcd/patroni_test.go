package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// This file is a pair of PostgreSQL servers under Patroni, for patroni_pair_test.go.

// Patroni's times, in seconds: shorter than its own, within its rule
// loop_wait + 2 * retry_timeout <= ttl.
const (
	patroniTTL   = 10
	patroniLoop  = 1
	patroniRetry = 4
)

// pgPatience bounds waits for PostgreSQL, which makes copies of itself meanwhile.
const pgPatience = 90 * time.Second

// pair is two nodes, of which one is the primary.
type pair struct {
	t     *testing.T
	dir   string
	user  *syscall.Credential // PostgreSQL does not run as root; nil: as who we are
	nodes []*node
}

// node is Patroni, and the PostgreSQL that it keeps.
type node struct {
	p                *pair
	name, dir        string
	rest, postgreSQL string // addresses
	cmd              *exec.Cmd
	exited           chan struct{}
}

// postgresPrograms is where PostgreSQL's programs are; the test is skipped where it,
// Patroni, or their Python is missing.
func postgresPrograms(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pg_rewind")
	if len(found) == 0 {
		t.Skip("PostgreSQL is not installed (Debian's postgresql)")
	}
	if _, err := os.Stat("/usr/bin/patroni"); err != nil {
		t.Skip("Patroni is not installed (Debian's patroni and python3-etcd)")
	}
	if out, err := exec.Command("/usr/bin/python3", "-c", "import psycopg2, etcd").CombinedOutput(); err != nil {
		t.Skipf("python3-psycopg2 or python3-etcd is not installed: %s", out)
	}
	return filepath.Dir(found[len(found)-1])
}

// newPair makes two nodes of which nothing runs yet. Store is Patroni's section etcd3,
// its lines indented; {dir} in it is a directory that PostgreSQL's user may read, where
// files are copied.
func newPair(t *testing.T, store string, files ...string) *pair {
	t.Helper()
	bin := postgresPrograms(t)
	dir, err := os.MkdirTemp("", "kvorum-patroni")
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t, dir: dir}
	t.Cleanup(p.end)
	if os.Getuid() == 0 {
		postgres, err := user.Lookup("postgres")
		if err != nil {
			t.Skip(err)
		}
		uid, err := strconv.ParseUint(postgres.Uid, 10, 32)
		must(t, err)
		gid, err := strconv.ParseUint(postgres.Gid, 10, 32)
		must(t, err)
		p.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	must(t, os.Chmod(dir, 0o755))
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		p.write(filepath.Base(file), string(text))
	}
	store = strings.ReplaceAll(store, "{dir}", dir)
	for i := range 2 {
		n := &node{p: p, name: fmt.Sprintf("pg%d", i+1), rest: ports.Reserve(t), postgreSQL: ports.Reserve(t)}
		n.dir = filepath.Join(dir, n.name)
		must(t, os.Mkdir(n.dir, 0o700))
		p.give(n.dir)
		config := strings.NewReplacer("{name}", n.name, "{rest}", n.rest, "{postgresql}", n.postgreSQL, "{dir}", n.dir, "{bin}", bin,
			"{ttl}", fmt.Sprint(patroniTTL), "{loop}", fmt.Sprint(patroniLoop), "{retry}", fmt.Sprint(patroniRetry)).Replace(patroniConfig)
		p.write(n.name+".yml", config+"etcd3:\n"+store)
		p.nodes = append(p.nodes, n)
	}
	return p
}

// patroniConfig has all but the section etcd3.
const patroniConfig = `
scope: pair
name: {name}
restapi: {listen: "{rest}", connect_address: "{rest}"}
bootstrap:
  dcs:
    ttl: {ttl}
    loop_wait: {loop}
    retry_timeout: {retry}
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters: {max_connections: 20, shared_buffers: 16MB, wal_keep_size: 64MB}
  initdb: [{encoding: UTF8}, {locale: C}, data-checksums]
postgresql:
  listen: "{postgresql}"
  connect_address: "{postgresql}"
  data_dir: {dir}/data
  bin_dir: {bin}
  pgpass: {dir}/pgpass
  pg_hba: ["local all all md5", "host all all 127.0.0.0/8 md5", "host replication replicator 127.0.0.0/8 md5"]
  authentication:
    superuser: {username: postgres, password: superpw}
    replication: {username: replicator, password: replpw}
    rewind: {username: rewinder, password: rewindpw}
  parameters: {unix_socket_directories: {dir}}
`

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// give makes PostgreSQL's user the owner of a file.
func (p *pair) give(path string) {
	p.t.Helper()
	if p.user != nil {
		must(p.t, os.Chown(path, int(p.user.Uid), int(p.user.Gid)))
	}
}

func (p *pair) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	must(p.t, os.WriteFile(path, []byte(text), 0o600))
	p.give(path)
}

// start starts Patroni, which starts PostgreSQL; its log grows with every start.
func (n *node) start() {
	n.p.t.Helper()
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(n.p.t, err)
	defer log.Close()
	n.cmd = exec.Command("/usr/bin/python3", "/usr/bin/patroni", n.dir+".yml")
	n.cmd.Dir, n.cmd.Stdout, n.cmd.Stderr = n.dir, log, log
	n.cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + n.dir, "LC_ALL=C.UTF-8", "PYTHONUNBUFFERED=1"}
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: n.p.user, Setpgid: true}
	must(n.p.t, n.cmd.Start())
	n.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(n.cmd, n.exited)
}

func (n *node) log() string { return filepath.Join(n.p.dir, n.name+".log") }

// crash is the end of a machine: Patroni, then PostgreSQL, by a signal that neither sees.
func (n *node) crash() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill()
	<-n.exited
	n.cmd = nil
	text, err := os.ReadFile(filepath.Join(n.dir, "data", "postmaster.pid"))
	if err != nil {
		return
	}
	first, _, _ := strings.Cut(string(text), "\n")
	if pid, err := strconv.Atoi(first); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL) // its children end when they miss it
	}
}

func (p *pair) end() {
	for _, n := range p.nodes {
		n.crash()
		if p.t.Failed() {
			text, _ := os.ReadFile(n.log())
			lines := strings.Split(string(text), "\n")
			p.t.Logf("--- Patroni of %s\n%s", n.name, strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
	}
	for begun := time.Now(); os.RemoveAll(p.dir) != nil && time.Since(begun) < 10*time.Second; {
		time.Sleep(10 * time.Millisecond) // PostgreSQL's last processes still write
	}
}

// until asks again and again.
func (p *pair) until(what string, so func() bool) {
	p.t.Helper()
	for begun := time.Now(); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Since(begun) > pgPatience {
			p.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// ask gets a page of Patroni's own.
func (n *node) ask(path string, page any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.rest+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(page)
}

// state is what a node says of itself.
type state struct {
	State    string `json:"state"`
	Role     string `json:"role"`
	Started  string `json:"postmaster_start_time"`
	Timeline int    `json:"timeline"`
}

func (n *node) state() (s state, err error) {
	err = n.ask("/patroni", &s)
	return s, err
}

// primary waits until one node is the primary and the other its synchronous standby.
func (p *pair) primary() (primary, standby *node) {
	p.t.Helper()
	p.until("a primary and its synchronous standby", func() bool {
		primary, standby = p.roles()
		return primary != nil && standby != nil
	})
	return primary, standby
}

// roles are as Patroni tells them, of nodes that run.
func (p *pair) roles() (primary, standby *node) {
	for _, n := range p.nodes {
		var page struct {
			Members []struct{ Name, Role, State string }
		}
		if n.cmd == nil || n.ask("/cluster", &page) != nil {
			continue
		}
		for _, m := range page.Members {
			i := slices.IndexFunc(p.nodes, func(n *node) bool { return n.name == m.Name })
			switch {
			case i < 0 || m.State != "running" && m.State != "streaming":
			case m.Role == "leader":
				primary = p.nodes[i]
			case m.Role == "sync_standby":
				standby = p.nodes[i]
			}
		}
		return primary, standby
	}
	return nil, nil
}

// sql runs a query at one node.
func (n *node) sql(query string) (string, error) {
	host, port, _ := strings.Cut(n.postgreSQL, ":")
	cmd := exec.Command("psql", "-XAtq", "-h", host, "-p", port, "-U", "postgres", "-c", query, "postgres")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "PGPASSWORD=superpw", "PGCONNECT_TIMEOUT=5"}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// talksTo are the addresses that the node's Patroni has connections to.
func (n *node) talksTo() (peers []string) {
	sockets := map[string]bool{}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.cmd.Process.Pid))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil {
			sockets[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	table, _ := os.ReadFile("/proc/net/tcp")
	for line := range strings.Lines(string(table)) {
		const established = "01"
		f := strings.Fields(line) // number, local, remote, state, ..., inode at 9
		if len(f) < 10 || f[3] != established || !sockets[f[9]] {
			continue
		}
		var a, b, c, d, port int
		if _, err := fmt.Sscanf(f[2], "%2X%2X%2X%2X:%X", &d, &c, &b, &a, &port); err == nil {
			peers = append(peers, fmt.Sprintf("%d.%d.%d.%d:%d", a, b, c, d, port))
		}
	}
	return peers
}

// rows is a program that writes rows to whichever server takes them.
type rows struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu     sync.Mutex
	kept   []int
	failed []string
	last   time.Time
	pause  time.Duration // the longest between two that were kept
}

// writeRows begins; it ends with the test.
func (p *pair) writeRows() *rows {
	p.t.Helper()
	var hosts, ports []string
	for _, n := range p.nodes {
		host, port, _ := strings.Cut(n.postgreSQL, ":")
		hosts, ports = append(hosts, host), append(ports, port)
	}
	to := fmt.Sprintf("host=%s port=%s user=postgres password=superpw dbname=postgres target_session_attrs=read-write connect_timeout=2",
		strings.Join(hosts, ","), strings.Join(ports, ","))
	r := &rows{cmd: exec.Command("/usr/bin/python3", filepath.Join(clientScripts, "rows.py"), to), done: make(chan struct{}), last: time.Now()}
	out, err := r.cmd.StdoutPipe()
	must(p.t, err)
	r.cmd.Stderr = os.Stderr
	must(p.t, r.cmd.Start())
	go func() {
		defer close(r.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			r.saw(lines.Text())
		}
		_ = r.cmd.Wait()
	}()
	p.t.Cleanup(func() { r.stop() })
	return r
}

func (r *rows) saw(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	if _, err := fmt.Sscanf(line, "kept %d", &n); err != nil {
		r.failed = append(r.failed, line)
		return
	}
	r.kept = append(r.kept, n)
	r.pause = max(r.pause, time.Since(r.last))
	r.last = time.Now()
}

// so far: how many were kept, how many not, and the longest pause since it was asked last.
func (r *rows) soFar() (kept, failed int, pause time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pause, r.pause = r.pause, 0
	return len(r.kept), len(r.failed), pause
}

// more waits until some more rows are kept.
func (r *rows) more(p *pair) {
	p.t.Helper()
	before, _, _ := r.soFar()
	p.until("more rows", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.kept) >= before+20
	})
}

func (r *rows) stop() {
	_ = r.cmd.Process.Kill()
	<-r.done
}
