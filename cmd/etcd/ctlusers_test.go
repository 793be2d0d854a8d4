package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/testkit/cluster"
)

// ctlUsers is what Debian's etcdctl is told of users, call by call.
type ctlUsers struct {
	*cluster.Cluster
	lines []string
}

// at runs etcdctl at one member and notes what a script would see: the code, the output,
// and of what is said beside it the error. An older etcdctl logs each try.
func (s *ctlUsers) at(m *cluster.Member, args ...string) (stdout string) {
	out, said, code := s.Ctl(append([]string{"--endpoints=http://" + m.Client, "--dial-timeout=20s", "--command-timeout=20s"}, args...)...)
	line := fmt.Sprintf("%s %s: %d %q", m.Name, strings.Join(args, " "), code, out)
	for text := range strings.Lines(said) {
		if strings.HasPrefix(text, "Error:") {
			line += " " + strings.TrimSpace(text)
		}
	}
	s.lines = append(s.lines, line)
	return out
}

// make makes root, and ann, who may do what she likes below a.
func (s *ctlUsers) make(m *cluster.Member) {
	for _, args := range [][]string{
		{"put", "other", "root's"}, {"user", "add", "root:rootpw"}, {"user", "grant-role", "root", "root"}, {"role", "add", "hers"},
		{"role", "grant-permission", "hers", "readwrite", "a", "--prefix"}, {"user", "add", "ann:annpw"}, {"user", "grant-role", "ann", "hers"},
		{"auth", "enable"},
	} {
		s.at(m, args...)
	}
}

// calls are what ann, a stranger and nobody ask a member for.
func (s *ctlUsers) calls(m *cluster.Member) {
	const ann = "--user=ann:annpw"
	for _, args := range [][]string{
		{ann, "put", "a1", "of ann"}, {ann, "get", "a1"}, {ann, "get", "a1", "--consistency=s"}, {ann, "get", "a", "--prefix", "--keys-only"},
		{ann, "put", "other", "x"}, {ann, "get", "other"}, {ann, "get", "other", "--consistency=s"}, {ann, "get", "", "--from-key"},
		{ann, "del", "other"}, {ann, "del", "a2", "--prev-kv"}, {ann, "user", "get", "ann"}, {ann, "role", "get", "hers"},
		{ann, "user", "get", "root"}, {ann, "user", "add", "eve:x"}, {ann, "auth", "disable"}, {ann, "member", "add", "x", "--peer-urls=http://127.0.0.1:1"},
		{"get", "a1"}, {"put", "a1", "x"}, {"--user=ann:no", "get", "a1"}, {"--user=eve:no", "get", "a1"}, {"--user=root:rootpw", "get", "other"},
	} {
		s.at(m, args...)
	}
}

// rest is every member but some.
func (s *ctlUsers) rest(gone ...*cluster.Member) []*cluster.Member {
	return slices.DeleteFunc(slices.Clone(s.Members), func(m *cluster.Member) bool { return slices.Contains(gone, m) })
}

// tellCtlUsers is the whole story: the leader is killed, comes back and finds what was
// changed without it; then a member is left alone, and the others come back.
func tellCtlUsers(t *testing.T, etcd, etcdctl string, size int) []string {
	s := &ctlUsers{Cluster: cluster.New(t, cluster.Options{
		Etcd: etcd, Etcdctl: etcdctl, Size: size, Direct: true, Flags: []string{"--bcrypt-cost=4"}, User: "root", Password: "rootpw",
	})}
	s.Start(s.Members...)
	s.Leader()
	s.make(s.Members[0])
	for _, m := range s.Members {
		s.calls(m)
	}
	first := s.Members[0]
	first.Kill()
	if others := s.rest(first); size > 1 {
		s.LeaderOf(others...)
		for _, m := range others {
			s.calls(m)
		}
		s.at(others[0], "--user=root:rootpw", "role", "grant-permission", "hers", "read", "other")
		s.at(others[1], "--user=ann:annpw", "get", "other")
	}
	s.Start(first)
	s.Leader()
	s.at(first, "--user=ann:annpw", "get", "other")
	last := s.Members[size-1]
	s.at(first, "--user=root:rootpw", "user", "revoke-role", "ann", "hers")
	s.at(last, "--user=ann:annpw", "get", "a1")
	s.at(first, "--user=root:rootpw", "user", "grant-role", "ann", "hers")
	s.calls(last)
	if size > 1 {
		others := s.rest(last)
		for _, m := range others {
			m.Kill()
		}
		// Whoever logs in needs a leader.
		s.at(last, "--user=ann:annpw", "get", "a1", "--consistency=s")
		s.Start(others...)
		s.Leader()
		s.calls(last)
	}
	s.at(first, "--user=root:rootpw", "user", "delete", "ann")
	s.at(last, "--user=ann:annpw", "get", "a1")
	s.at(first, "--user=root:rootpw", "auth", "disable")
	s.at(last, "get", "other")
	return s.lines
}

// Users through Debian's etcdctl, on one member that is killed and on three; beside
// another etcd where KVORUM_USERS_BESIDE names one.
func TestEtcdctlsUsers(t *testing.T) {
	skipShort(t)
	const etcdctl = "/usr/bin/etcdctl"
	if _, err := os.Stat(etcdctl); err != nil {
		t.Skip(err)
	}
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			got := tellCtlUsers(t, cluster.Self(t, "etcd"), etcdctl, size)
			last := fmt.Sprint("n", size)
			for _, line := range []string{
				last + ` --user=ann:annpw get a1: 0 "a1\nof ann\n"`, last + ` --user=ann:annpw get other: 1 "" Error: etcdserver: permission denied`,
				last + ` get a1: 1 "" Error: etcdserver: user name is empty`, last + ` --user=ann:annpw get a1: 1 "" Error: etcdserver: permission denied`,
			} {
				if !slices.Contains(got, line) {
					t.Errorf("no line %q in\n%s", line, strings.Join(got, "\n"))
				}
			}
			if etcd := os.Getenv("KVORUM_USERS_BESIDE"); etcd != "" {
				sameLines(t, "beside etcd 3.4", strings.Join(got, "\n"), strings.Join(tellCtlUsers(t, etcd, etcdctl, size), "\n"))
			}
			t.Logf("%d calls", len(got))
		})
	}
}
