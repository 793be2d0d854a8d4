package ctl

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

// ask runs one short command: do is handed the client, the printer and the
// context of its calls, which ends after the command time-out. The command's own
// arguments are known to be right by then.
func (s *session) ask(cmd *cobra.Command, do func(context.Context, *clientv3.Client, *print.Printer) error) error {
	return s.connect(cmd, func(c *clientv3.Client, p *print.Printer) error {
		ctx, cancel := s.call(cmd)
		defer cancel()
		return do(ctx, c, p)
	})
}

// connect is ask for a command that takes as long as it takes.
func (s *session) connect(cmd *cobra.Command, do func(*clientv3.Client, *print.Printer) error) error {
	p, err := s.prepare(cmd)
	if err != nil {
		return err
	}
	c, err := s.dial(cmd)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c, p)
}

// prepare completes the flags from the environment and makes the printer.
func (s *session) prepare(cmd *cobra.Command) (*print.Printer, error) {
	if err := s.fillFromEnvironment(cmd.Root().PersistentFlags()); err != nil {
		return nil, err
	}
	return print.New(s.Stdout, s.Stderr, s.flags.writeOut, s.flags.hex)
}

// dial makes a client for the endpoints of the flags. It does not connect; a
// server that is away shows itself by the first call's time-out.
func (s *session) dial(cmd *cobra.Command) (*clientv3.Client, error) {
	cfg, err := s.clientConfig(cmd)
	if err != nil {
		return nil, err
	}
	return dialConfig(cfg)
}

func dialConfig(cfg clientv3.Config) (*clientv3.Client, error) {
	c, err := clientv3.New(cfg)
	if err != nil {
		return nil, exit.With(exit.CodeBadConnection, err)
	}
	return c, nil
}

// call is the context of one short command.
func (s *session) call(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(cmd.Context(), s.flags.commandTimeout)
}

// clientConfig turns the global flags into the client's configuration.
func (s *session) clientConfig(cmd *cobra.Command) (clientv3.Config, error) {
	g := &s.flags
	cfg := clientv3.Config{
		Endpoints:            g.endpoints,
		DialTimeout:          g.dialTimeout,
		DialKeepAliveTime:    g.keepAliveTime,
		DialKeepAliveTimeout: g.keepAliveTimeout,
		MaxCallSendMsgSize:   g.maxRequestBytes,
		MaxCallRecvMsgSize:   g.maxRecvBytes,
		Context:              cmd.Context(),
		Logger:               s.clientLog(),
	}
	for _, name := range []string{"cert", "key", "cacert"} {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
			return cfg, exit.BadArgs("empty string is passed to --%s option", name)
		}
	}
	var err error
	if cfg.TLS, err = g.tls(); err != nil {
		return cfg, exit.With(exit.CodeBadArgs, err)
	}
	if err := s.login(&cfg); err != nil {
		return cfg, err
	}
	if g.srvDomain != "" {
		if cfg.Endpoints, err = lookupEndpoints(cmd.Context(), resolver, g); err != nil {
			return cfg, err
		}
		if cfg.TLS != nil && cfg.TLS.ServerName == "" {
			cfg.TLS.ServerName = g.srvDomain
		}
	}
	s.dialed = &dialedWith{cfg.Endpoints, cfg.TLS}
	return cfg, nil
}

// clientLog is the client library's own log: silent unless --debug is given.
func (s *session) clientLog() *zap.Logger {
	if !s.flags.debug {
		return zap.NewNop()
	}
	encoder := zap.NewProductionEncoderConfig()
	encoder.EncodeTime = zapcore.TimeEncoderOfLayout("2006-01-02T15:04:05.000000Z0700")
	encoder.TimeKey = "ts"
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(encoder), zapcore.AddSync(s.Stderr), zap.DebugLevel), zap.AddCaller())
}

// tls reads the TLS files. nil is clear text.
func (g *globals) tls() (*tls.Config, error) {
	if g.cert == "" && g.key == "" && g.cacert == "" {
		if g.insecureTransport {
			return nil, nil
		}
		return &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: g.insecureSkipVerify}, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: g.insecureSkipVerify}
	if (g.cert == "") != (g.key == "") {
		return nil, fmt.Errorf("KeyFile and CertFile must both be present[key: %s, cert: %s]", g.key, g.cert)
	}
	if g.cert != "" {
		pair, err := tls.LoadX509KeyPair(g.cert, g.key)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	if g.cacert != "" {
		pem, err := os.ReadFile(g.cacert)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate found in %s", g.cacert)
		}
	}
	return cfg, nil
}

// login fills in who is calling.
func (s *session) login(cfg *clientv3.Config) error {
	g := &s.flags
	if g.token != "" {
		if g.user != "" || g.password != "" {
			return exit.BadArgs("--auth-jwt-token cannot be given together with --user or --password")
		}
		cfg.Token = g.token
		return nil
	}
	switch {
	case g.user == "":
		return nil
	case g.password != "":
		cfg.Username, cfg.Password = g.user, g.password
		return nil
	}
	var ok bool
	if cfg.Username, cfg.Password, ok = strings.Cut(g.user, ":"); ok {
		return nil
	}
	var err error
	if cfg.Password, err = readPassword(s.Stdin, s.Stderr, "Password: "); err != nil {
		return exit.With(exit.CodeBadArgs, err)
	}
	return nil
}
