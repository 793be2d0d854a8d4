// Package bench is a load generator for any server that speaks etcd's v3 API. It
// uses the raw generated stubs, no client library, so that what it measures is
// the server, and it reads the server's CPU from /proc, so that a figure on
// shared cores can still be judged.
package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/olekukonko/tablewriter"
	"github.com/spf13/cobra"
)

// Options of one measurement.
type Options struct {
	// Clients is how many calls are in flight at most, spread over Connections.
	Clients, Connections int
	// Duration of the measurement; Warmup runs before it and does not count.
	Duration, Warmup time.Duration
	KeyBytes, ValueBytes,
	// Keys is the size of the key space that puts draw from.
	Keys int
}

// Server is what is measured.
type Server struct {
	Endpoint string
	// PID of the server, for its CPU; 0 when unknown.
	PID int
}

// Result of one measurement.
type Result struct {
	Endpoint string        `json:"endpoint"`
	Clients  int           `json:"clients"`
	Calls    int           `json:"calls"`
	Errors   int           `json:"errors"`
	Rate     float64       `json:"rate_per_second"`
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	P999     time.Duration `json:"p999_ns"`
	// CPU is the server's CPU time per call; 0 when its PID is unknown.
	CPU time.Duration `json:"server_cpu_per_call_ns"`
	// ResidentBytes of the server at the end; 0 when its PID is unknown.
	ResidentBytes int64 `json:"server_resident_bytes"`
}

// Command is the program.
func Command(out io.Writer) *cobra.Command {
	root := &cobra.Command{Use: "bench", Short: "measure a server that speaks etcd's v3 API", SilenceUsage: true}
	root.AddCommand(putCommand(out))
	return root
}

func putCommand(out io.Writer) *cobra.Command {
	var (
		opts            Options
		ours, other     Server
		clients         []int
		rounds          int
		asJSON          bool
		cmd             = &cobra.Command{Use: "put", Short: "put keys in a closed loop", Args: cobra.NoArgs}
		flags           = cmd.Flags()
		defaultEndpoint = "127.0.0.1:2379"
	)
	flags.StringVar(&ours.Endpoint, "endpoint", defaultEndpoint, "server to measure")
	flags.IntVar(&ours.PID, "pid", 0, "its process, for CPU and memory")
	flags.StringVar(&other.Endpoint, "against", "", "second server, measured in turns with the first; ratios are printed")
	flags.IntVar(&other.PID, "against-pid", 0, "process of the second server")
	flags.IntSliceVar(&clients, "clients", []int{1, 64, 1000}, "calls in flight; several values are measured one after the other")
	flags.IntVar(&opts.Connections, "conns", 0, "connections (0: one for up to 10 clients each, 100 at most)")
	flags.DurationVar(&opts.Duration, "duration", 5*time.Second, "length of each measurement")
	flags.DurationVar(&opts.Warmup, "warmup", time.Second, "run before each measurement")
	flags.IntVar(&opts.KeyBytes, "key-bytes", 16, "size of a key")
	flags.IntVar(&opts.ValueBytes, "value-bytes", 256, "size of a value")
	flags.IntVar(&opts.Keys, "keys", 100_000, "size of the key space")
	flags.IntVar(&rounds, "rounds", 3, "turns of each server; the median by rate counts")
	flags.BoolVar(&asJSON, "json", false, "print JSON instead of a table")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		servers := []Server{ours}
		if other.Endpoint != "" {
			servers = append(servers, other)
		}
		rows, err := measure(cmd.Context(), servers, clients, rounds, opts)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(out).Encode(rows)
		}
		return table(out, rows, len(servers))
	}
	return cmd
}

// measure runs every number of clients against every server, in turns, and
// keeps the median round of each.
func measure(ctx context.Context, servers []Server, clients []int, rounds int, opts Options) ([]Result, error) {
	var rows []Result
	for _, n := range clients {
		opts.Clients = n
		all := make([][]Result, len(servers))
		for range max(rounds, 1) {
			for i, server := range servers {
				r, err := put(ctx, server, opts)
				if err != nil {
					return nil, err
				}
				all[i] = append(all[i], r)
			}
		}
		for i := range servers {
			rows = append(rows, median(all[i]))
		}
	}
	return rows, nil
}

func table(out io.Writer, rows []Result, servers int) error {
	t := tablewriter.NewTable(out)
	t.Header("clients", "server", "calls/s", "p50", "p99", "p99.9", "CPU/call", "resident", "errors")
	for i, r := range rows {
		if err := t.Append(r.Clients, r.Endpoint, fmt.Sprintf("%.0f", r.Rate), r.P50, r.P99, r.P999,
			r.CPU, fmt.Sprintf("%d MB", r.ResidentBytes>>20), r.Errors); err != nil {
			return err
		}
		if servers == 2 && i%2 == 1 {
			if err := t.Append(append([]any{r.Clients}, ratios(rows[i-1], r)...)...); err != nil {
				return err
			}
		}
	}
	return t.Render()
}

// ratios are the first server's figures over the second's.
func ratios(a, b Result) []any {
	over := func(x, y float64) string {
		if y == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", x/y)
	}
	return []any{"ratio", over(a.Rate, b.Rate), over(float64(a.P50), float64(b.P50)), over(float64(a.P99), float64(b.P99)),
		over(float64(a.P999), float64(b.P999)), over(float64(a.CPU), float64(b.CPU)),
		over(float64(a.ResidentBytes), float64(b.ResidentBytes)), ""}
}
