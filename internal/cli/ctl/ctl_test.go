package ctl

import (
	"bytes"
	"context"
	"errors"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
)

// ran is what one run of the program did.
type ran struct {
	code           int
	stdout, stderr string
}

func run(stdin string, environ []string, args ...string) ran {
	var out, errs bytes.Buffer
	code := Main(context.Background(), Process{Environ: environ, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs}, args)
	return ran{code, out.String(), errs.String()}
}

// Every line is refused before anything is asked of a server.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"put", 128, "put command needs 1 argument and input from stdin or 2 arguments"},
		{"put k", 128, "put command needs 1 argument and input from stdin or 2 arguments"},
		{"put k v --ignore-value", 128, "put command needs only 1 argument when 'ignore-value' is set"},
		{"put k v --lease zz", 128, `bad lease ID (strconv.ParseInt: parsing "zz": invalid syntax), expecting ID in Hex`},
		{"get", 128, "get command needs one argument as key and an optional argument as range_end"},
		{"get a --prefix --from-key", 128, "`--prefix` and `--from-key` cannot be set at the same time, choose one"},
		{"get a --keys-only --count-only", 128, "`--keys-only` and `--count-only` cannot be set at the same time, choose one"},
		{"get a b --prefix", 128, "too many arguments, only accept one argument when `--prefix` or `--from-key` is set"},
		{"get a --min-create-rev 3 --max-create-rev 2", 128, "getMinCreateRev(=3) > getMaxCreateRev(=2)"},
		{"get a --min-mod-rev 3 --max-mod-rev 2", 128, "getMinModRev(=3) > getMaxModRev(=2)"},
		{"get a --count-only", 128, "--count-only is only for `--write-out=fields`"},
		{"get a --print-value-only -w json", 128, "print-value-only is only for `--write-out=simple`"},
		{"get a --order up", 4, "bad sort order up"},
		{"get a --sort-by size", 4, "bad sort target size"},
		{"get a --consistency x", 4, `unknown consistency flag "x"`},
		{"get a -w yaml", 4, "unsupported output format"},
		{"del", 128, "del command needs one argument as key and an optional argument as range_end"},
		{"del a --prefix --from-key", 128, "`--prefix` and `--from-key` cannot be set at the same time, choose one"},
		{"del a b --from-key", 128, "too many arguments, only accept one argument when `--prefix` or `--from-key` is set"},
		{"del a --range", 128, "del command needs a key and a range_end when `--range` is set"},
		{"del a b c", 128, "del command needs one argument as key and an optional argument as range_end"},
		{"txn x", 128, "txn command does not accept argument"},
		{"txn -w yaml", 4, "unsupported output format"},
		{"compaction", 128, "compaction command needs 1 argument"},
		{"compaction 1 2", 128, "compaction command needs 1 argument"},
		{"compaction x", 1, `strconv.ParseInt: parsing "x": invalid syntax`},
		{"compaction 1 -w yaml", 4, "unsupported output format"},
		{"defrag -w yaml", 4, "unsupported output format"},
		{"watch", 128, "bad number of arguments"},
		{"watch a b c", 128, "bad number of arguments"},
		{"watch -- true", 128, "bad number of arguments"},
		{"watch a --", 128, "bad number of arguments (found separator --, but no commands)"},
		{"watch --", 128, "bad number of arguments (found separator --, but no commands)"},
		{"watch a b --prefix", 128, "`range_end` and `--prefix` are mutually exclusive"},
		{"watch a --rev=x", 1, `invalid argument "x" for "--rev" flag: strconv.ParseInt: parsing "x": invalid syntax`},
		{"watch a -w table", 4, "table not supported as output format"},
		{"watch -i -w table", 4, "table not supported as output format"},
		{"watch a -w yaml", 4, "unsupported output format"},
		{"watch -i", 3, "error reading watch request line: EOF"},
		{"lock", 128, "lock takes one lock name argument and an optional command to execute"},
		{"lock a --ttl=x", 1, `invalid argument "x" for "--ttl" flag: strconv.ParseInt: parsing "x": invalid syntax`},
		{"lock a -w table", 4, "table not supported as output format"},
		{"elect", 128, "elect takes one election name argument and an optional proposal argument"},
		{"elect a b c", 128, "elect takes one election name argument and an optional proposal argument"},
		{"elect a", 128, "no proposal argument but -l not set"},
		{"elect a b -l", 128, "proposal given but -l is set"},
		{"elect a b -w table", 4, "table not supported as output format"},
		{"endpoint hashkv -w yaml", 4, "unsupported output format"},
		{"endpoint hashkv --rev=x", 1, `invalid argument "x" for "--rev" flag: strconv.ParseInt: parsing "x": invalid syntax`},
		{"member list --consistency x", 4, `unknown consistency flag "x"`},
		{"get a --cert=", 128, "empty string is passed to --cert option"},
		{"get a --key=", 128, "empty string is passed to --key option"},
		{"get a --cacert=", 128, "empty string is passed to --cacert option"},
		{"get a --cert=x", 128, "KeyFile and CertFile must both be present[key: , cert: x]"},
		{"get a --key=x", 128, "KeyFile and CertFile must both be present[key: x, cert: ]"},
		{"get a --cert=missing --key=missing", 128, "open missing: no such file or directory"},
		{"get a --cacert=ctl_test.go", 128, "no certificate found in ctl_test.go"},
		{"get a --auth-jwt-token=x --user=u", 128, "--auth-jwt-token cannot be given together with --user or --password"},
		{"get a --user=u", 128, "no password given: EOF"},
		{"get a --endpoints=", 2, "etcdclient: no available endpoints"},
		{"get a --bad", 1, "unknown flag: --bad"},
		{"get a --limit=many", 1, `invalid argument "many" for "--limit" flag: strconv.ParseInt: parsing "many": invalid syntax`},
		{"bogus", 1, `unknown command "bogus" for "etcdctl"`},
	} {
		got := run("", nil, strings.Fields(tc.args)...)
		got.stderr = strings.TrimPrefix(got.stderr, "Password: ")
		if got.code != tc.code || got.stderr != "Error: "+tc.want+"\n" || got.stdout != "" {
			t.Errorf("%s: exit %d, stdout %q, stderr %q; want %d, %q", tc.args, got.code, got.stdout, got.stderr, tc.code, tc.want)
		}
	}
}

func TestVersionAndOptionsNeedNoServer(t *testing.T) {
	if got := run("", []string{"ETCDCTL_FOO=1"}, "version"); got != (ran{0, "etcdctl version: 3.7.1\nAPI version: 3.7\nKvorum version: 0.1.0\n", ""}) {
		t.Errorf("%+v", got)
	}
	if got := run("", nil, "options"); got.code != 0 || !strings.Contains(got.stdout, "--endpoints strings") || !strings.Contains(got.stdout, "-w, --write-out string") {
		t.Errorf("%+v", got)
	}
	if got := run("", nil, "get", "--help"); got.code != 0 || strings.Contains(got.stdout, "--endpoints") || !strings.Contains(got.stdout, "--print-value-only") {
		t.Errorf("%+v", got)
	}
}

// fill runs the part of a command that completes the flags.
func fill(t *testing.T, environ []string, args ...string) (*session, string, error) {
	t.Helper()
	var errs bytes.Buffer
	s := &session{Process: Process{Environ: environ, Stderr: &errs}}
	root := newRoot(s)
	if err := root.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	err := s.fillFromEnvironment(root.PersistentFlags())
	return s, errs.String(), err
}

func TestEnvironment(t *testing.T) {
	s, stderr, err := fill(t, []string{"PATH=/bin", "ETCDCTL_API=3", "ETCDCTL_ENDPOINTS=a:1,b:2", "ETCDCTL_WRITE_OUT=json", "ETCDCTL_HEX=true",
		"ETCDCTL_DIAL_TIMEOUT=7s", "ETCDCTL_WATCH_KEY=k", "ETCDCTL_USER=", "ETCDCTL_COMMAND_TIMEOUT="}, "--command-timeout=1s")
	if err != nil || stderr != "" {
		t.Fatal(err, stderr)
	}
	if !slices.Equal(s.flags.endpoints, []string{"a:1", "b:2"}) || s.flags.writeOut != "json" || !s.flags.hex || s.flags.dialTimeout.String() != "7s" {
		t.Errorf("%+v", s.flags)
	}
}

func TestEnvironmentConflict(t *testing.T) {
	got := run("", []string{"ETCDCTL_ENDPOINTS=a:1"}, "get", "x", "--endpoints=b:2")
	if got.code != 1 || strings.Count(got.stderr, "\n") != 1 || !strings.Contains(got.stderr,
		`"msg":"conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))","environment-variable":"ETCDCTL_ENDPOINTS"`) {
		t.Errorf("%+v", got)
	}
}

func TestUnknownAndBadVariables(t *testing.T) {
	_, stderr, err := fill(t, []string{"ETCDCTL_FOO=secret", "ETCDCTL_API=2"})
	if err != nil || strings.Count(stderr, `"msg":"unrecognized environment variable"`) != 2 || strings.Contains(stderr, "secret") {
		t.Errorf("%v %s", err, stderr)
	}
	got := run("", []string{"ETCDCTL_COMMAND_TIMEOUT=soon"}, "get", "x")
	if got.code != 128 || !strings.Contains(got.stderr, `invalid value "soon" for ETCDCTL_COMMAND_TIMEOUT`) {
		t.Errorf("%+v", got)
	}
}

func TestDebugListsVariablesWithoutSecrets(t *testing.T) {
	_, stderr, err := fill(t, nil, "--debug", "--endpoints=a:1,b:2", "--user=u:hush", "--password=hush")
	if err != nil || !strings.Contains(stderr, "ETCDCTL_ENDPOINTS=a:1,b:2\n") || !strings.Contains(stderr, "ETCDCTL_DEBUG=true\n") ||
		strings.Contains(stderr, "hush") || !strings.Contains(stderr, "ETCDCTL_PASSWORD=***\n") {
		t.Errorf("%v\n%s", err, stderr)
	}
}

var took = regexp.MustCompile(`took [0-9.]+m?s\.`)

// A listener that accepts and says nothing is a dead server to a client.
func TestDeadServerIsATimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dead := l.Addr().String()
	for _, tc := range []struct{ args, want string }{
		{"get a", "Error: context deadline exceeded\n"},
		{"endpoint health", dead + " is unhealthy: failed to commit proposal: context deadline exceeded\nError: unhealthy cluster\n"},
		{"endpoint status", "Failed to get the status of endpoint " + dead + " (context deadline exceeded)\n"},
		{"endpoint hashkv", "Failed to get the hash of endpoint " + dead + " (context deadline exceeded)\nError: context deadline exceeded\n"},
		{"defrag", "Failed to defragment etcd member[" + dead + "]. took . (context deadline exceeded)\n"},
		{"defrag --cluster", "Error: failed to fetch endpoints from etcd cluster member list: context deadline exceeded\n"},
		{"endpoint hashkv --cluster", "Error: failed to fetch endpoints from etcd cluster member list: context deadline exceeded\n"},
		{"get a --stream", "Error: context deadline exceeded\n"},
		{"compaction 1", "Error: context deadline exceeded\n"},
		{"endpoint status --cluster", "Error: failed to fetch endpoints from etcd cluster member list: context deadline exceeded\n"},
	} {
		args := append(strings.Fields(tc.args), "--endpoints="+dead, "--command-timeout=200ms")
		got := run("", nil, args...)
		if stderr := took.ReplaceAllString(got.stderr, "took ."); got.code != 1 || stderr != tc.want {
			t.Errorf("%s: %+v", tc.args, got)
		}
	}
}

type fakeDNS map[string][]*net.SRV

func (f fakeDNS) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if records, ok := f["_"+service+"._"+proto+"."+name]; ok {
		return "", records, nil
	}
	return "", nil, errors.New("no such host")
}

func TestDiscovery(t *testing.T) {
	dns := fakeDNS{
		"_etcd-client-ssl._tcp.example.org":  {{Target: "a.example.org.", Port: 2379}},
		"_etcd-client._tcp.example.org":      {{Target: "b.example.org.", Port: 2379}},
		"_etcd-client-blue._tcp.example.org": {{Target: "c.example.org.", Port: 1}},
	}
	for _, tc := range []struct {
		g    globals
		want string
	}{
		{globals{srvDomain: "example.org", insecureDiscovery: true}, "https://a.example.org:2379 http://b.example.org:2379"},
		{globals{srvDomain: "example.org"}, "https://a.example.org:2379"},
		{globals{srvDomain: "example.org", srvName: "blue", insecureDiscovery: true}, "http://c.example.org:1"},
	} {
		got, err := lookupEndpoints(context.Background(), dns, &tc.g)
		if err != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("%+v: %v, %v", tc.g, got, err)
		}
	}
	_, err := lookupEndpoints(context.Background(), dns, &globals{srvDomain: "example.com", insecureDiscovery: true})
	if exit.Code(err) != exit.CodeError || err.Error() != "dns lookup errors: no such host and no such host" {
		t.Error(err)
	}
}

func TestPasswordFromAPipe(t *testing.T) {
	var prompt bytes.Buffer
	got, err := readPassword(strings.NewReader("hush hush\r\nnext"), &prompt, "Password: ")
	if err != nil || got != "hush hush" || prompt.String() != "Password: " {
		t.Errorf("%q %v %q", got, err, prompt.String())
	}
}

func TestSpans(t *testing.T) {
	for _, tc := range []struct {
		args            []string
		prefix, fromKey bool
		key, end        string
	}{
		{[]string{"a"}, false, false, "a", ""},
		{[]string{"a", "c"}, false, false, "a", "c"},
		{[]string{"a"}, true, false, "a", "b"},
		{[]string{"a"}, false, true, "a", "\x00"},
		{[]string{""}, true, false, "\x00", "\x00"},
		{[]string{"a\xff"}, true, false, "a\xff", "b"},
		{[]string{"\xff\xff"}, true, false, "\xff\xff", "\x00"},
		{[]string{"a", "b", "c"}, false, false, "a", "b"},
		{[]string{""}, false, true, "\x00", "\x00"},
	} {
		key, opts := spanOf(tc.args, tc.prefix, tc.fromKey)
		end := string(clientv3.OpGet(key, opts...).RangeBytes())
		if key != tc.key || end != tc.end {
			t.Errorf("%q prefix %v from %v: %q to %q", tc.args, tc.prefix, tc.fromKey, key, end)
		}
	}
}
