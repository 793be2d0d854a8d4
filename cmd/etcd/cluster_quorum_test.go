package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Two of four members are down: what needs a majority is refused with a text that
// says so, what this member has can be read, and all is well when one comes back.
func TestTwoOfFourMembersAreDown(t *testing.T) {
	skipShort(t)
	c := newCluster(t, 4)
	c.Start(c.Members...)
	asked, other := c.Members[0], c.Members[1]
	cl, there := c.KV(asked), c.KV(other)
	if _, err := cl.Put(context.Background(), "k", "before"); err != nil {
		t.Fatal(err)
	}
	down := c.Members[2:]
	for _, m := range down {
		m.Kill()
	}
	// A client that insists on a leader is refused at once.
	c.Eventually("both that are left to know of no leader", func(ctx context.Context) bool {
		for _, one := range []*clientv3.Client{cl, there} {
			if _, err := one.Put(clientv3.WithRequireLeader(ctx), "k", "before"); !errors.Is(err, rpctypes.ErrNoLeader) {
				return false
			}
		}
		return true
	})
	if got, err := cl.Get(context.Background(), "k", clientv3.WithSerializable()); err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "before" {
		t.Errorf("serializable: %v, %v", got, err)
	}
	if out, said, code := c.Ctl("--endpoints="+asked.Client, "get", "k", "--consistency=s"); code != 0 || out != "k\nbefore\n" {
		t.Errorf("etcdctl get --consistency=s: %d, %q, %q", code, out, said)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	first, second := plainKV(t, asked.Client), plainKV(t, other.Client)
	var calls sync.WaitGroup
	refused := func(what, text string, call func(context.Context) error) {
		calls.Go(func() {
			begun := time.Now()
			err := call(ctx)
			if took := time.Since(begun); err == nil || !strings.Contains(err.Error(), text) || took > 15*time.Second {
				t.Errorf("%s: %v after %v, want %q", what, err, took, text)
			}
		})
	}
	// Without a leader a call waits for one (spec/v3-api.md 1.5). The client proper
	// would ask again and again, so these go past it.
	refused("put", "context deadline exceeded", func(ctx context.Context) error {
		_, err := first.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
		return err
	})
	refused("get", "etcdserver: request timed out", func(ctx context.Context) error {
		_, err := second.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
		return err
	})
	calls.Go(func() {
		if _, said, code := c.Ctl("--endpoints="+other.Client, "put", "k", "v", "--command-timeout=1s"); code != 1 || !strings.Contains(said, "context deadline exceeded") {
			t.Errorf("etcdctl put: %d, %q", code, said)
		}
	})
	calls.Wait()
	c.Start(down[0])
	if _, err := cl.Put(context.Background(), "k", "after"); err != nil {
		t.Fatal(err)
	}
	if got, err := there.Get(context.Background(), "k"); err != nil || string(got.Kvs[0].Value) != "after" {
		t.Errorf("after: %v, %v", got, err)
	}
}
