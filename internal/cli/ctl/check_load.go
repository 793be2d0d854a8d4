package ctl

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cheggaaa/pb/v3"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// putting is a load: so many puts by these clients, each of which has one put under way
// at a time.
type putting struct {
	clients  []*clientv3.Client
	prefix   string
	keyBytes int // after the prefix
	puts     int
	// perSecond is the rate at which puts are due, 0 for as fast as they go; after lasts
	// no other is begun.
	perSecond int
	lasts     time.Duration
}

// report is what became of a load. A put that was due and found no client free counts
// from when a client took it.
type report struct {
	took   []time.Duration // of the puts that went well
	failed map[string]int  // the others, by what went wrong
	lasted time.Duration
}

// bear puts the load on, with a bar on standard error that says how far it is.
func bear(ctx context.Context, s *session, p *putting) report {
	due := make(chan int)
	reports := make([]report, len(p.clients))
	bar := pb.New(p.puts).SetWriter(s.Stderr)
	bar.Start()
	began := time.Now()
	var wg sync.WaitGroup
	for i, c := range p.clients {
		wg.Go(func() {
			r := &reports[i]
			r.failed = map[string]int{}
			for n := range due {
				begin := time.Now()
				if _, err := c.Put(ctx, p.key(n), strings.Repeat("v", checkValueBytes)); err != nil {
					r.failed[err.Error()]++
				} else {
					r.took = append(r.took, time.Since(begin))
				}
				bar.Increment()
			}
		})
	}
	p.hand(ctx, began, due)
	close(due)
	wg.Wait()
	bar.Finish()
	all := report{failed: map[string]int{}, lasted: time.Since(began)}
	for _, r := range reports {
		all.took = append(all.took, r.took...)
		for what, n := range r.failed {
			all.failed[what] += n
		}
	}
	return all
}

// hand gives out the puts when they are due.
func (p *putting) hand(ctx context.Context, began time.Time, due chan<- int) {
	var over <-chan time.Time
	if p.lasts > 0 {
		over = time.After(p.lasts)
	}
	pace := time.NewTimer(0)
	defer pace.Stop()
	for n := range p.puts {
		if p.perSecond > 0 {
			pace.Reset(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(p.perSecond))))
			select {
			case <-pace.C:
			case <-over:
				return
			case <-ctx.Done():
				return
			}
		}
		select {
		case due <- n:
		case <-over:
			return
		case <-ctx.Done():
			return
		}
	}
}

// key is the key of a put: its number, and as much behind it as the key is to be long.
func (p *putting) key(n int) string {
	return p.prefix + fmt.Sprintf("%0*d", p.keyBytes, n)
}

// perSecond is the rate of puts that went well.
func (r report) perSecond() float64 { return float64(len(r.took)) / r.lasted.Seconds() }

// slowest is how long the slowest put took.
func (r report) slowest() time.Duration {
	if len(r.took) == 0 {
		return 0
	}
	return slices.Max(r.took)
}

// deviation is the standard deviation of the times.
func (r report) deviation() time.Duration {
	if len(r.took) == 0 {
		return 0
	}
	var sum, squares float64
	for _, d := range r.took {
		sum += d.Seconds()
	}
	mean := sum / float64(len(r.took))
	for _, d := range r.took {
		squares += (d.Seconds() - mean) * (d.Seconds() - mean)
	}
	return time.Duration(math.Sqrt(squares/float64(len(r.took))) * float64(time.Second))
}

// errors lists what went wrong, in the order of its text.
func (r report) errors() (list []string) {
	for what := range r.failed {
		list = append(list, what)
	}
	slices.Sort(list)
	return list
}
