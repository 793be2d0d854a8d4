package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// fromFile parses with a configuration file of the text.
func fromFile(text string, args ...string) (Config, []Warning, error) {
	return Parse(append([]string{"--config-file", "etcd.yml"}, args...), nil, func(name string) ([]byte, error) {
		if name != "etcd.yml" {
			return nil, os.ErrNotExist
		}
		return []byte(text), nil
	})
}

func mustRead(t *testing.T, text string, args ...string) (Config, []Warning) {
	t.Helper()
	c, warnings, err := fromFile(text, args...)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c, warnings
}

// A sample with everything that etcd's own sample has: empty values, blocks, lists,
// keys of the past.
func TestAFileAsEtcdsSample(t *testing.T) {
	text, err := os.ReadFile("testdata/sample.yml")
	if err != nil {
		t.Fatal(err)
	}
	c, warnings := mustRead(t, string(text))
	want := Default()
	want.File, want.LogLevel, want.EnablePprof, want.StrictReconfigCheck = "etcd.yml", "debug", true, false
	want.LogOutputs, want.AutoCompactionRetention, want.TLSMaxVersion = []string{"stderr"}, "1", "TLS1.3"
	want.CipherSuites = []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	var told []string
	for _, w := range warnings {
		if strings.Contains(w.Msg, "no longer supported") {
			told = append(told, w.Attrs[0].Value.String())
		}
	}
	if !slices.Equal(told, []string{"proxy", "proxy-dial-timeout", "proxy-failure-wait", "proxy-read-timeout", "proxy-refresh-interval", "proxy-write-timeout"}) {
		t.Errorf("told of %v", told)
	}
}

func TestBlocksNumbersAndLists(t *testing.T) {
	c, warnings := mustRead(t, `
name: n1
grpc-keepalive-interval: 10000000000
heartbeat-interval: 50
quota-backend-bytes: 8589934593
watch-progress-notify-interval: 1m0s
listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2
advertise-client-urls: ["http://a:1", "http://a:2"]
client-transport-security: {cert-file: c.pem, key-file: k.pem, client-cert-auth: true, allowed-hostname: [a.org, b.org]}
peer-transport-security:
  allowed-cn: [p, q]
  skip-client-san-verification: true
socket-options: {reuse-port: true}
discovery-config:
  token: t
  client:
    endpoints: [h1:1, h2:1]
    dial-timeout: 3000000000
    secure: {insecure-transport: false, cacert: ca.pem}
    auth: {username: u, password: secret}
feature-gates: "LeaseCheckpoint=true"
`)
	same := func(what string, got, want any) {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	same("data dir", c.DataDir, "n1.etcd")
	same("ping", c.GRPCKeepAliveInterval, 10*time.Second)
	same("heartbeat", c.HeartbeatInterval, 50*time.Millisecond)
	same("quota", c.QuotaBackendBytes, int64(8589934593))
	same("progress", c.WatchProgressInterval, time.Minute)
	same("client URLs", c.ListenClientURLs.String(), "http://127.0.0.1:1,http://127.0.0.1:2")
	same("advertised", c.AdvertiseClientURLs.String(), "http://a:1,http://a:2")
	same("client TLS", c.ClientTLS, TLS{CertFile: "c.pem", KeyFile: "k.pem", ClientCertAuth: true, AllowedHostnames: []string{"a.org", "b.org"}})
	same("peer TLS", c.PeerTLS, TLS{AllowedCNs: []string{"p", "q"}, SkipSANCheck: true})
	same("reuse", c.SocketReusePort, true)
	same("discovery", c.Discovery, Discovery{Token: "t", Endpoints: []string{"h1:1", "h2:1"}, DialTimeout: 3 * time.Second,
		RequestTimeout: 5 * time.Second, KeepAliveTime: 2 * time.Second, KeepAliveTimeout: 6 * time.Second, CAFile: "ca.pem", User: "u", Password: "secret"})
	same("gates", c.Gates.LeaseCheckpoint, true)
	if !strings.Contains(fmt.Sprint(warnings), "larger than is recommended") {
		t.Errorf("no warning of the quota: %v", warnings)
	}
}

// The file is all that counts: flags and variables beside it are not even told to be
// wrong, unless nobody knows the flag.
func TestTheFileStandsAlone(t *testing.T) {
	read := func(string) ([]byte, error) { return []byte(`{"name": "json", "max-txn-ops": 7}`), nil }
	c, warnings, err := Parse([]string{"--name=flag", "--snapshot-count=1"}, []string{"ETCD_CONFIG_FILE=/etc/etcd.json", "ETCD_NAME=variable", "ETCD_MAX_LEARNERS=x"}, read)
	if err != nil || c.Name != "json" || c.MaxTxnOps != 7 || c.File != "/etc/etcd.json" || c.DataDir != "json.etcd" {
		t.Errorf("%+v, %v", c, err)
	}
	if len(warnings) != 1 || warnings[0].Attrs[0].Value.String() != "/etc/etcd.json" {
		t.Errorf("warnings %v", warnings)
	}
	var e *Error
	if _, _, err := fromFile("", "--nonsense"); !errors.As(err, &e) || e.Code != 2 {
		t.Errorf("an unknown flag beside a file: %v", err)
	}
	if c, _ := mustRead(t, "# nothing\n"); !reflect.DeepEqual(c.ListenClientURLs, Default().ListenClientURLs) {
		t.Errorf("an empty file: %+v", c)
	}
}

func TestWhatIsWrongWithAFile(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"name: [", "configuration file etcd.yml: yaml: line 1: did not find expected node content"},
		{"- a\n- b\n", "configuration file etcd.yml: keys and values are expected, not a list"},
		{"just words", `configuration file etcd.yml: keys and values are expected, not "just words"`},
		{"name: {a: b}", "configuration file etcd.yml: name: a plain value is expected, not a block of keys"},
		{"cipher-suites: [[a]]", "configuration file etcd.yml: cipher-suites: a plain value is expected, not a list in a list"},
		{"max-txn-ops: many", `configuration file etcd.yml: max-txn-ops: invalid value "many": parse error`},
		{"grpc-keepalive-interval: 1.5", `configuration file etcd.yml: grpc-keepalive-interval: invalid value "1.5": a whole number of nanoseconds is expected`},
		{"client-transport-security: {client-cert-auth: perhaps}", `configuration file etcd.yml: client-transport-security.client-cert-auth: invalid value "perhaps": parse error`},
		{"name: a\nname: b\n", `key "name" already set`},
		{"listen-client-urls: http://127.0.0.1:1", errNoAdvertise.Error()},
		{"initial-cluster-state: old", `unexpected clusterState "old"`},
		{"feature-gates: X=true", `configuration file etcd.yml: feature-gates: invalid value "X=true": unrecognized feature gate: X`},
	} {
		_, _, err := fromFile(c.text)
		var e *Error
		if !errors.As(err, &e) || e.Code != 1 || !strings.Contains(e.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.text, err, c.want)
		}
	}
	if _, _, err := Parse([]string{"--config-file=gone.yml"}, nil, os.ReadFile); err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	_, warnings := mustRead(t, "nmae: x\ndebug: true\nexperimental-corrupt-check-time: 1\nclient-transport-security: {crl: x}\n")
	got := fmt.Sprint(warnings)
	for _, want := range []string{"nmae", "client-transport-security.crl", "--log-level=debug", "--corrupt-check-time"} {
		if !strings.Contains(got, want) {
			t.Errorf("nobody is told of %s: %s", want, got)
		}
	}
}

// Whatever a file says, it is taken or refused with a reason.
func FuzzFile(f *testing.F) {
	f.Add("name: x\nlisten-peer-urls: http://127.0.0.1:1\n")
	f.Add(`{"client-transport-security": {"cert-file": "a"}, "cors": ["http://a:1"]}`)
	f.Add("discovery-config: {client: {secure: {cert: 5}}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, _, err := fromFile(text)
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Error() == "") {
			t.Fatalf("%#v", err)
		}
		if err == nil && c.Validate() != nil {
			t.Fatalf("accepted, then refused: %v", c.Validate())
		}
	})
}
