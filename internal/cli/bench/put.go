package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// put measures one server: opts.Clients loops, each with one call in flight.
func put(ctx context.Context, server Server, opts Options) (Result, error) {
	conns, err := dial(server.Endpoint, connections(opts))
	if err != nil {
		return Result{}, err
	}
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	if _, err := run(ctx, conns, opts, opts.Warmup); err != nil {
		return Result{}, fmt.Errorf("%s: %w", server.Endpoint, err)
	}
	before := cpuTime(server.PID)
	begin := time.Now()
	took, err := run(ctx, conns, opts, opts.Duration)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", server.Endpoint, err)
	}
	elapsed := time.Since(begin)
	used := cpuTime(server.PID) - before
	slices.Sort(took)
	r := Result{Endpoint: server.Endpoint, Clients: opts.Clients, Calls: len(took), ResidentBytes: resident(server.PID)}
	if len(took) > 0 {
		r.Rate = float64(len(took)) / elapsed.Seconds()
		r.P50, r.P99, r.P999 = quantile(took, 0.5), quantile(took, 0.99), quantile(took, 0.999)
		r.CPU = used / time.Duration(len(took))
	}
	return r, ctx.Err()
}

// connections is how many a run opens: one for up to ten clients each.
func connections(opts Options) int {
	if opts.Connections > 0 {
		return opts.Connections
	}
	return min(max((opts.Clients+9)/10, 1), 100)
}

func dial(endpoint string, n int) ([]*grpc.ClientConn, error) {
	var conns []*grpc.ClientConn
	for range n {
		c, err := grpc.NewClient(strings.TrimPrefix(endpoint, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// run keeps opts.Clients loops busy for a while and returns how long each call
// took. The first error ends it.
func run(ctx context.Context, conns []*grpc.ClientConn, opts Options, length time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg   sync.WaitGroup
		took = make([][]time.Duration, opts.Clients)
		end  = time.Now().Add(length)
	)
	for i := range opts.Clients {
		wg.Go(func() {
			stub := pb.NewKVClient(conns[i%len(conns)])
			draw := rand.New(rand.NewPCG(uint64(i), uint64(end.UnixNano())))
			value := make([]byte, opts.ValueBytes)
			for time.Now().Before(end) && ctx.Err() == nil {
				key := fmt.Appendf(nil, "%0*d", opts.KeyBytes, draw.IntN(opts.Keys))
				begin := time.Now()
				if _, err := stub.Put(ctx, &pb.PutRequest{Key: key, Value: value}); err != nil {
					cancel(err)
					return
				}
				took[i] = append(took[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	return slices.Concat(took...), context.Cause(ctx)
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func median(rounds []Result) Result {
	slices.SortFunc(rounds, func(a, b Result) int { return int(a.Rate - b.Rate) })
	return rounds[len(rounds)/2]
}

// clockTick is the length of a tick in /proc/PID/stat: USER_HZ is 100 on every
// Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// cpuTime is the user and system time of a process so far; 0 if unknown.
func cpuTime(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name may hold blanks: fields are counted after its closing bracket.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick
}

// resident is the memory of a process; 0 if unknown.
func resident(pid int) int64 {
	if pid == 0 {
		return 0
	}
	statm, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
