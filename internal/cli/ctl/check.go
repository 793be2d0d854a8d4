package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
)

func checkCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{Use: "check <command>", Short: "Try what a cluster can bear."}
	cmd.AddCommand(checkPerfCommand(s), checkDatascaleCommand(s))
	return cmd
}

// load is how much a check asks for.
type load struct {
	names []string
	// perSecond is the rate of check perf, keys the number of check datascale.
	perSecond, keys int
	clients         int
}

var loads = []load{
	{[]string{"s", "small"}, 150, 10_000, 50},
	{[]string{"m", "medium"}, 1000, 100_000, 200},
	{[]string{"l", "large"}, 8000, 1_000_000, 500},
	{[]string{"xl", "xLarge"}, 15_000, 3_000_000, 1000},
}

// loadNamed finds a load by one of its names.
func loadNamed(name string) (load, error) {
	for _, l := range loads {
		if slices.Contains(l.names, name) {
			return l, nil
		}
	}
	return load{}, exit.BadFeature("unknown load option %v", name)
}

// checking is what both checks are told.
type checking struct {
	load, prefix    string
	compact, defrag bool
}

func (k *checking) register(cmd *cobra.Command, prefix string) {
	cmd.Flags().StringVar(&k.load, "load", "s", "how much: s(mall), m(edium), l(arge) or xl(arge)")
	cmd.Flags().StringVar(&k.prefix, "prefix", prefix, "what the keys begin with that are written, and deleted in the end")
	cmd.Flags().BoolVar(&k.compact, "auto-compact", false, "compact to the latest revision in the end")
	cmd.Flags().BoolVar(&k.defrag, "auto-defrag", false, "defragment the endpoints in the end")
	complete(cmd, "load", "s", "m", "l", "xl")
}

const (
	checkKeyBytes   = 256
	checkValueBytes = 1024
)

func checkPerfCommand(s *session) *cobra.Command {
	var k checking
	var lasts time.Duration
	cmd := &cobra.Command{
		Use:   "perf [flags]",
		Short: "Put at a given rate for a minute, and judge how fast that went.",
		Long: fmt.Sprintf(`Put keys of %d bytes with values of %d at a given rate for a minute, and judge: more than
90 %% of the rate must be reached, no put take more than %v, and the standard deviation be at most %v.

  load   puts/s   clients
  s         150        50
  m       1,000       200
  l       8,000       500
  xl     15,000     1,000`, checkKeyBytes, checkValueBytes, slowestPut, widestPuts),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := loadNamed(k.load)
			if err != nil {
				return err
			}
			return s.check(cmd, &k, l.clients, func(clients []*clientv3.Client) (bool, error) {
				report := bear(cmd.Context(), s, &putting{clients: clients, prefix: k.prefix, keyBytes: checkKeyBytes, perSecond: l.perSecond, lasts: lasts,
					puts: int(float64(l.perSecond) * lasts.Seconds())})
				return s.judgePerf(report, l.perSecond), nil
			})
		},
	}
	k.register(cmd, "/etcdctl-check-perf/")
	cmd.Flags().DurationVar(&lasts, "duration", time.Minute, "how long to put")
	return cmd
}

// What check perf asks of the puts.
const (
	slowestPut = 500 * time.Millisecond
	widestPuts = 100 * time.Millisecond
)

// judgePerf says what the puts were like, and whether that will do.
func (s *session) judgePerf(r report, perSecond int) (passed bool) {
	passed = s.verdict(r.perSecond() > 0.9*float64(perSecond), "Throughput is %d writes/s", "Throughput too low: %d writes/s", int(math.Round(r.perSecond())))
	passed = s.verdict(r.slowest() <= slowestPut, "Slowest request took %fs", "Slowest request took too long: %fs", r.slowest().Seconds()) && passed
	passed = s.verdict(r.deviation() <= widestPuts, "Stddev is %fs", "Stddev too high: %fs", r.deviation().Seconds()) && passed
	return s.failures(r) && passed
}

// failures lists what went wrong, if anything did.
func (s *session) failures(r report) (none bool) {
	for _, e := range r.errors() {
		fmt.Fprintf(s.Stdout, "FAIL: ERROR(%v) -> %d\n", e, r.failed[e])
	}
	return len(r.failed) == 0
}

func (s *session) verdict(passed bool, good, bad string, about any) bool {
	if passed {
		fmt.Fprintf(s.Stdout, "PASS: "+good+"\n", about)
	} else {
		fmt.Fprintf(s.Stdout, "FAIL: "+bad+"\n", about)
	}
	return passed
}

func checkDatascaleCommand(s *session) *cobra.Command {
	var k checking
	cmd := &cobra.Command{
		Use:   "datascale [flags]",
		Short: "Put a given number of keys, and see what memory that takes.",
		Long: fmt.Sprintf(`Put a given number of keys with values of %d bytes by way of one endpoint, and see by its
page of metrics how much more memory its member then has.

  load       keys   clients
  s        10,000        50
  m       100,000       200
  l     1,000,000       500
  xl    3,000,000     1,000`, checkValueBytes),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := loadNamed(k.load)
			if err != nil {
				return err
			}
			return s.check(cmd, &k, l.clients, func(clients []*clientv3.Client) (bool, error) {
				return s.datascale(cmd.Context(), clients, &k, l)
			})
		},
	}
	k.register(cmd, "/etcdctl-check-datascale/")
	return cmd
}

// datascale weighs a member before and after the puts.
func (s *session) datascale(ctx context.Context, clients []*clientv3.Client, k *checking, l load) (passed bool, err error) {
	ep := clients[0].Endpoints()[0]
	before, err := s.residentBytes(ctx, ep)
	if err != nil {
		fmt.Fprintf(s.Stdout, "FAIL: Could not read process_resident_memory_bytes before the put operations (%v).\n", err)
		return false, nil
	}
	fmt.Fprintf(s.Stdout, "Start data scale check for work load [%d key-value pairs, %d bytes per key-value, %d concurrent clients].\n", l.keys, checkValueBytes, l.clients)
	r := bear(ctx, s, &putting{clients: clients, prefix: k.prefix, keyBytes: 16, puts: l.keys})
	after, err := s.residentBytes(ctx, ep)
	if err != nil {
		fmt.Fprintf(s.Stdout, "FAIL: Could not read process_resident_memory_bytes after the put operations (%v).\n", err)
		return false, nil
	}
	if !s.failures(r) {
		return false, nil
	}
	fmt.Fprintf(s.Stdout, "PASS: Approximate system memory used : %.2f MB.\n", max(after-before, 0)/(1<<20))
	return true, nil
}

// residentBytes reads the memory of the process behind an endpoint from its page of
// metrics.
func (s *session) residentBytes(ctx context.Context, endpoint string) (float64, error) {
	secure, err := s.flags.tls()
	if err != nil {
		return 0, err
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
		if secure != nil {
			endpoint = "https" + strings.TrimPrefix(endpoint, "http")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.flags.commandTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	web := &http.Transport{TLSClientConfig: secure}
	defer web.CloseIdleConnections()
	resp, err := web.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(page)) {
		if value, ok := strings.CutPrefix(line, "process_resident_memory_bytes "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, errors.New("there is no such metric")
}

// check connects so many clients, makes sure that the prefix is nobody's, does the
// check, and takes away what it wrote.
func (s *session) check(cmd *cobra.Command, k *checking, clients int, do func([]*clientv3.Client) (bool, error)) error {
	if _, err := s.prepare(cmd); err != nil {
		return err
	}
	cfg, err := s.clientConfig(cmd)
	if err != nil {
		return err
	}
	var all []*clientv3.Client
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	for i := range clients {
		one := cfg
		one.Endpoints = []string{cfg.Endpoints[i%len(cfg.Endpoints)]}
		c, err := dialConfig(one)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	if err := s.unused(cmd, all[0], k.prefix); err != nil {
		return err
	}
	passed, err := do(all)
	if err := errors.Join(err, s.tidyUp(cmd, all[0], cfg.Endpoints, k)); err != nil {
		return err
	}
	if !passed {
		fmt.Fprintln(s.Stdout, "FAIL")
		return exit.ErrReported
	}
	_, err = fmt.Fprintln(s.Stdout, "PASS")
	return err
}

// unused refuses a prefix that has keys.
func (s *session) unused(cmd *cobra.Command, c *clientv3.Client, prefix string) error {
	ctx, cancel := s.call(cmd)
	defer cancel()
	r, err := c.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithLimit(1))
	if err != nil {
		return err
	}
	if len(r.Kvs) > 0 {
		return exit.BadInput("prefix %q has keys. Delete with etcdctl del --prefix %s first", prefix, prefix)
	}
	return nil
}

// tidyUp deletes what was written and, if asked to, gives its space back.
func (s *session) tidyUp(cmd *cobra.Command, c *clientv3.Client, endpoints []string, k *checking) error {
	// Many keys take longer than a short command.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), s.flags.commandTimeout+time.Minute)
	defer cancel()
	r, err := c.Delete(ctx, k.prefix, clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("the keys of the check are still there (%w)", err)
	}
	if k.compact {
		fmt.Fprintf(s.Stdout, "Compacting with revision %d\n", r.Header.Revision)
		if _, err := c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
			return err
		}
		fmt.Fprintf(s.Stdout, "Compacted with revision %d\n", r.Header.Revision)
	}
	if !k.defrag {
		return nil
	}
	for _, endpoint := range endpoints {
		fmt.Fprintf(s.Stdout, "Defragmenting %q\n", endpoint)
		if _, err := c.Defragment(ctx, endpoint); err != nil {
			return err
		}
		fmt.Fprintf(s.Stdout, "Defragmented %q\n", endpoint)
	}
	return nil
}
