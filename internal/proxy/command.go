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

// gatewayFlags are those of `etcd gateway start` (spec/server-ops.md 9).
type gatewayFlags struct {
	listen, srv, srvName, ca string
	endpoints                []string
	insecure                 bool
	retry                    time.Duration
}

func gatewayCommand(logs io.Writer) *cobra.Command {
	parent := &cobra.Command{Use: "gateway <command>", Short: "Pass TCP connections of clients on to the members of a cluster."}
	var f gatewayFlags
	start := &cobra.Command{
		Use: "start", Short: "Start the gateway.", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), telemetry.New(logs, time.Now, telemetry.JSON, slog.LevelInfo))
		},
	}
	flags := start.Flags()
	flags.StringVar(&f.listen, "listen-addr", "127.0.0.1:23790", "address to listen on")
	flags.StringVar(&f.srv, "discovery-srv", "", "domain whose SRV records list the endpoints")
	flags.StringVar(&f.srvName, "discovery-srv-name", "", "suffix of the service name in those records")
	flags.BoolVar(&f.insecure, "insecure-discovery", false, "accept SRV records of clear-text endpoints")
	flags.StringVar(&f.ca, "trusted-ca-file", "", "CA file that certificates of endpoints in SRV records are checked with")
	flags.StringSliceVar(&f.endpoints, "endpoints", []string{"127.0.0.1:2379"}, "endpoints of the cluster, separated by commas")
	flags.DurationVar(&f.retry, "retry-delay", time.Minute, "how long an endpoint that does not answer is left alone")
	parent.AddCommand(start)
	return parent
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
		d := Discovery{Domain: f.srv, Name: f.srvName, Insecure: f.insecure, TrustedCAFile: f.ca, Log: log, Resolver: net.DefaultResolver}
		return d.Endpoints(ctx)
	}
	for _, text := range f.endpoints {
		if _, rest, has := strings.Cut(text, "://"); has {
			text = rest
		}
		list = append(list, Endpoint{Address: strings.TrimSpace(text)})
	}
	return list, nil
}
