package embed

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/kvorum/kvorum/internal/testkit/certs"
	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// The name in a certificate is its holder's user, on both doors, if he sends no token.
func TestAuthByCertificate(t *testing.T) {
	t.Run("our server", byCertificate)
	t.Run("grpc-go's", func(t *testing.T) {
		t.Setenv(otherServer, "grpc-go")
		byCertificate(t)
	})
}

func byCertificate(t *testing.T) {
	ca := certs.NewAuthority(t)
	cert, key := ca.Issue(t, "member", "127.0.0.1")
	port := ports.Reserve(t)
	startMember(t, t.TempDir(), "--bcrypt-cost=4", "--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca.File, "--client-cert-auth",
		"--listen-client-urls", "https://"+port, "--advertise-client-urls", "https://"+port)
	ctx := t.Context()
	by := func(name string) (*clientv3.Client, *grpc.ClientConn) {
		own, ownKey := ca.Issue(t, name)
		tls := clientOf(t, ca, own, ownKey)
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{port}, TLS: tls})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := grpc.NewClient(port, grpc.WithTransportCredentials(credentials.NewTLS(tls)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(); conn.Close() })
		return c, conn
	}
	root, _ := by("root")
	people(t, root)
	ann, conn := by("ann")
	eve, _ := by("eve")
	expect(t, "root adds", said(root.UserAdd(ctx, "bob", "bobpw")), "ok")
	expect(t, "ann puts", said(ann.Put(ctx, "a", "1")), "ok")
	expect(t, "ann puts elsewhere", said(ann.Put(ctx, "c", "1")), "permission denied")
	expect(t, "ann's members", said(ann.MemberList(ctx)), "ok")
	expect(t, "ann adds", said(ann.UserAdd(ctx, "x", "y")), "permission denied")
	expect(t, "eve puts", said(eve.Put(ctx, "a", "1")), "permission denied")
	expect(t, "eve adds", said(eve.UserAdd(ctx, "x", "y")), "user name not found")
	expect(t, "eve's members", said(eve.MemberList(ctx)), "ok")
	bad := metadata.AppendToOutgoingContext(ctx, "token", "bad")
	expect(t, "ann with a bad token", said(pb.NewKVClient(conn).Put(bad, &pb.PutRequest{Key: []byte("a")})), "invalid auth token")
	expect(t, "ann's status with one", said(pb.NewMaintenanceClient(conn).Status(bad, &pb.StatusRequest{})), "invalid auth token")
	proxied := metadata.AppendToOutgoingContext(ctx, "grpcgateway-accept", "x")
	expect(t, "ann through a gateway", said(pb.NewKVClient(conn).Put(proxied, &pb.PutRequest{Key: []byte("a")})), "user name is empty")
}
