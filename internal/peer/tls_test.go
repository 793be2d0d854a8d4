package peer

import (
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/testkit/certs"
	"github.com/kvorum/kvorum/internal/tlsfiles"
)

// newSecureNode starts a member that serves and dials TLS with files.
func newSecureNode(t *testing.T, member id.Member, serves, dials tlsfiles.Files, changes ...func(*Options)) *node {
	t.Helper()
	inner, err := dials.Client()
	if err != nil {
		t.Fatal(err)
	}
	outer, err := serves.Server("http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, member, func(o *Options) {
		o.ClientTLS = inner
		for _, change := range changes {
			change(o)
		}
	})
	bound, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rest := n.Divert(tlsfiles.Listen(bound, tlsfiles.Serving{TLS: outer, Endpoint: "peer", Log: slog.New(slog.NewTextHandler(n.log, nil))}))
	t.Cleanup(func() { rest.Close() })
	n.url = "https://" + bound.Addr().String()
	return n
}

func filesOf(t *testing.T, ca *certs.Authority, name string) tlsfiles.Files {
	t.Helper()
	cert, key := ca.Issue(t, name, "127.0.0.1")
	return tlsfiles.Files{CertFile: cert, KeyFile: key, TrustedCAFile: ca.File, ClientCertAuth: true}
}

func TestMembersSpeakOverTLS(t *testing.T) {
	ca := certs.NewAuthority(t)
	fa, fb := filesOf(t, ca, "a"), filesOf(t, ca, "b")
	a, b := newSecureNode(t, 1, fa, fa), newSecureNode(t, 2, fb, fb)
	meet(a, b)
	a.awaitConnected(b)
	b.awaitConnected(a)
	for i := range 500 {
		m := blob{uint64(i), []int{50, 20000, 1 << 20}[i%3]}
		await(t, "room", func() bool { return a.Send(2, Appends, m) })
		if i%3 == 0 {
			b.Send(1, Control, blob{number: uint64(i)})
			if g := receive(t, "a message", a.inbox); numberOf(g.data) != uint64(i) {
				t.Fatalf("%d instead of %d", numberOf(g.data), i)
			}
		}
	}
	for i := range 500 {
		if g := receive(t, "a message", b.inbox); numberOf(g.data) != uint64(i) || len(g.data) != []int{50, 20000, 1 << 20}[i%3] {
			t.Fatalf("%d of %d bytes instead of %d", numberOf(g.data), len(g.data), i)
		}
	}
	a.Close()
	if receive(t, "the loss", b.lost) != 1 {
		t.Error("somebody else was lost")
	}
}

// TestWhoIsNotTrusted: nothing passes, and both sides say what is the matter.
func TestWhoIsNotTrusted(t *testing.T) {
	ca, stranger := certs.NewAuthority(t), certs.NewAuthority(t)
	good := filesOf(t, ca, "good")
	theirs := filesOf(t, stranger, "mallory")
	theirs.TrustedCAFile = ca.File
	misled := filesOf(t, ca, "misled")
	misled.TrustedCAFile = stranger.File
	wrongHost := good
	wrongHost.CertFile, wrongHost.KeyFile = ca.Issue(t, "elsewhere", "192.0.2.1")
	for _, c := range []struct {
		what          string
		dials, serves tlsfiles.Files
		dialler, door string
	}{
		{"no certificate", tlsfiles.Files{TrustedCAFile: ca.File}, good, "certificate required", "client didn't provide a certificate"},
		{"another authority's certificate", theirs, good, "unknown certificate authority", "certificate signed by unknown authority"},
		{"a server that is not trusted", misled, good, "certificate signed by unknown authority", "bad certificate"},
		{"a server's certificate for another host", good, wrongHost, "certificate is valid for 192.0.2.1, not 127.0.0.1", "bad certificate"},
	} {
		t.Run(c.what, func(t *testing.T) {
			a, b := newSecureNode(t, 1, good, c.dials), newSecureNode(t, 2, c.serves, good)
			a.SetMembers([]Address{b.address()})
			a.awaitLine(c.dialler)
			b.awaitLine(c.door)
			if a.connectedTo(2) || len(b.Peers()) > 0 {
				t.Error("they are connected all the same")
			}
		})
	}
}

func TestTLSMeetsClearText(t *testing.T) {
	ca := certs.NewAuthority(t)
	files := filesOf(t, ca, "member")
	a, secure, plain := newSecureNode(t, 1, files, files), newSecureNode(t, 2, files, files), newNode(t, 3, nil)
	bound, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door := tlsfiles.Listen(bound, tlsfiles.Serving{Plain: true, Endpoint: "peer", Log: slog.New(slog.NewTextHandler(plain.log, nil))})
	rest := plain.Divert(door)
	t.Cleanup(func() { rest.Close() })
	a.SetMembers([]Address{
		{2, []string{strings.Replace(secure.url, "https:", "http:", 1)}},
		{3, []string{"https://" + bound.Addr().String()}},
	})
	a.awaitLine("the other side speaks TLS: should the URL be https?")
	a.awaitLine("handshake failure")
	secure.awaitLine("the client speaks clear text")
	plain.awaitLine("the client speaks TLS")

	// A listener that does not look for TLS answers in clear text.
	web := fake(t, func(conn net.Conn) {
		conn.Read(make([]byte, 100))
		conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		swallow(conn)
	})
	a.SetMembers([]Address{{4, []string{strings.Replace(web, "http:", "https:", 1)}}})
	a.awaitLine("the other side does not speak TLS: should the URL be http?")
}

// TestAHalfOpenTLSConnectionIsFoundOut: the last word of TLS, which nobody takes,
// is not waited for.
func TestAHalfOpenTLSConnectionIsFoundOut(t *testing.T) {
	ca := certs.NewAuthority(t)
	files := filesOf(t, ca, "member")
	a, b := newSecureNode(t, 1, files, files, impatient), newSecureNode(t, 2, files, files, impatient)
	hole := newProxy(t, strings.TrimPrefix(b.url, "https://"))
	a.SetMembers([]Address{{2, []string{strings.Replace(hole.url, "http:", "https:", 1)}}})
	a.awaitConnected(b)
	hole.hole()
	began := time.Now()
	for range 1000 {
		a.Send(2, Appends, blob{length: 64 << 10})
	}
	receive(t, "the loss", a.lost)
	await(t, "all lanes to be given up", func() bool { return a.Peers()[0].Connected == [lanes]bool{} })
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("found out after %v", took)
	}
}
