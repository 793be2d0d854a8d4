package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/cluster"
)

// patroniEtcd is the etcd that the pair is told of: ours, or another, by its path.
//
//	KVORUM_PATRONI=1 go test -v -run Patroni ./cmd/etcd
//	KVORUM_PATRONI=/usr/bin/etcd go test -v -run Patroni ./cmd/etcd
func patroniEtcd(t *testing.T) string {
	t.Helper()
	switch etcd := os.Getenv("KVORUM_PATRONI"); etcd {
	case "":
		t.Skip("KVORUM_PATRONI is not set: two minutes with two servers of PostgreSQL")
		return ""
	case "1":
		return cluster.Self(t, "etcd")
	default:
		return etcd
	}
}

// Patroni, with etcd3 as its store, keeps a pair of PostgreSQL through the loss of the
// primary and of members: the standby is promoted, a primary stays one, and no row that
// was acknowledged is lost.
func TestPatroniKeepsItsPair(t *testing.T) {
	c := cluster.New(t, cluster.Options{Etcd: patroniEtcd(t), Size: 3, Direct: true})
	c.Start(c.Members...)
	hosts := addresses(c, func(m *cluster.Member) string { return m.Client })
	tellOfThePair(t, c, newPair(t, "  hosts: ["+hosts+"]\n"), func(m *cluster.Member) { c.Start(m) })
}

// The same with certificates of both sides and a user who may touch nothing but what is
// Patroni's. Where users are checked the JSON gateway takes no certificate with a common
// name, and nobody is told the members without a token, which this Patroni asks for too
// late: with use_proxies it does not ask. (docs/guide/operations.md)
func TestPatroniWithTLSAndAUser(t *testing.T) {
	s := newSecured(t, patroniEtcd(t), 3, true)
	s.start(s.Members...)
	s.users(t, "patroni", "storepw", "/service/pair/")
	cert, key := s.ca.IssueNameless(t, "patroni")
	p := newPair(t, fmt.Sprintf(`  hosts: [%s]
  use_proxies: true
  protocol: https
  cacert: {dir}/ca.pem
  cert: {dir}/patroni.pem
  key: {dir}/patroni-key.pem
  username: patroni
  password: storepw
`, addresses(s.Cluster, secureAddress)), s.ca.File, cert, key)
	tellOfThePair(t, s.Cluster, p, func(m *cluster.Member) { s.start(m) })
}

// addresses is a list for a file of YAML.
func addresses(c *cluster.Cluster, of func(*cluster.Member) string) string {
	var list []string
	for _, m := range c.Members {
		list = append(list, `"`+of(m)+`"`)
	}
	return strings.Join(list, ", ")
}

// tellOfThePair is the story. Start starts a member again.
func tellOfThePair(t *testing.T, c *cluster.Cluster, p *pair, start func(*cluster.Member)) {
	for _, n := range p.nodes {
		n.start()
	}
	begun := time.Now()
	tell := func(format string, args ...any) {
		t.Logf("%5.1fs "+format, append([]any{time.Since(begun).Seconds()}, args...)...)
	}
	primary, standby := p.primary()
	tell("%s is the primary, %s its synchronous standby", primary.name, standby.name)
	if said, err := primary.sql("CREATE TABLE kept (n int PRIMARY KEY)"); err != nil {
		t.Fatal(said)
	}
	rows := p.writeRows()
	rows.more(p)

	// The machine of the primary dies.
	rows.soFar()
	killed := time.Now()
	primary.crash()
	p.until(standby.name+" to be the primary", func() bool {
		now, _ := p.roles()
		return now == standby
	})
	rows.more(p)
	_, _, pause := rows.soFar()
	tell("the primary was killed; %s is the primary after %v; no row for %v", standby.name, time.Since(killed).Round(time.Second), pause.Round(time.Second/10))
	primary.start()
	former := primary
	if primary, standby = p.primary(); standby != former {
		t.Fatalf("the primary is %s", primary.name)
	}
	rows.more(p)
	tell("%s is back, as standby", standby.name)

	// The leader of the members, and the one that the primary's Patroni talks to.
	for _, which := range []string{"leader", "one that the primary asks"} {
		m := c.Leader()
		if which != "leader" {
			m = asks(t, c, primary)
		}
		before, err := primary.state()
		must(t, err)
		_, failed, _ := rows.soFar()
		m.Kill()
		p.stays(primary, before, 3*patroniTTL/2*time.Second)
		rows.more(p)
		_, failedNow, pause := rows.soFar()
		if failedNow > failed {
			t.Errorf("rows failed: %q", rows.failed[failed:])
		}
		start(m)
		m.AwaitCaughtUp(c.Leader())
		tell("the %s, %s, was killed: the longest pause between two rows was %v", which, m.Name, pause.Round(time.Millisecond))
	}

	again, _ := p.primary()
	if again != primary {
		t.Errorf("%s is the primary", again.name)
	}
	rows.more(p)
	rows.stop()
	p.hold(rows)
	tell("%d rows kept, %d not; both have them all", len(rows.kept), len(rows.failed))
}

// asks is the member that a node's Patroni is connected to.
func asks(t *testing.T, c *cluster.Cluster, n *node) *cluster.Member {
	t.Helper()
	peers := n.talksTo()
	for _, m := range c.Members {
		host, _, _ := strings.Cut(m.Client, ":")
		if slices.ContainsFunc(peers, func(peer string) bool { return strings.HasPrefix(peer, host+":") }) {
			return m
		}
	}
	t.Fatalf("%s asks no member: %v", n.name, peers)
	return nil
}

// stays looks at a node for a while, in which its PostgreSQL must neither be restarted
// nor step down.
func (p *pair) stays(n *node, before state, long time.Duration) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	for tick := time.NewTicker(200 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		if now, err := n.state(); err != nil || now != before {
			p.t.Fatalf("%s was %+v, is %+v, %v", n.name, before, now, err)
		}
	}
}

// hold looks for every row that was acknowledged, on both nodes.
func (p *pair) hold(r *rows) {
	p.t.Helper()
	for _, n := range p.nodes {
		p.until(n.name+" to have the last row", func() bool {
			said, err := n.sql(fmt.Sprintf("SELECT count(*) FROM kept WHERE n = %d", r.kept[len(r.kept)-1]))
			return err == nil && said == "1"
		})
		said, err := n.sql("SELECT n FROM kept ORDER BY n")
		if err != nil {
			p.t.Fatal(said)
		}
		has := map[int]bool{}
		for _, line := range strings.Fields(said) {
			row, err := strconv.Atoi(line)
			must(p.t, err)
			has[row] = true
		}
		for _, row := range r.kept {
			if !has[row] {
				p.t.Errorf("%s has lost row %d, which was acknowledged", n.name, row)
			}
		}
	}
}
