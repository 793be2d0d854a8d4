package ctl

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/telemetry"
)

// globals are the flags that every command has.
type globals struct {
	endpoints []string

	writeOut string
	hex      bool
	debug    bool

	dialTimeout      time.Duration
	commandTimeout   time.Duration
	keepAliveTime    time.Duration
	keepAliveTimeout time.Duration
	maxRequestBytes  int
	maxRecvBytes     int

	insecureTransport  bool
	insecureSkipVerify bool
	cert, key, cacert  string

	user, password, token string

	srvDomain, srvName string
	insecureDiscovery  bool
}

func (g *globals) register(fs *pflag.FlagSet) {
	fs.StringSliceVar(&g.endpoints, "endpoints", []string{"127.0.0.1:2379"}, "gRPC endpoints, separated by commas")
	fs.StringVarP(&g.writeOut, "write-out", "w", "simple", "output format: simple, fields, json, protobuf or table")
	fs.BoolVar(&g.hex, "hex", false, "print keys, values and ids in hexadecimal")
	fs.BoolVar(&g.debug, "debug", false, "log what the client does")
	fs.DurationVar(&g.dialTimeout, "dial-timeout", 2*time.Second, "time-out of a connection")
	fs.DurationVar(&g.commandTimeout, "command-timeout", 5*time.Second, "time-out of a short command, connecting not counted")
	fs.DurationVar(&g.keepAliveTime, "keepalive-time", 2*time.Second, "time between pings of a silent server")
	fs.DurationVar(&g.keepAliveTimeout, "keepalive-timeout", 6*time.Second, "how long a ping may stay unanswered")
	fs.IntVar(&g.maxRequestBytes, "max-request-bytes", 0, "largest request in bytes; 0 is 2 MiB")
	fs.IntVar(&g.maxRecvBytes, "max-recv-bytes", 0, "largest answer in bytes; 0 is no bound")
	fs.BoolVar(&g.insecureTransport, "insecure-transport", true, "use clear text when no TLS file is given")
	fs.BoolVar(&g.insecureSkipVerify, "insecure-skip-tls-verify", false, "do not check the server's certificate (for tests only)")
	fs.StringVar(&g.cert, "cert", "", "client certificate file")
	fs.StringVar(&g.key, "key", "", "client key file")
	fs.StringVar(&g.cacert, "cacert", "", "CA file that the server's certificate is checked with")
	fs.StringVar(&g.user, "user", "", "name[:password]; the password is asked for when it is absent")
	fs.StringVar(&g.password, "password", "", "password of --user, which is a name only then")
	fs.StringVar(&g.token, "auth-jwt-token", "", "ready JWT instead of a user")
	fs.StringVarP(&g.srvDomain, "discovery-srv", "d", "", "domain whose SRV records list the endpoints")
	fs.StringVar(&g.srvName, "discovery-srv-name", "", "suffix of the service name in those records")
	fs.BoolVar(&g.insecureDiscovery, "insecure-discovery", true, "accept SRV records of clear-text endpoints")
}

const variablePrefix = "ETCDCTL_"

// notFlags are variables that are no global flag's; API is tolerated as "3".
var notFlags = map[string]bool{"ETCDCTL_WATCH_KEY": true, "ETCDCTL_WATCH_RANGE_END": true}

// fillFromEnvironment gives every global flag that the command line lacks the
// value of its variable. A flag and its variable together are an error, an
// unknown variable a warning; an empty one says nothing.
func (s *session) fillFromEnvironment(fs *pflag.FlagSet) error {
	given := map[string]bool{}
	options := map[string]*pflag.Flag{}
	fs.VisitAll(func(f *pflag.Flag) {
		name := variablePrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		options[name] = f
		given[name] = f.Changed
	})
	log := telemetry.New(s.Stderr, time.Now, telemetry.JSON, slog.LevelInfo)
	for _, pair := range s.Environ {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, variablePrefix) || notFlags[name] || pair == "ETCDCTL_API=3" {
			continue
		}
		f := options[name]
		switch {
		case f == nil:
			log.Warn("unrecognized environment variable", "environment-variable", name)
		case value == "": // as if there were none
		case given[name]:
			log.Log(context.Background(), telemetry.LevelFatal, shadowed, "environment-variable", name)
			return exit.ErrReported
		default:
			if err := fs.Set(f.Name, value); err != nil {
				return exit.BadArgs("invalid value %q for %s: %v", value, name, err)
			}
		}
	}
	if s.flags.debug {
		s.printVariables(fs)
	}
	return nil
}

// shadowed is etcd's text, its doubled parenthesis included.
const shadowed = "conflicting environment variable is shadowed by corresponding command-line flag " +
	"(either unset environment variable or disable flag))"

// printVariables lists the variables that would give the present flags.
func (s *session) printVariables(fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		value := f.Value.String()
		if f.Name == "endpoints" {
			value = strings.Join(s.flags.endpoints, ",")
		}
		if value != "" && (f.Name == "password" || f.Name == "auth-jwt-token" || f.Name == "user") {
			value = "***"
		}
		fmt.Fprintf(s.Stderr, "%s%s=%s\n", variablePrefix, strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")), value)
	})
}

func optionsCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "options",
		Short: "List the global flags.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "These flags may be given to any command:\n\n%s", root.PersistentFlags().FlagUsages())
			return err
		},
	}
}
