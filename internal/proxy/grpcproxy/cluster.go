package grpcproxy

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
)

// Registry is the proxies that serve a cluster together: each writes PREFIX/ADDRESS,
// bound to a lease that it keeps alive, and reads the others. The values are those of
// etcd's naming package, so that proxies of both kinds may stand under one prefix:
//
//	{"Op":0,"Addr":"10.0.0.7:23790","Metadata":"{\"name\":\"host7\"}"}
type Registry struct {
	// Prefix is empty where no proxy registers: then this one is all there is.
	Prefix string
	// Address is what clients reach this proxy at, Name its host's.
	Address, Name string
	// TTL is the lease's, in seconds.
	TTL int64
	Log *slog.Logger

	mu    sync.Mutex
	known map[string]endpoints.Endpoint
}

// Members are the proxies that are registered, or this one.
func (r *Registry) Members() (list []*pb.Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.known {
		list = append(list, &pb.Member{Name: nameOf(e.Metadata), ClientURLs: []string{e.Addr}})
	}
	if len(list) == 0 {
		list = append(list, &pb.Member{Name: r.Name, ClientURLs: []string{r.Address}})
	}
	slices.SortFunc(list, func(a, b *pb.Member) int { return strings.Compare(a.ClientURLs[0], b.ClientURLs[0]) })
	return list
}

// meta is what a proxy tells of itself.
type meta struct {
	Name string `json:"name"`
}

func nameOf(metadata any) string {
	var m meta
	if json.Unmarshal([]byte(fmt.Sprint(metadata)), &m) != nil {
		return ""
	}
	return m.Name
}

// Run registers the proxy and learns of the others until ctx ends; then it takes itself
// off the list. What fails is tried again.
func (r *Registry) Run(ctx context.Context, c *clientv3.Client) {
	manager, err := endpoints.NewManager(c, r.Prefix)
	if err != nil {
		r.Log.Error("cannot register the proxy", "prefix", r.Prefix, "error", err.Error())
		return
	}
	var both sync.WaitGroup
	both.Go(func() { r.again(ctx, "register the proxy", func() error { return r.stay(ctx, c, manager) }) })
	both.Go(func() {
		r.again(ctx, "read which proxies are registered", func() error { return r.learn(ctx, manager) })
	})
	both.Wait()
}

// again repeats what has failed.
func (r *Registry) again(ctx context.Context, what string, do func() error) {
	for pause := brief; ctx.Err() == nil; pause = min(2*pause, 10*interval) {
		begun := time.Now()
		err := do()
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) > 10*interval {
			pause = brief
		}
		r.Log.Warn("cannot "+what+" for the moment", "prefix", r.Prefix, "error", fmt.Sprint(err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// stay keeps this proxy registered as long as its lease lasts.
func (r *Registry) stay(ctx context.Context, c *clientv3.Client, m endpoints.Manager) error {
	lease, err := c.Grant(ctx, r.TTL)
	if err != nil {
		return err
	}
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), interval)
		defer cancel()
		if _, err := c.Revoke(late, lease.ID); err != nil {
			r.Log.Info("the registration ends with its lease", "error", err.Error())
		}
	}()
	about, err := json.Marshal(meta{r.Name})
	if err != nil {
		return err
	}
	self := endpoints.Endpoint{Addr: r.Address, Metadata: string(about)}
	if err := m.AddEndpoint(ctx, r.Prefix+"/"+r.Address, self, clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	kept, err := c.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	r.Log.Info("registered the proxy", "prefix", r.Prefix, "address", r.Address, "ttl-seconds", r.TTL)
	for range kept {
	}
	return fmt.Errorf("its lease %x has ended", int64(lease.ID))
}

// learn follows who is registered.
func (r *Registry) learn(ctx context.Context, m endpoints.Manager) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	news, err := m.NewWatchChannel(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.known = map[string]endpoints.Endpoint{}
	r.mu.Unlock()
	for updates := range news {
		r.mu.Lock()
		for _, u := range updates {
			if u.Op == endpoints.Add {
				r.known[u.Key] = u.Endpoint
			} else {
				delete(r.known, u.Key)
			}
		}
		r.mu.Unlock()
	}
	return fmt.Errorf("the watch of them has ended")
}
