package embed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/kvorum/kvorum/internal/testkit/certs"
)

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// pki is the files of a cluster whose authority is replaced.
type pki struct {
	t            *testing.T
	trusted      string
	pairs        map[string][2]string // by owner: certificate, key
	clientTrusts atomic.Pointer[tls.Config]
}

func (p *pki) trust(authorities ...*certs.Authority) {
	p.t.Helper()
	var text []byte
	for _, a := range authorities {
		some, err := os.ReadFile(a.File)
		if err != nil {
			p.t.Fatal(err)
		}
		text = append(text, some...)
	}
	if err := os.WriteFile(p.trusted+".part", text, 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(p.trusted+".part", p.trusted); err != nil {
		p.t.Fatal(err)
	}
	p.read()
}

// read has clients use what the files say from now on.
func (p *pki) read() {
	p.t.Helper()
	text, err := os.ReadFile(p.trusted)
	if err != nil {
		p.t.Fatal(err)
	}
	own, err := tls.LoadX509KeyPair(p.pairs["client"][0], p.pairs["client"][1])
	if err != nil {
		p.t.Fatal(err)
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{own}}
	cfg.RootCAs.AppendCertsFromPEM(text)
	p.clientTrusts.Store(cfg)
}

// callers are clients of a cluster: those that keep their connections, and those that
// connect anew for every call. None of their calls may fail.
type callers struct {
	t     *testing.T
	pki   *pki
	tb    *table
	stop  context.CancelFunc
	wait  sync.WaitGroup
	calls [6]atomic.Int64
}

func (p *pki) load(tb *table) *callers {
	ctx, stop := context.WithCancel(p.t.Context())
	c := &callers{t: p.t, pki: p, tb: tb, stop: stop}
	for i := range c.calls {
		c.wait.Go(func() { c.run(ctx, i, i%2 == 0) })
	}
	return c
}

func (c *callers) run(ctx context.Context, i int, keeps bool) {
	address := c.tb.seats[i%3].client
	var conn *grpc.ClientConn
	for n := 0; ctx.Err() == nil; n++ {
		if conn == nil {
			var err error
			if conn, err = grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(c.pki.clientTrusts.Load()))); err != nil {
				c.t.Error(err)
				return
			}
		}
		call, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_, err := pb.NewKVClient(conn).Put(call, &pb.PutRequest{Key: fmt.Appendf(nil, "load/%d", i), Value: fmt.Append(nil, n)})
		cancel()
		if err != nil {
			c.t.Errorf("caller %d, call %d: %v", i, n, err)
			return
		}
		c.calls[i].Add(1)
		if !keeps {
			conn.Close()
			conn = nil
		}
	}
	if conn != nil {
		conn.Close()
	}
}

// more waits until every caller has been served so many times more.
func (c *callers) more(calls int64) {
	c.t.Helper()
	var goal [len(c.calls)]int64
	for i := range goal {
		goal[i] = c.calls[i].Load() + calls
	}
	c.tb.eventually("calls of every caller", func(context.Context) bool {
		for i := range goal {
			if c.calls[i].Load() < goal[i] {
				return c.t.Failed()
			}
		}
		return true
	})
}

func termOf(s *seat) uint64 {
	status, err := pb.NewMaintenanceClient(s.conn).Status(context.Background(), &pb.StatusRequest{})
	if err != nil {
		return 0
	}
	return status.RaftTerm
}

// A cluster changes its authority and all its certificates while clients call it: no
// call fails, no connection is cut, and in the end the old authority opens no door.
func TestRotationOfAllCertificatesUnderLoad(t *testing.T) {
	past, next := certs.NewAuthority(t), certs.NewAuthority(t)
	p := &pki{t: t, trusted: filepath.Join(t.TempDir(), "ca.pem"), pairs: map[string][2]string{}}
	for _, owner := range []string{"member", "client"} {
		cert, key := past.Issue(t, owner, "127.0.0.1")
		p.pairs[owner] = [2]string{cert, key}
	}
	p.trust(past)
	log := &lines{}
	tb := newTable(t, 3)
	tb.log = slog.NewTextHandler(log, nil)
	cert, key := p.pairs["member"][0], p.pairs["member"][1]
	tb.scheme, tb.credentials = "https://", credentials.NewTLS(p.clientTrusts.Load())
	tb.flags = []string{
		"--cert-file", cert, "--key-file", key, "--trusted-ca-file", p.trusted, "--client-cert-auth",
		"--peer-cert-file", cert, "--peer-key-file", key, "--peer-trusted-ca-file", p.trusted, "--peer-client-cert-auth",
		"--heartbeat-interval=100", "--election-timeout=1000", // a busy machine is no reason for an election
	}
	tb.start("new", tb.seats...)
	load := p.load(tb)
	load.more(5)
	term := termOf(tb.leader())

	p.trust(past, next) // 1. everybody trusts both
	load.more(5)
	next.Replace(t, cert, key, "member", "127.0.0.1") // 2. everybody shows a certificate of the new one
	next.Replace(t, p.pairs["client"][0], p.pairs["client"][1], "client")
	p.read()
	load.more(5)
	p.trust(next) // 3. the old one is trusted no more
	load.more(5)
	load.stop()
	load.wait.Wait()
	if now := termOf(tb.leader()); now != term {
		t.Errorf("the term went from %d to %d: connections between members were lost", term, now)
	}
	for part, least := range map[string]int{"took up a changed certificate": 3, "took up a changed CA bundle": 6} {
		if n := log.count(part); n < least {
			t.Errorf("%d lines say %q, want at least %d", n, part, least)
		}
	}

	// One who comes now is one of the new authority, member or client.
	gone := tb.leader()
	gone.stop()
	tb.credentials = credentials.NewTLS(p.clientTrusts.Load())
	tb.start("new", gone)
	tb.put(gone, "after", "rotation")
	oldCert, oldKey := past.Issue(t, "late", "127.0.0.1")
	conn, err := grpc.NewClient(tb.seats[0].client, grpc.WithTransportCredentials(credentials.NewTLS(clientOf(t, next, oldCert, oldKey))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("after")}); err == nil || !strings.Contains(err.Error(), "unknown certificate authority") {
		t.Errorf("a client of the old authority: %v", err)
	}
	tb.eventually("the line that says why", func(context.Context) bool {
		return log.count("rejected connection on client endpoint") > 0 && log.count("certificate signed by unknown authority") > 0
	})
}

// A member whose certificate is revoked, or has the wrong name, is none: both sides say
// why, and it comes in once that is put right, without a restart of the others.
func TestAMemberThatIsNotAllowed(t *testing.T) {
	if testing.Short() {
		t.Skip("handshakes are slow under the race detector, and others take the same way")
	}
	t.Parallel()
	ca := certs.NewAuthority(t)
	good, goodKey := ca.Issue(t, "good", "127.0.0.1")
	bad, badKey := ca.Issue(t, "bad", "127.0.0.1")
	crl := filepath.Join(t.TempDir(), "crl")
	ca.Revoke(t, crl, bad)
	log := &lines{}
	tb := newTable(t, 3)
	tb.log = slog.NewTextHandler(log, nil)
	tb.scheme, tb.credentials = "https://", credentials.NewTLS(clientOf(t, ca))
	common := []string{"--cert-file", good, "--key-file", goodKey, "--peer-trusted-ca-file", ca.File, "--peer-client-cert-auth",
		"--peer-crl-file", crl, "--peer-cert-allowed-cn", "good,better"}
	tb.flags = append([]string{"--peer-cert-file", good, "--peer-key-file", goodKey}, common...)
	tb.start("new", tb.seats...)
	tb.put(tb.seats[0], "a", "1")
	third := tb.seats[2]
	third.stop()
	tb.flags = append([]string{"--peer-cert-file", bad, "--peer-key-file", badKey}, common...)
	started := make(chan error, 1)
	go func() { started <- tb.startOne("new", third) }()
	tb.eventually("both sides to say why", func(context.Context) bool {
		return log.count("rejected connection on peer endpoint") > 0 && log.count("is revoked") > 0 && log.count("tls: bad certificate") > 0
	})
	select {
	case err := <-started:
		t.Fatalf("a member with a revoked certificate comes up: %v", err)
	default:
	}
	ca.Replace(t, bad, badKey, "worse", "127.0.0.1")
	tb.eventually("the name to be refused", func(context.Context) bool {
		return log.count(`the common name \"worse\" is not allowed`)+log.count(`the common name \\\"worse\\\" is not allowed`) > 0
	})
	ca.Replace(t, bad, badKey, "better", "127.0.0.1")
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	tb.everywhere("a", "1")
}
