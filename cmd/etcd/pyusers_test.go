package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/testkit/certs"
	"github.com/kvorum/kvorum/internal/testkit/cluster"
)

// secured is a cluster whose members take TLS beside clear text, at a port of its own (an
// older etcd confuses the two at one), and a certificate for it.
type secured struct {
	*cluster.Cluster
	ca        *certs.Authority
	cert, key string // good for members and clients
	demands   bool   // a certificate of every client over TLS
}

// newSecured makes a cluster of which nothing runs yet; its root's password is rootpw.
func newSecured(t *testing.T, etcd string, size int, demands bool) *secured {
	t.Helper()
	s := &secured{demands: demands, ca: certs.NewAuthority(t), Cluster: cluster.New(t, cluster.Options{
		Etcd: etcd, Etcdctl: cluster.Self(t, "etcdctl"), Size: size, Direct: true, Flags: []string{"--bcrypt-cost=4"},
		User: "root", Password: "rootpw",
	})}
	hosts := []string{"127.0.0.1"}
	for _, m := range s.Members {
		host, _, _ := strings.Cut(m.Client, ":")
		hosts = append(hosts, host)
	}
	s.cert, s.key = s.ca.Issue(t, "node", hosts...)
	return s
}

// secureAddress is where a member takes TLS.
func secureAddress(m *cluster.Member) string {
	host, _, _ := strings.Cut(m.Client, ":")
	return host + ":12479"
}

// start starts members and waits until they serve.
func (s *secured) start(members ...*cluster.Member) {
	for _, m := range members {
		flags := []string{"--listen-client-urls=http://" + m.Client + ",https://" + secureAddress(m), "--advertise-client-urls=https://" + secureAddress(m),
			"--cert-file=" + s.cert, "--key-file=" + s.key}
		if s.demands {
			flags = append(flags, "--trusted-ca-file="+s.ca.File, "--client-cert-auth")
		}
		m.Launch(flags...)
	}
	for _, m := range members {
		m.AwaitReady()
	}
}

// users makes root, and somebody who may do what he likes below some prefixes, and has
// permissions checked.
func (s *secured) users(t *testing.T, name, password string, prefixes ...string) {
	t.Helper()
	calls := [][]string{{"put", "other", "root's"}, {"user", "add", "root:rootpw"}, {"user", "grant-role", "root", "root"}, {"role", "add", "his"}}
	for _, prefix := range prefixes {
		calls = append(calls, []string{"role", "grant-permission", "his", "readwrite", prefix, "--prefix"})
	}
	calls = append(calls, []string{"user", "add", name + ":" + password}, []string{"user", "grant-role", name, "his"}, []string{"auth", "enable"})
	for _, args := range calls {
		if _, said, code := s.Ctl(args...); code != 0 {
			t.Fatalf("etcdctl %v: %s", args, said)
		}
	}
}

// tellPythonUsers is the story of python3-etcd3's users: on three members one is killed
// and comes back.
func tellPythonUsers(t *testing.T, python, etcd string, size int) (told string) {
	s := newSecured(t, etcd, size, size > 1)
	s.start(s.Members...)
	s.users(t, "ann", "annpw", "a", "/locks/")
	phase := func(name string, members ...*cluster.Member) {
		argv := []string{python, filepath.Join(clientScripts, "users.py"), name, s.ca.File, s.cert, s.key}
		for _, m := range members {
			argv = append(argv, secureAddress(m))
		}
		told += name + "\n" + runClient(t, nil, argv...)
	}
	phase("before", s.Members...)
	leader := s.Leader()
	leader.Kill()
	others := slices.DeleteFunc(slices.Clone(s.Members), func(m *cluster.Member) bool { return m == leader })
	if size > 1 {
		s.LeaderOf(others...)
		phase("without", others...)
	}
	s.start(leader)
	s.Leader()
	phase("after", s.Members...)
	return told
}

// python3-etcd3 with users; beside another etcd where KVORUM_USERS_BESIDE names one.
func TestPythonEtcd3Users(t *testing.T) {
	skipShort(t)
	python := pythonWithEtcd3(t)
	got := tellPythonUsers(t, python, cluster.Self(t, "etcd"), 1)
	hasLines(t, got, append(ofPythonUsers, "nobody puts: ('INVALID_ARGUMENT', 'etcdserver: user name is empty')")...)
	if etcd := os.Getenv("KVORUM_USERS_BESIDE"); etcd != "" {
		sameLines(t, "beside etcd 3.4", got, tellPythonUsers(t, python, etcd, 1))
	}
}

// The same on three members, of which the leader is killed and comes back, and which
// demand certificates: the name in it is nobody's, and may do nothing.
//
//	KVORUM_USERS_BESIDE=/usr/bin/etcd go test -run PythonEtcd3Users ./cmd/etcd
func TestPythonEtcd3UsersOnThreeMembers(t *testing.T) {
	etcd := os.Getenv("KVORUM_USERS_BESIDE")
	if etcd == "" {
		t.Skip("KVORUM_USERS_BESIDE names no etcd to compare with")
	}
	python := pythonWithEtcd3(t)
	got := tellPythonUsers(t, python, cluster.Self(t, "etcd"), 3)
	hasLines(t, got, append(ofPythonUsers, "nobody puts: ('PERMISSION_DENIED', 'etcdserver: permission denied')")...)
	sameLines(t, "beside etcd 3.4", got, tellPythonUsers(t, python, etcd, 3))
}

// ofPythonUsers are lines of the story, wherever it is told.
var ofPythonUsers = []string{
	"wrong password: ('INVALID_ARGUMENT', 'etcdserver: authentication failed, invalid user ID or password')",
	"with the token of the first: RangeResponse", "with a token of nobody: ('UNAUTHENTICATED', 'etcdserver: invalid auth token')",
	"half a transaction: ('PERMISSION_DENIED', 'etcdserver: permission denied')", "event: (b'a3', b'3')", "refreshed: [60]", "locked: True",
	"root: b\"root's\"", "prefix: [(b'a1', b'one'), (b'a3', b'3')",
}

func hasLines(t *testing.T, got string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(got, "\n"+line) {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
}
