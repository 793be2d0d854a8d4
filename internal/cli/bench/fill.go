package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fillClients put at a time, over a tenth as many connections.
const fillClients = 256

// patience is how often a put that the server refuses for now is tried again.
const patience = 500

// filler puts keys in bulk, unmeasured.
type filler struct {
	server   Server
	space    Space
	seed     uint64
	progress io.Writer
}

// ensure puts the whole key space unless a server has it already. It looks at the
// number of keys and the size of one value.
func (f filler) ensure(ctx context.Context) error {
	conns, err := dial(ctx, f.server, 1)
	if err != nil {
		return err
	}
	defer conns.close()
	stub := pb.NewKVClient(conns.all[0])
	all, err := stub.Range(ctx, &pb.RangeRequest{Key: f.space.key(0), RangeEnd: f.space.key(f.space.Keys), CountOnly: true})
	if err != nil {
		return fmt.Errorf("%s: count: %w", f.server.Endpoint, err)
	}
	one, err := stub.Range(ctx, &pb.RangeRequest{Key: f.space.key(0)})
	if err != nil {
		return fmt.Errorf("%s: get: %w", f.server.Endpoint, err)
	}
	if all.Count == int64(f.space.Keys) && len(one.Kvs) == 1 && len(one.Kvs[0].Value) == f.space.ValueBytes {
		return nil
	}
	_, err = f.put(ctx, f.space.Keys)
	return err
}

// put makes n puts over the key space in its shuffled order, again from the
// beginning when n is larger, and returns how long it took.
func (f filler) put(ctx context.Context, n int) (time.Duration, error) {
	clients := min(fillClients, max(n, 1))
	conns, err := dial(ctx, f.server, defaultConnections(clients))
	if err != nil {
		return 0, err
	}
	defer conns.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg         sync.WaitGroup
		next, done atomic.Int64
		begin      = time.Now()
		p          = startProgress(f.progress, f.server.label(), &done, n)
	)
	for i := range clients {
		wg.Go(func() {
			stub, draw, value := pb.NewKVClient(conns.all[i%len(conns.all)]), newSource(f.seed, i), make([]byte, f.space.ValueBytes)
			for k := next.Add(1) - 1; k < int64(n) && ctx.Err() == nil; k = next.Add(1) - 1 {
				draw.fill(value)
				if err := persist(ctx, stub, &pb.PutRequest{Key: f.space.key(f.space.shuffled(int(k))), Value: value}); err != nil {
					cancel(fmt.Errorf("%s: put: %w", f.server.Endpoint, err))
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	p.end()
	return time.Since(begin), context.Cause(ctx)
}

// persist tries again what a server refuses because it has too much to do, or has
// given up waiting for: etcd says the latter as Unavailable or, when its own time
// ran out, as Unknown. A put that was made after all is made twice.
func persist(ctx context.Context, stub pb.KVClient, r *pb.PutRequest) error {
	for try := 1; ; try++ {
		_, err := stub.Put(ctx, r)
		code := status.Code(err)
		busy := code == codes.Unavailable || code == codes.ResourceExhausted || code == codes.Unknown
		if err == nil || !busy || try == patience {
			return err
		}
		select {
		case <-time.After(afterError):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// progress tells how far a fill is: on a terminal one line that is written over,
// elsewhere a line every few seconds.
type progress struct {
	stop, stopped chan struct{}
}

func startProgress(out io.Writer, who string, done *atomic.Int64, of int) progress {
	p := progress{stop: make(chan struct{}), stopped: make(chan struct{})}
	every, before, after := 5*time.Second, "", "\n"
	if terminal(out) {
		every, before, after = 200*time.Millisecond, "\r\x1b[K", ""
	}
	go func() {
		defer close(p.stopped)
		ticks := time.NewTicker(every)
		defer ticks.Stop()
		begin := time.Now()
		for shown := false; ; shown = true {
			select {
			case <-ticks.C:
				n := done.Load()
				fmt.Fprintf(out, "%s%s: %d of %d keys, %.0f/s%s", before, who, n, of, float64(n)/time.Since(begin).Seconds(), after)
			case <-p.stop:
				if shown {
					fmt.Fprint(out, before)
				}
				return
			}
		}
	}()
	return p
}

func (p progress) end() {
	close(p.stop)
	<-p.stopped
}

func terminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
