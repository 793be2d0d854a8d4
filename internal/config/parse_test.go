package config

import (
	"errors"
	"flag"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite golden files")

func mustParse(t *testing.T, args, environ []string) (Config, []Warning) {
	t.Helper()
	c, warnings, err := Parse(args, environ, nil)
	if err != nil {
		t.Fatalf("Parse(%q, %q): %v", args, environ, err)
	}
	return c, warnings
}

func mustFail(t *testing.T, args, environ []string) *Error {
	t.Helper()
	_, _, err := Parse(args, environ, nil)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("Parse(%q, %q) = %v, want an *Error", args, environ, err)
	}
	return e
}

func TestEmptyCommandLineIsDefault(t *testing.T) {
	c, warnings := mustParse(t, nil, []string{"PATH=/bin", "HOME=/root"})
	if len(warnings) != 0 {
		t.Errorf("warnings: %v", warnings)
	}
	want := map[string]string{
		c.Name:                           "default",
		c.DataDir:                        "default.etcd",
		c.ListenPeerURLs.String():        "http://localhost:2380",
		c.ListenClientURLs.String():      "http://localhost:2379",
		c.AdvertisePeerURLs.String():     "http://localhost:2380",
		c.AdvertiseClientURLs.String():   "http://localhost:2379",
		c.InitialCluster:                 "default=http://localhost:2380",
		c.InitialClusterState:            "new",
		c.InitialClusterToken:            "etcd-cluster",
		strings.Join(c.LogOutputs, ","):  "default",
		c.LogLevel + " " + c.LogFormat:   "info json",
		c.HeartbeatInterval.String():     "100ms",
		c.ElectionTimeout.String():       "1s",
		c.GRPCKeepAliveMinTime.String():  "5s",
		c.GRPCKeepAliveInterval.String(): "2h0m0s",
		c.GRPCKeepAliveTimeout.String():  "20s",
	}
	for got, w := range want {
		if got != w {
			t.Errorf("got %q, want %q", got, w)
		}
	}
	if c.MaxTxnOps != 128 || c.MaxRequestBytes != 1572864 || c.MaxConcurrentStreams != 4294967295 || !c.StrictReconfigCheck {
		t.Errorf("limits: %+v", c)
	}
	if d := Default(); d.DataDir != c.DataDir || d.InitialCluster != c.InitialCluster || d.Name != c.Name {
		t.Errorf("Default() = %+v, Parse(nil) = %+v", d, c)
	}
}

// The compose file of seeds/3, word for word but for the four members.
func TestSingleDashesOfAComposeFile(t *testing.T) {
	c, warnings := mustParse(t, strings.Fields("-name etcd1 -advertise-client-urls http://0.0.0.0:2379 "+
		"-listen-client-urls http://0.0.0.0:2379 -listen-peer-urls http://0.0.0.0:2380 -initial-cluster-token etcd-cluster "+
		"-initial-cluster etcd1=http://etcd1:2380,etcd2=http://etcd2:2380 -initial-cluster-state new"), nil)
	if len(warnings) != 0 {
		t.Errorf("warnings: %v", warnings)
	}
	if c.Name != "etcd1" || c.DataDir != "etcd1.etcd" || c.ListenPeerURLs.String() != "http://0.0.0.0:2380" {
		t.Errorf("%+v", c)
	}
	ms, err := c.InitialMembers()
	if err != nil || len(ms) != 2 || ms[1].Name != "etcd2" || ms[1].PeerURLs.String() != "http://etcd2:2380" {
		t.Errorf("members %+v, %v", ms, err)
	}
	// In its container etcd1 is this machine's address, which is what is advertised.
	if !c.AdvertiseHost(func() string { return "172.18.0.2" }) || c.AdvertisePeerURLs.String() != "http://172.18.0.2:2380" {
		t.Errorf("it advertises %s", c.AdvertisePeerURLs.String())
	}
	names := map[string]string{"etcd1:2380": "172.18.0.2:2380", "172.18.0.2:2380": "172.18.0.2:2380"}
	resolve := func(host string) (string, error) {
		if names[host] == "" {
			return "", errors.New("no such host")
		}
		return names[host], nil
	}
	if own, err := c.CheckInitialCluster(resolve); err != nil || own.String() != "http://etcd1:2380" {
		t.Errorf("it is known by %v, %v", own, err)
	}
	names["etcd1:2380"] = "172.18.0.3:2380"
	_, err = c.CheckInitialCluster(resolve)
	if want := "--initial-cluster has etcd1=http://etcd1:2380 but missing from --initial-advertise-peer-urls=http://172.18.0.2:2380"; err == nil || err.Error() != want {
		t.Errorf("an address of another: %v", err)
	}
	delete(names, "etcd1:2380")
	_, err = c.CheckInitialCluster(resolve)
	if want := "failed to resolve http://172.18.0.2:2380 to match --initial-cluster=etcd1=http://etcd1:2380 (no such host)"; err == nil || err.Error() != want {
		t.Errorf("an unknown name: %v", err)
	}
}

// Only a member that listens everywhere and says nothing else is told by its
// machine's address.
func TestWhoAdvertisesTheMachinesAddress(t *testing.T) {
	for args, want := range map[string]string{
		"":                                      "default=http://localhost:2380",
		"--listen-peer-urls=http://0.0.0.0:238": "default=http://10.0.0.1:238",
		"--listen-peer-urls=http://10.0.0.9:1 --initial-advertise-peer-urls=http://a:1 --initial-cluster=default=http://a:1": "default=http://a:1",
		"--listen-peer-urls=http://0.0.0.0:1 --initial-advertise-peer-urls=http://a:1 --initial-cluster=default=http://a:1":  "default=http://a:1",
		"--listen-peer-urls=http://0.0.0.0:1 --initial-cluster=default=http://a:1":                                           "default=http://a:1",
	} {
		c, _ := mustParse(t, strings.Fields(args), nil)
		c.AdvertiseHost(func() string { return "10.0.0.1" })
		if c.InitialCluster != want {
			t.Errorf("%s: %s, want %s", args, c.InitialCluster, want)
		}
	}
}

func TestFormsOfAFlag(t *testing.T) {
	for _, args := range [][]string{{"-name", "x"}, {"--name", "x"}, {"-name=x"}, {"--name=x"}, {"--name=y", "--name=x"}} {
		if c, _ := mustParse(t, args, nil); c.Name != "x" || c.DataDir != "x.etcd" || c.InitialCluster != "x=http://localhost:2380" {
			t.Errorf("%q: %+v", args, c)
		}
	}
	for args, want := range map[string]bool{"--strict-reconfig-check": true, "--strict-reconfig-check=false": false, "-strict-reconfig-check=0": false, "-strict-reconfig-check=T": true} {
		if c, _ := mustParse(t, []string{args}, nil); c.StrictReconfigCheck != want {
			t.Errorf("%s: %v", args, c.StrictReconfigCheck)
		}
	}
}

func TestURLListsAreSortedWithoutRepeats(t *testing.T) {
	c, _ := mustParse(t, []string{"--listen-client-urls", "http://127.0.0.2:1, http://127.0.0.1:1,http://127.0.0.2:1",
		"--advertise-client-urls=http://name:1"}, nil)
	if got := c.ListenClientURLs.String(); got != "http://127.0.0.1:1,http://127.0.0.2:1" {
		t.Error(got)
	}
}

func TestEveryFlagParses(t *testing.T) {
	for i := range table {
		o := &table[i]
		if o.state == silent {
			for _, arg := range []string{"-" + o.name, "--" + o.name + "=whatever"} {
				if _, warnings := mustParse(t, []string{arg}, nil); len(warnings) != 0 {
					t.Errorf("%s warns: %v", arg, warnings)
				}
			}
			continue
		}
		if o.state == source {
			continue
		}
		args := []string{"--" + o.name + "=" + o.def}
		if o.name == "listen-client-urls" {
			args = append(args, "--advertise-client-urls="+o.def)
		}
		_, warnings := mustParse(t, args, nil)
		want := ""
		if o.state == obsolete {
			want = "flag is deprecated and has no effect"
		}
		if want == "" {
			if len(warnings) != 0 {
				t.Errorf("--%s warns: %v", o.name, warnings)
			}
			continue
		}
		if len(warnings) != 1 || warnings[0].Msg != want || warnings[0].Attrs[0].Value.String() != "--"+o.name {
			t.Errorf("--%s: warnings %v, want %q", o.name, warnings, want)
		}
	}
}

// spec/server-ops.md 1.2 and 1.1 item 5, each name once.
func TestTableHoldsTheFlagsOfTheContract(t *testing.T) {
	data, err := os.ReadFile("testdata/flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(string(data))
	var got []string
	for i := range table {
		got = append(got, table[i].name)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("table:    %v\ncontract: %v", got, want)
	}
}

func TestExitTwoWithUsage(t *testing.T) {
	for _, tc := range []struct{ arg, want string }{
		{"--foo", "flag provided but not defined: -foo"},
		{"-x", "flag provided but not defined: -x"},
		{"--experimental-initial-corrupt-check", "flag provided but not defined: -experimental-initial-corrupt-check"},
		{"--discovery=u", "flag provided but not defined: -discovery"},
		{"--enable-v2", "flag provided but not defined: -enable-v2"},
		{"--name", "flag needs an argument: -name"},
		{"---name", "bad flag syntax: ---name"},
		{"--heartbeat-interval=fast", `invalid value "fast" for flag -heartbeat-interval: parse error`},
		{"--heartbeat-interval=-1", `invalid value "-1" for flag -heartbeat-interval: parse error`},
		{"--max-concurrent-streams=4294967296", `invalid value "4294967296" for flag -max-concurrent-streams: value out of range`},
		{"--max-txn-ops=99999999999999999999", `invalid value "99999999999999999999" for flag -max-txn-ops: value out of range`},
		{"--snapshot-count=many", `invalid value "many" for flag -snapshot-count: parse error`},
		{"--pre-vote=perhaps", `invalid boolean value "perhaps" for -pre-vote: parse error`},
		{"--corrupt-check-time=3", `invalid value "3" for flag -corrupt-check-time: parse error`},
		{"--v2-deprecation=not-yet", `invalid value "not-yet" for flag -v2-deprecation: invalid value "not-yet"`},
		{"--discovery-fallback=proxy", `invalid value "proxy" for flag -discovery-fallback: invalid value "proxy"`},
		{"--initial-cluster-state=old", `invalid value "old" for flag -initial-cluster-state: invalid value "old"`},
		{"--listen-client-urls=http://1.2.3.4", `invalid value "http://1.2.3.4" for flag -listen-client-urls: URL address does not have the form "host:port": http://1.2.3.4`},
		{"--listen-client-urls=http://1:2:3", `invalid value "http://1:2:3" for flag -listen-client-urls: parse "http://1:2:3": invalid port ":2:3" after host`},
		{"--listen-peer-urls=http://1.2.3.4:1/x", `invalid value "http://1.2.3.4:1/x" for flag -listen-peer-urls: URL must not contain a path: http://1.2.3.4:1/x`},
		{"--advertise-client-urls=ftp://1.2.3.4:1", `invalid value "ftp://1.2.3.4:1" for flag -advertise-client-urls: URL scheme must be http, https, unix, or unixs: ftp://1.2.3.4:1`},
		{"--listen-client-urls=", `invalid value "" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: `},
	} {
		e := mustFail(t, []string{tc.arg}, nil)
		if e.Code != 2 || e.Error() != tc.want {
			t.Errorf("%s: exit %d, %q; want 2, %q", tc.arg, e.Code, e, tc.want)
		}
		if e.Stdout != "" || e.Stderr != tc.want+"\n"+hintFor(e)+usage {
			t.Errorf("%s: stdout %q, stderr %q", tc.arg, e.Stdout, e.Stderr)
		}
	}
}

func TestExitOneForTheLogger(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"bar", `"bar" is not a valid flag`},
		{"--strict-reconfig-check false", `"false" is not a valid flag`},
		{"--listen-client-urls=http://127.0.0.1:1", "--advertise-client-urls is required when --listen-client-urls is set explicitly"},
		{"--listen-client-urls=http://example.org:1 --advertise-client-urls=http://example.org:1", "expected IP in URL for binding (http://example.org:1)"},
		{"--listen-peer-urls=http://:2380", "expected IP in URL for binding (http://:2380)"},
		{"--listen-peer-urls=https://127.0.0.1:2380", "TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url https://127.0.0.1:2380 with HTTPS scheme"},
		{"--initial-advertise-peer-urls=http://:80", `--initial-advertise-peer-urls "http://:80" must be "host:port" (unexpected empty host (http://:80))`},
		{"--advertise-client-urls=http://:80", `--advertise-client-urls "http://:80" must be "host:port" (unexpected empty host (http://:80))`},
		{"--listen-client-urls=http://127.0.0.1:1 --advertise-client-urls=http://h:1 --listen-client-http-urls=http://127.0.0.1:1",
			"cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://127.0.0.1:1"},
		{"--heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)"},
		{"--election-timeout=0", "--election-timeout must be >0 (set to 0ms)"},
		{"--election-timeout=499", "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]"},
		{"--election-timeout=50001", "--election-timeout[50001ms] is too long, and should be set less than 50000ms"},
		{"--logger=capnslog", "--logger=capnslog is removed in v3.5"},
		{"--logger=x", `unknown logger option "x"`},
		{"--log-format=xml", `unknown log format: "xml"`},
		{"--log-level=loud", `unrecognized level: "loud"`},
		{"--log-outputs=default,stdout", `multi logoutput for "default" is not supported yet`},
		{"--log-outputs=", "--log-outputs must name at least one output"},
		{"--config-file=x.yml", "cannot read the configuration file: files are not read here"},
		{"--initial-cluster=default=http://h:1 --discovery-srv=example.org", `multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"`},
		{"--discovery-token=t --discovery-endpoints=h:1 --discovery-srv=example.org", `multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"`},
		{"--discovery-token=t", "both --discovery-token and --discovery-endpoints must be set"},
		{"--discovery-endpoints=h:1", "both --discovery-token and --discovery-endpoints must be set"},
		{"--discovery-token=t --discovery-endpoints=h:1,", "--discovery-endpoints must not contain empty endpoints"},
		{"--auto-compaction-mode=daily", `unknown auto-compaction-mode "daily"`},
		{"--auto-compaction-retention=soon", `error parsing CompactionRetention: time: invalid duration "soon"`},
		{"--auto-compaction-retention=-1h", "error parsing CompactionRetention: -1h0m0s is below zero"},
		{"--auto-compaction-retention=9999999", "error parsing CompactionRetention: 9999999 hours are out of range"},
		{"--auto-compaction-mode=revision --auto-compaction-retention=1h", `error parsing CompactionRetention: "1h" is no number of revisions`},
		{"--compact-hash-check-time=0s", "--compact-hash-check-time must be >0 (set to 0s)"},
		{"--metrics=some", `unknown --metrics "some" (must be basic or extensive)`},
		{"--distributed-tracing-sampling-rate=1000001", "distributed tracing sampling rate must be between 0 and 1000000 (set to 1000001)"},
		{"--enable-log-rotation", "--log-outputs requires a single file path when --log-rotate-config-json is defined"},
		{"--enable-log-rotation --log-outputs=a.log,b.log", "--log-outputs requires a single file path when --log-rotate-config-json is defined"},
	} {
		e := mustFail(t, strings.Fields(tc.args), nil)
		if e.Code != 1 || e.Error() != tc.want || e.Stdout+e.Stderr != "" {
			t.Errorf("%s: exit %d, %q, output %q; want 1, %q", tc.args, e.Code, e, e.Stdout+e.Stderr, tc.want)
		}
	}
}

func TestAcceptableLimits(t *testing.T) {
	mustParse(t, strings.Fields("--heartbeat-interval=100 --election-timeout=500"), nil)
	mustParse(t, strings.Fields("--election-timeout=50000"), nil)
	mustParse(t, strings.Fields("--listen-peer-urls=http://[::1]:2380,unix://peer.sock --log-outputs=stderr,/var/log/etcd.log"), nil)
}

func TestVariables(t *testing.T) {
	c, warnings := mustParse(t, []string{"--name=x"}, []string{
		"ETCD_DATA_DIR=/data", "ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379", "ETCD_ADVERTISE_CLIENT_URLS=http://h:2379",
		"ETCD_LOG_LEVEL=", "ETCDCTL_API=3", "ETCD_UNSUPPORTED_ARCH=riscv64", "ETCD_VERSION=3", "ETCD_FOO=1", "ETCD_SNAPSHOT_COUNT=5",
		"ETCD_DISCOVERY_PASSWORD=hush", "malformed",
	})
	if c.Name != "x" || c.DataDir != "/data" || c.AdvertiseClientURLs.String() != "http://h:2379" || c.LogLevel != "info" {
		t.Errorf("%+v", c)
	}
	var got []string
	for _, w := range warnings {
		line := w.Level.String() + " " + w.Msg
		for _, a := range w.Attrs {
			line += " " + a.String()
		}
		got = append(got, line)
	}
	want := []string{
		"INFO recognized and used environment variable variable-name=ETCD_DATA_DIR variable-value=/data",
		"INFO recognized and used environment variable variable-name=ETCD_LISTEN_CLIENT_URLS variable-value=http://0.0.0.0:2379",
		"INFO recognized and used environment variable variable-name=ETCD_ADVERTISE_CLIENT_URLS variable-value=http://h:2379",
		"WARN cannot set special environment variable key=ETCD_VERSION",
		"WARN unrecognized environment variable environment-variable=ETCD_FOO",
		"INFO recognized and used environment variable variable-name=ETCD_SNAPSHOT_COUNT variable-value=5",
		"INFO recognized and used environment variable variable-name=ETCD_DISCOVERY_PASSWORD variable-value=***",
		"INFO flag is accepted and has no effect flag=--snapshot-count value=5 reason=" + notes["snapshot-count"],
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestVariableErrors(t *testing.T) {
	e := mustFail(t, []string{"--name=x"}, []string{"ETCD_NAME=y"})
	const shadowed = "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))"
	if e.Code != 1 || e.Error() != shadowed || len(e.Attrs) != 1 || !e.Attrs[0].Equal(slog.String("environment-variable", "ETCD_NAME")) {
		t.Errorf("%d %q %v", e.Code, e, e.Attrs)
	}
	e = mustFail(t, nil, []string{"ETCD_ELECTION_TIMEOUT=soon"})
	if e.Code != 1 || e.Error() != `invalid value "soon" for ETCD_ELECTION_TIMEOUT: parse error` {
		t.Errorf("%d %q", e.Code, e)
	}
	e = mustFail(t, nil, []string{"ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:1"})
	if !errors.Is(e, errNoAdvertise) {
		t.Error(e)
	}
}

func TestUntestedArchitectureNeedsAWord(t *testing.T) {
	p := parser{environ: []string{"ETCD_UNSUPPORTED_ARCH=riscv64"}}
	if err := p.checkArchitecture("riscv64"); err != nil {
		t.Error(err)
	}
	if err := p.checkArchitecture("mips"); err == nil || err.Error() != "mips is not tested: set ETCD_UNSUPPORTED_ARCH=mips to start all the same" {
		t.Error(err)
	}
	if err := p.checkArchitecture("arm64"); err != nil {
		t.Error(err)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, arg := range []string{"-h", "--help"} {
		if e := mustFail(t, []string{arg}, nil); e.Code != 0 || e.Stdout != HelpText() || e.Stderr != "" {
			t.Errorf("%s: %+v", arg, e)
		}
	}
	e := mustFail(t, []string{"--version"}, nil)
	lines := strings.Split(e.Stdout, "\n")
	if e.Code != 0 || len(lines) != 6 || lines[0] != "etcd Version: 3.7.1" || !strings.HasPrefix(lines[1], "Git SHA: ") ||
		!strings.HasPrefix(lines[2], "Go Version: go1.") || !strings.HasPrefix(lines[3], "Go OS/Arch: ") || lines[4] != "Kvorum Version: "+KvorumVersion {
		t.Errorf("%q", lines)
	}
	if *update {
		if err := os.WriteFile("testdata/help.txt", []byte(HelpText()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile("testdata/help.txt")
	if err != nil {
		t.Fatal(err)
	}
	if string(golden) != HelpText() {
		t.Error("help differs from testdata/help.txt; run with -update and read the diff")
	}
}

func TestInitialCluster(t *testing.T) {
	check := func(args string) string {
		c, _ := mustParse(t, strings.Fields(args), nil)
		if _, err := c.CheckInitialCluster(nil); err != nil {
			return err.Error()
		}
		return ""
	}
	for _, tc := range []struct{ args, want string }{
		{"", ""},
		{"--name=x", ""},
		{"--initial-cluster=a=http://h:1", `couldn't find local name "default" in the initial cluster configuration`},
		{"--initial-advertise-peer-urls=http://h:1", "--initial-cluster has default=http://localhost:2380 but missing from --initial-advertise-peer-urls=http://h:1"},
		{"--initial-advertise-peer-urls=http://h:1,http://localhost:2380", "--initial-advertise-peer-urls has http://h:1 but missing from --initial-cluster=default=http://localhost:2380"},
		{"--initial-cluster=default=http://localhost:2380,b=http://localhost:2380", "initial cluster {default=http://localhost:2380,b=http://localhost:2380} has duplicate url"},
		{"--initial-cluster=default", `error setting up initial cluster: malformed entry "default", expecting name=url`},
		{"--initial-cluster=default=http://h", `error setting up initial cluster: URL address does not have the form "host:port": http://h`},
		{"--initial-cluster=b=http://h:1,default=http://h:3,default=http://h:2 --initial-advertise-peer-urls=http://h:2,http://h:3", ""},
	} {
		if got := check(tc.args); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.args, got, tc.want)
		}
	}
}

// Nothing that a person types may panic, and every refusal has an exit code.
func FuzzParse(f *testing.F) {
	f.Add("--name=x\n-listen-client-urls\nhttp://1.2.3.4:5", "ETCD_NAME=y\nETCD_FOO=1")
	f.Add("--initial-cluster=a=http://h:1,b=unix://x\n--name=a", "")
	f.Add("-v\n--max-txn-ops=0x10\n--election-timeout=1e3", "ETCD_CORS=http://a:1")
	f.Fuzz(func(t *testing.T, args, environ string) {
		c, _, err := Parse(strings.Split(args, "\n"), strings.Split(environ, "\n"), nil)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Code < 0 || e.Code > 2 || e.Error() == "" {
				t.Fatalf("%#v", err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted, then refused: %v", err)
		}
		if c.ElectionTimeout < 5*c.HeartbeatInterval || c.ElectionTimeout > 50*time.Second {
			t.Fatalf("times: %+v", c)
		}
		for _, list := range []URLs{c.ListenClientURLs, c.ListenPeerURLs, c.AdvertisePeerURLs, c.AdvertiseClientURLs} {
			if again, err := ParseURLs(list.String()); err != nil || again.String() != list.String() {
				t.Fatalf("%s reads back as %s, %v", list, again, err)
			}
		}
		_, _ = c.CheckInitialCluster(nil)
	})
}

// What --auto-compaction-mode makes of --auto-compaction-retention.
func TestCompaction(t *testing.T) {
	for _, c := range []struct {
		mode, retention string
		period          time.Duration
		revisions       int64
	}{
		{"periodic", "0", 0, 0},
		{"periodic", "72", 72 * time.Hour, 0},
		{"periodic", "30m", 30 * time.Minute, 0},
		{"revision", "0", 0, 0},
		{"revision", "10000", 0, 10000},
	} {
		cfg, _ := mustParse(t, []string{"--auto-compaction-mode=" + c.mode, "--auto-compaction-retention=" + c.retention}, nil)
		if period, revisions, err := cfg.Compaction(); period != c.period || revisions != c.revisions || err != nil {
			t.Errorf("%s %s: %v, %d, %v", c.mode, c.retention, period, revisions, err)
		}
	}
}
