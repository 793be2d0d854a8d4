package bench

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// login is a user in whose name all calls to a server are made. The zero value is
// nobody.
type login struct {
	User     string `json:"user,omitempty"`
	Password string `json:"-"`
}

func (l *login) add(f *pflag.FlagSet, prefix, of string) {
	f.StringVar(&l.User, prefix+"user", "", "make all calls in the name of this user of "+of)
	f.StringVar(&l.Password, prefix+"password", "", "the user's password")
}

// token is sent with every call of a connection.
type token string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t *token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if *t == "" {
		return nil, nil
	}
	return map[string]string{"token": string(*t)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (t *token) RequireTransportSecurity() bool { return false }

// logIn gets the token that all further calls of these connections carry.
func (c *connections) logIn(ctx context.Context, s Server) error {
	if s.User == "" {
		return nil
	}
	r, err := pb.NewAuthClient(c.all[0]).Authenticate(ctx, &pb.AuthenticateRequest{Name: s.User, Password: s.Password})
	if err != nil {
		return fmt.Errorf("%s: authenticate: %w", s.label(), err)
	}
	c.token = token(r.Token)
	return nil
}

// authClients are those of the workload that does nothing but log in.
func authClients(_ context.Context, p *probe, _ Options) error {
	if p.server.User == "" {
		return fmt.Errorf("%s: whose password? --user is needed", p.server.label())
	}
	for i, c := range p.load.clients {
		c.auth, c.login = pb.NewAuthClient(p.conns.all[i%len(p.conns.all)]), p.server.login
	}
	return nil
}

func authenticate(ctx context.Context, c *client) error {
	r, err := c.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: c.login.User, Password: c.login.Password})
	if err == nil && r.Token == "" {
		return fmt.Errorf("wrong answer: %v", r)
	}
	return err
}
