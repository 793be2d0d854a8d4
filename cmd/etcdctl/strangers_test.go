package main

import (
	"os"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/testkit/cluster"
)

// Members that believe they are of another cluster are never taken in: they say
// why, do not serve, and leave the cluster as it is. Each is one mistake of a file.
func TestMembersOfAnotherCluster(t *testing.T) {
	c := cluster.New(t, cluster.Options{
		Etcd: cluster.Self(t, "etcd"), Etcdctl: cluster.Self(t, "etcdctl"), Size: 3, Direct: true,
		Flags: []string{"--initial-cluster-token=ours", "--strict-reconfig-check=false"},
	})
	members := c.Members
	c.Start(members...)
	flags := members[2].Flags()
	do := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := c.Ctl(args...)
		if code != 0 {
			t.Fatalf("etcdctl %s: %s", strings.Join(args, " "), stderr)
		}
		return stdout
	}
	do("put", "a", "1")
	before := do("member", "list")
	refused := func(what string, m *cluster.Member, flags []string) {
		t.Helper()
		m.LaunchIn(nil, flags...)
		m.AwaitLog("cluster ID mismatch")
		m.Kill()
		for _, line := range m.Log() {
			if strings.Contains(line, "ready to serve") {
				t.Errorf("%s: it serves", what)
			}
		}
		if after := do("member", "list"); after != before {
			t.Errorf("%s: the members were\n%s and are\n%s", what, before, after)
		}
		if got := do("get", "a", "--print-value-only"); got != "1\n" {
			t.Errorf("%s: a is %q", what, got)
		}
	}

	// One of the three comes back with nothing, and with another token.
	members[2].Kill()
	kept := members[2].Dir + ".kept"
	if err := os.Rename(members[2].Dir, kept); err != nil {
		t.Fatal(err)
	}
	refused("another token", members[2], append(flags, "--initial-cluster-token=theirs"))
	members[2].Wipe()

	// A fourth one forms its own cluster of four instead of joining.
	fourth := c.Add()
	refused("new instead of existing", fourth, append(fourth.Flags(), "--initial-cluster-state=new"))

	// What the fourth has now is another cluster's, whatever its flags say.
	if err := os.Rename(fourth.Dir, members[2].Dir); err != nil {
		t.Fatal(err)
	}
	refused("another's data", members[2], flags)
	members[2].Wipe()

	// With its own data it is one of them again.
	if err := os.Rename(kept, members[2].Dir); err != nil {
		t.Fatal(err)
	}
	members[2].LaunchIn(nil, flags...)
	members[2].AwaitReady()
	if after := do("member", "list"); after != before {
		t.Errorf("the members were\n%s and are\n%s", before, after)
	}
}

// Members of a new cluster that are started one after the other, each ended before
// it met another, as by a service manager that waits for READY, form it when they
// are all there.
func TestAClusterIsFormedAfterLonelyStarts(t *testing.T) {
	c := cluster.New(t, cluster.Options{Etcd: cluster.Self(t, "etcd"), Etcdctl: cluster.Self(t, "etcdctl"), Size: 3, Direct: true})
	for _, m := range c.Members {
		m.Launch()
		m.AwaitLog("cannot connect to peer")
		m.Kill()
	}
	c.Start(c.Members...)
	stdout, stderr, code := c.Ctl("member", "list")
	if code != 0 || strings.Count(stdout, ", started, ") != 3 {
		t.Errorf("the members are %s%s", stdout, stderr)
	}
}
