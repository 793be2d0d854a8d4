package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// Clients that others have written, in other languages, run against the real
// program and, where it is installed, against Debian's etcd: what they print must
// be the same.

const clientScripts = "testdata/clients"

// realEtcd starts Debian's etcd and returns the port of its clients, or "" where
// there is none.
func realEtcd(t *testing.T) string {
	t.Helper()
	const binary = "/usr/bin/etcd"
	if _, err := os.Stat(binary); err != nil {
		t.Logf("%s is not installed: nothing to compare with", binary)
		return ""
	}
	client, peer := ports.Reserve(t), ports.Reserve(t)
	cmd := exec.Command(binary, "--data-dir", t.TempDir(), "--unsafe-no-fsync", "--logger", "zap", "--log-outputs", "stderr",
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "default=http://"+peer)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := exec.Command("/usr/bin/env", "ETCDCTL_API=3", binary+"ctl", "--endpoints", client, "endpoint", "health").CombinedOutput()
		if err == nil {
			return port(client)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not healthy: %s", binary, out)
		}
	}
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// ours starts the program under test and returns the port of its clients.
func ours(t *testing.T) string {
	t.Helper()
	p := start(t, t.TempDir())
	p.awaitReady()
	return port(p.client)
}

// runClient runs a foreign program and returns what it printed.
func runClient(t *testing.T, env []string, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(argv, " "), err, out.String(), said.String())
	}
	return out.String()
}

// sameLines compares two outputs line by line.
func sameLines(t *testing.T, what, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			t.Errorf("%s, line %d:\n%s\nwant\n%s", what, i+1, a, b)
		}
	}
}

// pythonWithEtcd3 is the Python that has Debian's python3-etcd3.
func pythonWithEtcd3(t *testing.T) string {
	t.Helper()
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import etcd3").CombinedOutput(); err != nil {
		t.Skipf("python3-etcd3 is not installed: %v %s", err, bytes.TrimSpace(out))
	}
	return python
}

// The values that the article of seeds/3 promises beside its lines.
func TestTheArticlesPythonScript(t *testing.T) {
	python := pythonWithEtcd3(t)
	client := ours(t)
	run := func() string {
		return runClient(t, nil, python, filepath.Join(clientScripts, "run_article.py"), client, filepath.Join(clientScripts, "article.py"))
	}
	const head = `result = 'header'
result = (b'hello, world!', 'KVMetadata')
rv = 'hello, world!'
result = True
`
	sameLines(t, "an empty store", run(), head+"result = []\nresult = []\n")
	full := start(t, t.TempDir())
	full.awaitReady()
	kvs := full.kv()
	for _, kv := range [][2]string{{"other", "x"}, {"server1/a", "10.0.0.1"}, {"server1/b", ""}, {"server10", "10.0.0.2"}, {"server2", "10.0.0.3"}} {
		put(t, kvs, kv[0], kv[1])
	}
	client = port(full.client)
	sameLines(t, "a store with servers", run(), head+
		"result = ['10.0.0.1', b'', '10.0.0.2']\nresult = ['x', '10.0.0.1', b'', '10.0.0.2', '10.0.0.3']\n")
}

func TestPythonEtcd3(t *testing.T) {
	python := pythonWithEtcd3(t)
	script := filepath.Join(clientScripts, "kv.py")
	got := runClient(t, nil, python, script, ours(t))
	for _, line := range []string{
		"put again with the value before: b'x'", "get of nothing: (None, None)", "put if not exists, again: False", "replace: True",
		"transaction: (True, ['ResponseOp', 'list', 'list', 'ResponseOp'])", "delete, again: False", "text: ä水",
		"compact 0: ('OUT_OF_RANGE', 'etcdserver: mvcc: required revision has been compacted')", "alarms: []",
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	if client := realEtcd(t); client != "" {
		sameLines(t, "beside etcd 3.4", got, runClient(t, nil, python, script, client))
	}
}

func TestPythonEtcd3Leases(t *testing.T) {
	python := pythonWithEtcd3(t)
	script := filepath.Join(clientScripts, "lease.py")
	got := runClient(t, nil, python, script, ours(t))
	for _, line := range []string{
		"granted: (1234, 600, 600, True)", "keys: [b'a', b'b']", "refreshed: [(1234, 600)]", "refreshed, not there: [(77, 0)]",
		"info, not there: (77, -1, 0)", "after the end: (b'free', None)", "it lasted: True",
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	if client := realEtcd(t); client != "" {
		sameLines(t, "beside etcd 3.4", got, runClient(t, nil, python, script, client))
	}
}

// The JSON gateway, asked by curl: what comes back is what etcd says, field by field.
func TestCurlAtTheGateway(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	script := filepath.Join(clientScripts, "gateway.py")
	got := runClient(t, nil, "/usr/bin/python3", script, ours(t))
	for _, line := range []string{
		`put: 200 application/json`, `  {"count": "1", "kvs": [{"create_revision": "2", "key": "aw==", "mod_revision": "3", "value": "dw==", "version": "2"}]}`,
		`compacted: 400 application/json`, `  {"code": 11, "message": "etcdserver: mvcc: required revision has been compacted"}`,
		`  {"result": {"ID": "77", "TTL": "600"}}`, `what she may not: 403 application/json`, `a token of nobody: 401 application/json`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	if client := realEtcd(t); client != "" {
		sameLines(t, "beside etcd 3.4", got, runClient(t, nil, "/usr/bin/python3", script, client))
	}
}

// OpenStack's client, which speaks JSON.
func TestPythonEtcd3gw(t *testing.T) {
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import etcd3gw").CombinedOutput(); err != nil {
		t.Skipf("python3-etcd3gw is not installed: %v %s", err, bytes.TrimSpace(out))
	}
	script := filepath.Join(clientScripts, "etcd3gw_client.py")
	got := runClient(t, nil, python, script, ours(t))
	for _, line := range []string{"get: [b'bar']", "create: True, again: False", "delete: True, again: False", "lock: True, another: False"} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	if client := realEtcd(t); client != "" {
		sameLines(t, "beside etcd 3.4", got, runClient(t, nil, python, script, client))
	}
}

// npmEtcd3 installs the package into a folder of the test's own.
func npmEtcd3(t *testing.T) (modules string) {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "timeout", "-k", "5", "90",
		"npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--loglevel=error", "etcd3@1.1.2")
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("the npm package etcd3 cannot be installed here: %v: %.500s", err, out)
	}
	return filepath.Join(dir, "node_modules")
}

func TestNpmEtcd3(t *testing.T) {
	if testing.Short() {
		t.Skip("it is installed for the long run only")
	}
	env := []string{"NODE_PATH=" + npmEtcd3(t)}
	script := filepath.Join(clientScripts, "kv.js")
	got := runClient(t, env, "node", script, ours(t))
	for _, line := range []string{
		`get: "hello, world!"`, `delete: "1"`, `delete again: "0"`, `get of nothing: null`,
		`prefix: {"server1/1":"10.0.0.8","server1/2":"10.0.0.7","server1/3":"10.0.0.6"}`,
		`then: [true,["response_put","response_range"],["number","43"]]`,
		`else: [false,["response_range","response_delete_range"],["lock","me"],"1"]`, `left: []`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	if client := realEtcd(t); client != "" {
		sameLines(t, "beside etcd 3.4", got, runClient(t, env, "node", script, client))
	}
	npmCoordination(t, env)
}
