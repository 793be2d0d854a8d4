package main

import (
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Nothing that is secret is in what a proxy writes that was told to write as much as it
// can: its log with all calls in it, its pages, what its clients are told.
func TestAProxyKeepsSecrets(t *testing.T) {
	const planted = "planted-"
	member := start(t, t.TempDir(), "--bcrypt-cost=4")
	member.awaitReady()
	proxy, door := proxied(t, member.client, "--debug", "--experimental-enable-grpc-logging", "--enable-pprof")
	c, ctx := userOf(t, door), t.Context()
	for _, name := range []string{"root", "ann"} {
		asked[*clientv3.AuthUserAddResponse](t)(c.UserAdd(ctx, name, planted+name))
	}
	asked[*clientv3.AuthUserGrantRoleResponse](t)(c.UserGrantRole(ctx, "root", "root"))
	asked[*clientv3.AuthEnableResponse](t)(c.AuthEnable(ctx))
	root := userOf(t, door, "root", planted+"root")
	asked[*clientv3.AuthUserChangePasswordResponse](t)(root.UserChangePassword(ctx, "ann", planted+"other"))
	_, refused := c.Authenticate(ctx, "ann", planted+"wrong")
	_, again := root.UserAdd(ctx, "ann", planted+"again")
	token := asked[*clientv3.AuthenticateResponse](t)(c.Authenticate(ctx, "ann", planted+"other")).Token
	said := map[string]string{"a refusal": told(refused), "another": told(again)}
	for _, path := range []string{"/metrics", "/health", "/debug/vars", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/requests"} {
		_, said[path] = page(t, door, path)
	}
	proxy.signal(syscall.SIGTERM)
	proxy.awaitExit()
	said["the log"] = strings.Join(proxy.raw, "\n")
	if !strings.Contains(said["the log"], "Auth/Authenticate") || !strings.Contains(said["a refusal"], "authentication failed") {
		t.Errorf("there is nothing to be found in %v", said)
	}
	letters, _, _ := strings.Cut(token, ".")
	for where, text := range said {
		if strings.Contains(text, planted) || strings.Contains(text, letters) {
			t.Errorf("%s: %s", where, text)
		}
	}
}
