package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvorum/kvorum/internal/telemetry"
)

// Commands are the words that `etcd` takes in the place of flags.
var Commands = []string{"gateway", "grpc-proxy"}

// Main runs one of Commands with the arguments that follow it, until a signal, and
// returns the exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{Use: "etcd", SilenceErrors: true, SilenceUsage: true}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(gatewayCommand(stderr), grpcProxyCommand(stderr))
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(stderr, "Error:", err)
		return 1
	}
	return 0
}

// startCommand is `etcd NAME start`, which runs until its context ends.
func startCommand(name, about, does string, register func(*pflag.FlagSet), run func(context.Context) error) *cobra.Command {
	start := &cobra.Command{
		Use: "start", Short: does, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context()) },
	}
	register(start.Flags())
	parent := &cobra.Command{Use: name + " <command>", Short: about}
	parent.AddCommand(start)
	return parent
}

// place is what both proxies are told of where they are and where the cluster is; an srv
// takes the place of endpoints that are listed.
type place struct {
	listen, srv, srvName string
	insecure             bool
}

// register declares the flags.
func (p *place) register(flags *pflag.FlagSet, endpoints *[]string) {
	flags.StringVar(&p.listen, "listen-addr", "127.0.0.1:23790", "address to listen on")
	flags.StringSliceVar(endpoints, "endpoints", []string{"127.0.0.1:2379"}, "endpoints of the cluster, separated by commas")
	flags.StringVar(&p.srv, "discovery-srv", "", "domain whose SRV records list the endpoints")
	flags.StringVar(&p.srvName, "discovery-srv-name", "", "suffix of the service name in those records")
	flags.BoolVar(&p.insecure, "insecure-discovery", false, "accept SRV records of clear-text endpoints")
}

// discover asks DNS, and checks certificates with the authorities in a file.
func (p *place) discover(ctx context.Context, ca string, log *slog.Logger) ([]Endpoint, error) {
	d := Discovery{Domain: p.srv, Name: p.srvName, Insecure: p.insecure, TrustedCAFile: ca, Log: log, Resolver: net.DefaultResolver}
	return d.Endpoints(ctx)
}

// gatewayFlags are those of `etcd gateway start` (spec/server-ops.md 9).
type gatewayFlags struct {
	place
	endpoints []string
	ca        string
	retry     time.Duration
}

func gatewayCommand(logs io.Writer) *cobra.Command {
	var f gatewayFlags
	return startCommand("gateway", "Pass TCP connections of clients on to the members of a cluster.", "Start the gateway.", f.register, func(ctx context.Context) error {
		return f.run(ctx, telemetry.New(logs, time.Now, telemetry.JSON, slog.LevelInfo))
	})
}

// register declares the flags.
func (f *gatewayFlags) register(flags *pflag.FlagSet) {
	f.place.register(flags, &f.endpoints)
	flags.StringVar(&f.ca, "trusted-ca-file", "", "CA file that certificates of endpoints in SRV records are checked with")
	flags.DurationVar(&f.retry, "retry-delay", time.Minute, "how long an endpoint that does not answer is left alone")
}

func (f *gatewayFlags) run(ctx context.Context, log *slog.Logger) error {
	if f.retry <= 0 {
		return errors.New("--retry-delay must be above zero")
	}
	endpoints, err := f.find(ctx, log)
	if err != nil {
		return err
	}
	g, err := NewGateway(endpoints, f.retry, log)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return err
	}
	var addresses []string
	for _, e := range endpoints {
		addresses = append(addresses, e.Address)
	}
	log.Info("ready to proxy client requests", "address", l.Addr().String(), "endpoints", addresses)
	return g.Serve(ctx, l)
}

// find lists the endpoints; a scheme before one says nothing to a gateway.
func (f *gatewayFlags) find(ctx context.Context, log *slog.Logger) (list []Endpoint, err error) {
	if f.srv != "" {
		return f.discover(ctx, f.ca, log)
	}
	for _, text := range f.endpoints {
		if _, rest, has := strings.Cut(text, "://"); has {
			text = rest
		}
		list = append(list, Endpoint{Address: strings.TrimSpace(text)})
	}
	return list, nil
}
