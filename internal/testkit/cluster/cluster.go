// Package cluster starts clusters of real processes and does to them what happens
// to machines: kill -9, SIGTERM, SIGSTOP, lost directories, and on the way between
// members cuts, delays and silence in either direction. It waits by reading logs
// and asking members, never for a time alone.
//
// A cluster has loopback addresses of its own (127.x.y.1 and up), so that its
// ports are free whatever else runs. The package also loads a cluster with the
// official Go client and judges what the clients saw (load.go).
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// patience bounds every wait of a test.
const patience = 30 * time.Second

// Options of a cluster.
type Options struct {
	// Etcd and Etcdctl are programs; see Self.
	Etcd, Etcdctl string
	// Size is how many members the cluster is formed of.
	Size int
	// Flags are more that every member is given.
	Flags []string
	// Direct has members advertise the port that they listen on; else a proxy
	// stands between.
	Direct bool
	// User and Password are whose questions the members answer, where users are
	// checked.
	User, Password string
}

// Cluster is some members and what lies between them.
type Cluster struct {
	t       testing.TB
	opts    Options
	prefix  string // of all addresses: 127.x.y.
	network *network
	// Members are those of the first hour, then those that Add made.
	Members []*Member
}

// New makes a cluster of which nothing runs yet. All ends with the test.
func New(t testing.TB, opts Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t, opts: opts, prefix: ownAddresses(t), network: newNetwork()}
	t.Cleanup(c.end)
	for range opts.Size {
		c.Add()
	}
	return c
}

// The ports of every member, on an address of its own.
const (
	clientPort     = "12379"
	peerPort       = "12380"
	advertisedPort = "12381"
)

// ownAddresses finds a range of loopback addresses that nobody listens on.
func ownAddresses(t testing.TB) string {
	t.Helper()
	for range 20 {
		prefix := fmt.Sprintf("127.%d.%d.", 1+rand.IntN(254), rand.IntN(256))
		l, err := net.Listen("tcp", prefix+"1:"+clientPort)
		if err == nil {
			l.Close()
			return prefix
		}
	}
	t.Fatal("no loopback addresses are free")
	return ""
}

// Add makes room for one more member, called n1, n2 and so on.
func (c *Cluster) Add() *Member {
	c.t.Helper()
	number := len(c.Members) + 1
	address := fmt.Sprintf("%s%d:", c.prefix, number)
	m := &Member{
		c: c, Name: fmt.Sprintf("n%d", number), Dir: filepath.Join(c.t.TempDir(), "data"),
		Client: address + clientPort, listens: address + peerPort, Peer: address + advertisedPort,
	}
	if c.opts.Direct {
		m.Peer = m.listens
	} else if err := c.network.stand(m.Name, m.Peer, m.listens); err != nil {
		c.t.Fatal(err)
	}
	c.Members = append(c.Members, m)
	return m
}

// Link puts a rule on what from sends to to; nil stands for every other member.
// Members are told apart by the greeting of their connections, so this is for
// clusters without TLS between members.
func (c *Cluster) Link(from, to *Member, r Rule) {
	for _, a := range c.Members {
		for _, b := range c.Members {
			if a != b && (from == nil || a == from) && (to == nil || b == to) {
				c.network.set(a.Name, b.Name, r)
			}
		}
	}
}

// Start starts members of a cluster that is being formed, all at once, and waits
// until each serves.
func (c *Cluster) Start(members ...*Member) {
	c.t.Helper()
	for _, m := range members {
		m.Launch()
	}
	for _, m := range members {
		m.AwaitReady()
	}
}

// InitialCluster is what --initial-cluster says with these members.
func InitialCluster(members ...*Member) string {
	var list []string
	for _, m := range members {
		list = append(list, m.Name+"=http://"+m.Peer)
	}
	return strings.Join(list, ",")
}

// Endpoints are the client addresses of all members.
func (c *Cluster) Endpoints() (list []string) {
	for _, m := range c.Members {
		list = append(list, "http://"+m.Client)
	}
	return list
}

// client is one of the official Go client, for some endpoints.
func (c *Cluster) client(endpoints []string) (*clientv3.Client, error) {
	config := clientv3.Config{Endpoints: endpoints, Username: c.opts.User, Password: c.opts.Password, Logger: zap.NewNop()}
	if config.Username != "" {
		config.DialTimeout = 2 * time.Second // for the token, which it waits for
	}
	return clientv3.New(config)
}

// KV makes a client for the members, ended with the test.
func (c *Cluster) KV(members ...*Member) *clientv3.Client {
	c.t.Helper()
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, "http://"+m.Client)
	}
	cl, err := c.client(endpoints)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cl.Close() })
	return cl
}

// Eventually asks until it is so; ctx ends a question that takes too long.
func (c *Cluster) Eventually(what string, so func(context.Context) bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !so(ctx) {
		select {
		case <-ctx.Done():
			c.t.Fatalf("waited in vain: %s\n%s", what, c.said())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// said are the last lines of every member.
func (c *Cluster) said() string {
	var all strings.Builder
	for _, m := range c.Members {
		lines := m.Log()
		fmt.Fprintf(&all, "--- %s\n%s\n", m.Name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
	return all.String()
}

// Leader is the member that all that run follow.
func (c *Cluster) Leader() *Member {
	c.t.Helper()
	var running []*Member
	for _, m := range c.Members {
		if m.Running() {
			running = append(running, m)
		}
	}
	return c.LeaderOf(running...)
}

// LeaderOf is the one of these members that all of them follow.
func (c *Cluster) LeaderOf(members ...*Member) (leader *Member) {
	c.t.Helper()
	c.Eventually("a leader of all", func(ctx context.Context) bool {
		leads, byID := map[uint64]int{}, map[uint64]*Member{}
		for _, m := range members {
			ask, cancel := context.WithTimeout(ctx, time.Second)
			s, err := m.status(ask)
			cancel()
			if err != nil {
				return false
			}
			byID[s.Header.MemberId] = m
			leads[s.Leader]++
		}
		for id, followers := range leads {
			if followers == len(members) {
				leader = byID[id]
			}
		}
		return leader != nil
	})
	return leader
}

// Others are all members but one.
func (c *Cluster) Others(one *Member) (list []*Member) {
	for _, m := range c.Members {
		if m != one {
			list = append(list, m)
		}
	}
	return list
}

// Ctl runs etcdctl with the cluster's endpoints in its environment, or with those
// that the arguments name.
func (c *Cluster) Ctl(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.opts.Etcdctl, args...)
	var out, said bytes.Buffer
	cmd.Env = inherited([]string{"ETCDCTL_API=3"})
	if !strings.Contains(strings.Join(args, " "), "--endpoints") {
		cmd.Env = append(cmd.Env, "ETCDCTL_ENDPOINTS="+strings.Join(c.Endpoints(), ","))
	}
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return out.String(), said.String(), cmd.ProcessState.ExitCode()
}

// end kills what runs and closes the ports.
func (c *Cluster) end() {
	if c.t.Failed() {
		c.t.Logf("what the members said last:\n%s", c.said())
	}
	for _, m := range c.Members {
		if m.Running() {
			m.Kill()
		}
		if m.asked != nil {
			m.asked.Close()
		}
	}
	c.network.close()
}
