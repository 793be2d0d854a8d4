package main

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"testing"

	"github.com/kvorum/kvorum/embed"
	"github.com/kvorum/kvorum/internal/cli/utl"
	"github.com/kvorum/kvorum/internal/testkit/script"
)

func TestMain(m *testing.M) {
	script.Main(m, map[string]func() int{
		"etcd":    func() int { return embed.Main(os.Args[1:], os.Environ()) },
		"etcdctl": run,
		"etcdutl": func() int {
			return utl.Main(context.Background(), utl.Process{
				Stdout: os.Stdout, Stderr: os.Stderr,
				Restore: func(r utl.Restore, log *slog.Logger) error { return embed.Restore(embed.RestoreConfig(r), log) },
			}, os.Args[1:])
		},
	})
}

// One set of stories, four times: a story that holds only for one of the
// programs says so by a condition.

func TestOurEtcdctlOnOurEtcd(t *testing.T) {
	script.Run(t, "testdata", script.Ours(), script.Ours())
}

func TestInstalledEtcdctlOnOurEtcd(t *testing.T) {
	skipInShort(t)
	script.Run(t, "testdata", script.Ours(), script.Installed(t, "etcdctl"))
}

func TestOurEtcdctlOnInstalledEtcd(t *testing.T) {
	skipInShort(t)
	script.Run(t, "testdata", script.Installed(t, "etcd"), script.Ours())
}

func TestInstalledEtcdctlOnInstalledEtcd(t *testing.T) {
	skipInShort(t)
	script.Run(t, "testdata", script.Installed(t, "etcd"), script.Installed(t, "etcdctl"))
}

// skipInShort leaves out what says more about the stories than about us.
func skipInShort(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: stories are told by our etcdctl to our etcd only")
	}
}

// throughProxies are stories that are told through `etcd grpc-proxy` too: those in which
// etcdctl speaks to one server, and nothing is said of its address or of ranges in pieces.
var throughProxies = []string{"auth", "del", "edges", "elect", "lease", "lock", "put", "restart", "txn", "watch", "watch-interactive"}

func TestOurProxyOnOurEtcd(t *testing.T) {
	names := throughProxies
	if os.Getenv(proxyStories) == "" {
		names = []string{"lease", "lock", "watch"}
	}
	script.RunThrough(t, "testdata", script.Ours(), script.Ours(), script.Ours(), names...)
}

func TestOurProxyOnOurEtcdWithInstalledEtcdctl(t *testing.T) {
	skipWithoutProxies(t)
	script.RunThrough(t, "testdata", script.Ours(), script.Ours(), script.Installed(t, "etcdctl"), throughProxies...)
}

func TestOurProxyOnInstalledEtcd(t *testing.T) {
	skipWithoutProxies(t)
	script.RunThrough(t, "testdata", script.Ours(), script.Installed(t, "etcd"), script.Ours(), throughProxies...)
}

// Two stories do not hold behind the proxy of etcd 3.4.23, whichever etcd it asks: it
// passes no request for progress on, and refuses calls that log in for a second after a
// member was not there, in which one that starts as fast as ours is back.
func TestInstalledProxyOnOurEtcd(t *testing.T) {
	skipWithoutProxies(t)
	names := slices.DeleteFunc(slices.Clone(throughProxies), func(name string) bool { return name == "auth" || name == "watch-interactive" })
	script.RunThrough(t, "testdata", script.Installed(t, "etcd"), script.Ours(), script.Ours(), names...)
}

// proxyStories is the variable that has all stories told through all proxies.
const proxyStories = "KVORUM_PROXY_STORIES"

func skipWithoutProxies(t *testing.T) {
	if os.Getenv(proxyStories) == "" {
		t.Skip(proxyStories + " is not set")
	}
}
