package embed

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/kvorum/kvorum/internal/testkit/certs"
	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// Flags whose effect no other story shows, each on a real member.

func TestTheLogLiesWhereWALDirSays(t *testing.T) {
	dir, wal := t.TempDir(), filepath.Join(t.TempDir(), "wal")
	for range 2 {
		m := startMember(t, dir, "--wal-dir", wal)
		if _, err := pb.NewKVClient(m.conn).Put(t.Context(), &pb.PutRequest{Key: []byte("a")}); err != nil {
			t.Fatal(err)
		}
		m.stop()
	}
	there, err := os.ReadDir(wal)
	if err != nil || len(there) == 0 {
		t.Errorf("%d files, %v", len(there), err)
	}
	if _, err := os.Stat(filepath.Join(dir, "member", "log")); !os.IsNotExist(err) {
		t.Errorf("there is a log in the data directory: %v", err)
	}
}

func TestStreamsOfOneClientAreBounded(t *testing.T) {
	m := startMember(t, t.TempDir(), "--max-concurrent-streams=1")
	ctx, cancel := context.WithCancel(t.Context())
	watch, err := pb.NewWatchClient(m.conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := pb.NewKVClient(m.conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("a")})
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("a second stream is served: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("once the first has ended: %v", err)
	}
}

// pinged opens a connection that answers nothing, says pings of its own if it is told
// to, and returns what frames the member sent before it closed the connection.
func pinged(t *testing.T, address string, pings int) (kinds []http2.FrameType, code http2.ErrCode) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for range pings {
		if f.WritePing(false, [8]byte{}) != nil {
			break
		}
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return kinds, code
		}
		kinds = append(kinds, frame.Header().Type)
		if away, ok := frame.(*http2.GoAwayFrame); ok {
			code = away.ErrCode
		}
	}
}

func TestPingsOfBothSides(t *testing.T) {
	m := startMember(t, t.TempDir(), "--grpc-keepalive-min-time=1h")
	if kinds, code := pinged(t, m.client, 20); code != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("20 pings at once end with %v after %v", code, kinds)
	}
	m.stop()
	m = startMember(t, t.TempDir(), "--grpc-keepalive-interval=20ms", "--grpc-keepalive-timeout=30ms")
	begun := time.Now()
	kinds, _ := pinged(t, m.client, 0)
	pings := 0
	for _, k := range kinds {
		if k == http2.FramePing {
			pings++
		}
	}
	if pings == 0 || time.Since(begun) > 10*time.Second {
		t.Errorf("a silent client is sent %v and closed after %v", kinds, time.Since(begun))
	}
}

// TLS that a member makes for itself, of the version and with the suite that it is told.
func TestCertificatesMadeAtStart(t *testing.T) {
	dir, port := t.TempDir(), ports.Reserve(t)
	startMember(t, dir, "--auto-tls", "--self-signed-cert-validity=3", "--tls-min-version=TLS1.2", "--tls-max-version=TLS1.2",
		"--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "--listen-client-urls=https://"+port, "--advertise-client-urls=https://"+port)
	conn, err := tls.Dial("tcp", port, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	state := conn.ConnectionState()
	years := state.PeerCertificates[0].NotAfter.Sub(state.PeerCertificates[0].NotBefore).Hours() / 24 / 365
	if state.Version != tls.VersionTLS12 || state.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 || years < 2.9 || years > 3.1 {
		t.Errorf("version %x, suite %x, %v years", state.Version, state.CipherSuite, years)
	}
	if _, err := tls.Dial("tcp", port, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}); err == nil || !strings.Contains(err.Error(), "protocol version not supported") {
		t.Errorf("TLS 1.3: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "fixtures", "client", "cert.pem")); err != nil {
		t.Error(err)
	}
	cfg, _ := configFor(t, t.TempDir(), "--tls-min-version=TLS1.3", "--cipher-suites=TLS_AES_128_GCM_SHA256", "--auto-tls", "--listen-client-urls=https://"+ports.Reserve(t))
	if _, err := Start(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "cipher suites cannot be configured when only TLS1.3 is enabled") {
		t.Errorf("suites of TLS 1.3: %v", err)
	}
}

// Members that serve each other with certificates of their own making.
func TestPeersWithCertificatesMadeAtStart(t *testing.T) {
	if testing.Short() {
		t.Skip("handshakes are slow under the race detector, and others take the same way")
	}
	t.Parallel()
	tb := newTable(t, 3)
	tb.scheme = "https://"
	tb.credentials = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	tb.flags = []string{"--auto-tls", "--peer-auto-tls"}
	tb.start("new", tb.seats...)
	tb.put(tb.seats[0], "a", "1")
	tb.everywhere("a", "1")
}

// A client port that is open to one host's certificate, unless it is revoked.
func TestClientsByHostAndByCRL(t *testing.T) {
	ca := certs.NewAuthority(t)
	cert, key := ca.Issue(t, "member", "127.0.0.1")
	good, bad := filesOfClient(t, ca, "good", "app.example.org"), filesOfClient(t, ca, "bad", "app.example.org")
	other := filesOfClient(t, ca, "other", "web.example.org")
	crl := filepath.Join(t.TempDir(), "crl")
	ca.Revoke(t, crl, bad[0])
	port := ports.Reserve(t)
	startMember(t, t.TempDir(), "--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca.File, "--client-crl-file", crl,
		"--client-cert-allowed-hostname", "app.example.org", "--listen-client-urls=https://"+port, "--advertise-client-urls=https://"+port)
	for _, c := range []struct {
		what   string
		pair   []string
		served bool
	}{{"good", good, true}, {"revoked", bad, false}, {"of another host", other, false}} {
		conn, err := grpc.NewClient(port, grpc.WithTransportCredentials(credentials.NewTLS(clientOf(t, ca, c.pair...))))
		if err != nil {
			t.Fatal(err)
		}
		_, err = pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("a")})
		conn.Close()
		if (err == nil) != c.served || err != nil && !strings.Contains(err.Error(), "tls: bad certificate") {
			t.Errorf("a client that is %s: %v", c.what, err)
		}
	}
}

func filesOfClient(t *testing.T, ca *certs.Authority, name string, hosts ...string) []string {
	cert, key := ca.Issue(t, name, hosts...)
	return []string{cert, key}
}

// Members that connect with another certificate than they serve with: it is for an
// address that they do not connect from, which is looked at unless it is told not to
// be, and for the host that is allowed.
func TestPeersWithTwoCertificates(t *testing.T) {
	if testing.Short() {
		t.Skip("handshakes are slow under the race detector, and others take the same way")
	}
	t.Parallel()
	ca := certs.NewAuthority(t)
	cert, key := ca.Issue(t, "serves", "127.0.0.1", "etcd.example.org")
	dialCert, dialKey := ca.Issue(t, "connects", "10.9.8.7", "etcd.example.org")
	log := &lines{}
	tb := newTable(t, 3)
	tb.log = slog.NewTextHandler(log, nil)
	tb.scheme, tb.credentials = "https://", credentials.NewTLS(clientOf(t, ca))
	flags := []string{"--cert-file", cert, "--key-file", key, "--peer-cert-file", cert, "--peer-key-file", key, "--peer-trusted-ca-file", ca.File,
		"--peer-client-cert-file", dialCert, "--peer-client-key-file", dialKey, "--peer-cert-allowed-hostname", "etcd.example.org"}
	tb.flags = append([]string{"--peer-skip-client-san-verification"}, flags...)
	tb.start("new", tb.seats...)
	tb.put(tb.seats[0], "a", "1")
	strict := tb.seats[2]
	strict.stop()
	tb.flags = flags
	done := make(chan error, 1)
	go func() { done <- tb.startOne("new", strict) }()
	tb.eventually("a strict member to refuse the others", func(context.Context) bool {
		return log.count("10.9.8.7") > 0 && log.count("does not match any of IPAddresses") > 0
	})
	ca.Replace(t, dialCert, dialKey, "connects", "127.0.0.1", "etcd.example.org")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	tb.everywhere("a", "1")
}

// What the flags of discovery say about the way to the other cluster is what its client
// is told.
func TestTheWayToTheDiscoveryCluster(t *testing.T) {
	ca := certs.NewAuthority(t)
	cert, key := ca.Issue(t, "member")
	client := func(flags ...string) (*Server, error) {
		cfg, _ := configFor(t, t.TempDir(), append([]string{"--initial-cluster=", "--discovery-endpoints=h:1,i:2", "--discovery-token=t"}, flags...)...)
		s := &Server{cfg: cfg, log: slog.New(slog.DiscardHandler)}
		_, err := s.discoveryClient()
		return s, err
	}
	s, err := client("--discovery-dial-timeout=3s", "--discovery-request-timeout=4s", "--discovery-keepalive-time=5s", "--discovery-keepalive-timeout=7s",
		"--discovery-user=u", "--discovery-password=p", "--discovery-cert", cert, "--discovery-key", key, "--discovery-cacert", ca.File)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.discoveryClient()
	if err != nil || len(c.Endpoints) != 2 || c.DialTimeout != 3*time.Second || c.DialKeepAliveTime != 5*time.Second || c.DialKeepAliveTimeout != 7*time.Second ||
		c.Username != "u" || c.Password != "p" || s.cfg.Discovery.RequestTimeout != 4*time.Second {
		t.Errorf("%+v, %v", c, err)
	}
	if c.TLS == nil || !c.TLS.RootCAs.Equal(clientOf(t, ca).RootCAs) || c.TLS.GetClientCertificate == nil || c.TLS.InsecureSkipVerify {
		t.Errorf("by the files: %+v", c.TLS)
	}
	for flag, secure := range map[string]bool{"--discovery-insecure-transport": false, "--discovery-insecure-transport=false": true, "--discovery-insecure-skip-tls-verify": true} {
		s, err := client(flag)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := s.discoveryClient(); err != nil || (c.TLS != nil) != secure || secure && c.TLS.InsecureSkipVerify != strings.Contains(flag, "skip") {
			t.Errorf("%s: %+v, %v", flag, c.TLS, err)
		}
	}
	if _, err := client("--discovery-cert", cert); err == nil || !strings.Contains(err.Error(), "KeyFile and CertFile must both be present") {
		t.Errorf("a certificate without its key: %v", err)
	}
}

// Names that only DNS has: the member looks there, says what it misses, and ends.
func TestDNSIsAsked(t *testing.T) {
	cfg, _ := configFor(t, t.TempDir(), "--initial-cluster=", "--discovery-srv=cluster.invalid", "--discovery-srv-name=x", "--discovery-fallback=exit")
	_, err := Start(cfg, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl-x") {
		t.Error(err)
	}
}

func TestHowLongTokensLive(t *testing.T) {
	cfg, _ := configFor(t, t.TempDir(), "--auth-token-ttl=7")
	s := &Server{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	if o, err := s.authOptions(); err != nil || o.TokenTTL != 7*time.Second {
		t.Errorf("%v, %v", o.TokenTTL, err)
	}
}

// A member that is all of its cluster leads at once, unless it is told to wait for an
// election time-out as others do; also when it has been here before.
func TestALoneMemberThatWaits(t *testing.T) {
	t.Parallel() // it mostly waits
	dir := t.TempDir()
	for range 2 {
		begun := time.Now()
		m := startMember(t, dir, "--initial-election-tick-advance=false", "--election-timeout=700")
		if took := time.Since(begun); took < 700*time.Millisecond {
			t.Errorf("it leads after %v", took)
		}
		m.stop()
	}
}

// A connection of a peer is given up after an election time-out, or after what the flags
// say if that is more than 5 s and than the election time-out.
func TestHowLongPeersMayBeSilent(t *testing.T) {
	for _, c := range []struct {
		flags          []string
		silence, stall time.Duration
	}{
		{nil, time.Second, time.Second},
		{[]string{"--raft-read-timeout=4s", "--raft-write-timeout=5s"}, time.Second, time.Second},
		{[]string{"--raft-read-timeout=6s", "--raft-write-timeout=7s"}, 6 * time.Second, 7 * time.Second},
		{[]string{"--raft-read-timeout=6s", "--election-timeout=8000"}, 8 * time.Second, 8 * time.Second},
	} {
		cfg, _ := configFor(t, t.TempDir(), c.flags...)
		got := (&Server{cfg: cfg}).peerLimits()
		if got.Silence != c.silence || got.Stall != c.stall || got.Ping != cfg.ElectionTimeout/4 || got.Handshake != cfg.ElectionTimeout {
			t.Errorf("%v: %+v", c.flags, got)
		}
	}
}

// One of two members is left alone. Without pre-votes it begins one term after the other;
// once the other is back, somebody leads in a later one.
func TestMembersThatDoNotAskForVotesInAdvance(t *testing.T) {
	t.Parallel() // it mostly waits
	tb := newTable(t, 2)
	tb.flags = []string{"--pre-vote=false"}
	tb.start("new", tb.seats...)
	tb.put(tb.seats[0], "a", "1")
	left, gone := tb.seats[0], tb.seats[1]
	gone.stop()
	before := left.group.Status().Hard.Term
	tb.eventually("three terms of nobody", func(context.Context) bool { return left.group.Status().Hard.Term >= before+3 })
	tb.start("new", gone)
	tb.put(gone, "a", "2")
	tb.everywhere("a", "2")
}

// What a member would show as a client must be a pair that can be used, where its client
// port has certificates at all: else it does not start.
func TestAPairForClientsIsChecked(t *testing.T) {
	ca := certs.NewAuthority(t)
	cert, key := ca.Issue(t, "member", "127.0.0.1")
	_, other := ca.Issue(t, "other")
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--client-cert-file", cert}, "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: " + cert + "]"},
		{[]string{"--client-key-file", key}, "ClientKeyFile and ClientCertFile must both be present or both absent: key: " + key + ", cert: ]"},
		{[]string{"--client-cert-file", cert, "--client-key-file", other}, "cannot load certificate " + cert + " with key " + other},
		{[]string{"--client-cert-file", cert, "--client-key-file", key, "--client-crl-file", "/nowhere"}, "/nowhere"}, // the pair is good
	} {
		port := ports.Reserve(t)
		cfg, _ := configFor(t, t.TempDir(), append([]string{"--cert-file", cert, "--key-file", key,
			"--listen-client-urls=https://" + port, "--advertise-client-urls=https://" + port}, c.flags...)...)
		s, err := Start(cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.flags, err)
		}
	}
}

// Compactions free what they free in steps and with pauses as they are told.
func TestCompactionsByTheFlags(t *testing.T) {
	m := startMember(t, t.TempDir(), "--compaction-batch-limit=5", "--compaction-sleep-interval=1s")
	kv, freed := pb.NewKVClient(m.conn), &m.state.Counts().Store.Compacted
	var last int64
	for range 40 {
		r, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a")})
		if err != nil {
			t.Fatal(err)
		}
		last = r.Header.Revision
	}
	begun := time.Now()
	if _, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: last}); err != nil {
		t.Fatal(err)
	}
	for freed.Load() == 0 {
		if time.Sleep(time.Millisecond); time.Since(begun) > 20*time.Second {
			t.Fatal("nothing is freed")
		}
	}
	if n, took := freed.Load(), time.Since(begun); n > 5*uint64(1+took/time.Second) {
		t.Errorf("%d versions are freed after %v", n, took)
	}
}
