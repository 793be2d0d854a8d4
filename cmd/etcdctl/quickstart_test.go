package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/cluster"
)

// blocks are a page's blocks for a shell, as they stand there.
func blocks(page string) (list []string) {
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(page, -1) {
		list = append(list, m[1])
	}
	return list
}

// The quick start, block by block in one shell, as somebody pastes it: from one member to
// three with certificates, one of which is killed, and to a new cluster from a backup.
// Only the addresses are of the test's own, and the programs are there already.
func TestTheQuickStart(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: its commands are those of other stories")
	}
	for _, program := range []string{"bash", "openssl", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	page := blocks(pages(t)["quick-start.md"])
	if len(page) != 8 || page[0] != "make run\n" {
		t.Fatalf("the page has %d blocks: %q", len(page), page)
	}
	dir := t.TempDir()
	for _, name := range []string{"etcd", "etcdctl", "etcdutl"} {
		if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(cluster.Self(t, name), filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(root, "scripts"), filepath.Join(dir, "scripts")); err != nil {
		t.Fatal(err)
	}
	one := cluster.New(t, cluster.Options{Etcd: cluster.Self(t, "etcd"), Size: 1, Direct: true})
	one.Start(one.Members...)
	address, _, _ := strings.Cut(one.Members[0].Client, ":")
	script := "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\nexport ETCDCTL_ENDPOINTS=" + one.Members[0].Client + "\n"
	for i, block := range page[1:] {
		block = strings.ReplaceAll(block, "localhost:2379", one.Members[0].Client)
		block = strings.ReplaceAll(block, "127.0.0.1", address[:strings.LastIndexByte(address, '.')]+".100")
		script += fmt.Sprintf("echo '== block %d'\n%s", i+2, block)
	}
	// Members connect from the address that everything on the loopback comes from.
	script = strings.Replace(script, "scripts/certificates pki", "scripts/certificates pki 127.0.0.1", 1)
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
	out, err := cmd.CombinedOutput()
	said := strings.Split(string(out), "== block ")
	if err != nil {
		logs, _ := exec.Command("sh", "-c", "tail -n 5 "+dir+"/n*.log").CombinedOutput()
		t.Fatalf("%v\n%s\n%s", err, out, logs)
	}
	for i, parts := range [][]string{
		{"OK\n", "greeting\nHello, etcd\n", "\n1\n", " IS LEADER ", `"etcdserver":"3.7.1"`, `{"health":"true","reason":""}`},
		{"wrote pki/ca.pem"},
		{},
		{" is healthy: ", " started ", "OK\n"},
		{"greeting\nHello, cluster\n"},
		{"Snapshot saved at backup.db", "HASH"},
		{"greeting\nHello, cluster\n"},
	} {
		for _, part := range parts {
			if !strings.Contains(said[i+1], part) {
				t.Errorf("no %q in\n%s", part, said[i+1])
			}
		}
	}
	if n := strings.Count(said[4], " is healthy: "); n != 3 {
		t.Errorf("%d members are healthy:\n%s", n, said[4])
	}
}
