package bench

import (
	"context"
	"errors"
	"fmt"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// workload is one kind of call. A new kind is a new row of the table.
type workload struct {
	name, short string
	// filled kinds need every key of the space to be there; writes draw a value.
	filled, writes bool
	// limited kinds read Limit keys.
	limited bool
	// leased kinds renew Leases leases.
	leased bool
	// prepare, if set, readies the clients of a probe; not measured. The context is
	// that of all their calls.
	prepare func(context.Context, *probe, Options) error
	// call makes one call, which counts only if its answer is what it must be.
	call func(context.Context, *client) error
}

var workloads = []workload{
	{name: "put", short: "put random keys", writes: true, call: put},
	{name: "get", short: "get random keys, linearizable", filled: true, call: get},
	{name: "get-serializable", short: "get random keys, serializable", filled: true, call: getSerializable},
	{name: "range", short: "read --limit keys between two bounds, from a random start", filled: true, limited: true, call: bounded},
	{name: "range-limit", short: "read the first --limit keys between a random start and the end of the key space, as a lister's page", filled: true, limited: true, call: limited},
	{name: "range-all", short: "read the whole key space by one unary call", filled: true, call: whole},
	{name: "range-stream", short: "read the whole key space by RangeStream (etcd 3.7; see --against-unary)", filled: true, call: streamed},
	{name: "range-pages", short: "read the whole key space in pages of --limit keys, all at the revision of the first", filled: true, limited: true, call: pages},
	{name: "count", short: "count the whole key space", filled: true, call: count},
	{name: "compare-and-put", short: "get a random key, then put it if its revision is still that", filled: true, writes: true, call: compareAndPut},
	{name: "authenticate", short: "log in with the password of --user, again and again", prepare: authClients, call: authenticate},
	{name: "lease-grant", short: "grant leases", prepare: leaseClients, call: leaseGrant},
	{name: "keep-alive", short: "renew --leases leases in turn, each client over a stream of its own", leased: true, prepare: openRenewals, call: keepAlive},
}

func find(name string) workload {
	for _, w := range workloads {
		if w.name == name {
			return w
		}
	}
	panic("no workload " + name)
}

// title of a measurement in a table.
func (w workload) title(limit int) string {
	if w.limited {
		return fmt.Sprintf("%s %d", w.name, limit)
	}
	return w.name
}

// client makes one call at a time.
type client struct {
	stub  pb.KVClient
	space Space
	limit int
	draw  source
	// key and value of the next call.
	key   int
	value []byte
	// number of the client among all, from 0.
	number int
	leases leasing
	auth   pb.AuthClient
	login  login
}

// next draws what the next call is about, so that this is not part of its latency.
func (c *client) next(w workload) {
	last := c.space.Keys
	if w.limited {
		last -= c.limit - 1
	}
	c.key = c.draw.IntN(last)
	if w.writes {
		c.draw.fill(c.value)
	}
}

func put(ctx context.Context, c *client) error {
	_, err := c.stub.Put(ctx, &pb.PutRequest{Key: c.space.key(c.key), Value: c.value})
	return err
}

func get(ctx context.Context, c *client) error {
	return c.read(ctx, &pb.RangeRequest{Key: c.space.key(c.key)}, 1)
}

func getSerializable(ctx context.Context, c *client) error {
	return c.read(ctx, &pb.RangeRequest{Key: c.space.key(c.key), Serializable: true}, 1)
}

func bounded(ctx context.Context, c *client) error {
	return c.read(ctx, &pb.RangeRequest{Key: c.space.key(c.key), RangeEnd: c.space.key(c.key + c.limit)}, c.limit)
}

func limited(ctx context.Context, c *client) error {
	return c.read(ctx, &pb.RangeRequest{Key: c.space.key(c.key), RangeEnd: c.space.key(c.space.Keys), Limit: int64(c.limit)}, c.limit)
}

func whole(ctx context.Context, c *client) error {
	return c.read(ctx, &pb.RangeRequest{Key: c.space.key(0), RangeEnd: c.space.key(c.space.Keys)}, c.space.Keys)
}

// pages reads as Kubernetes lists.
func pages(ctx context.Context, c *client) error {
	r := &pb.RangeRequest{Key: c.space.key(0), RangeEnd: c.space.key(c.space.Keys), Limit: int64(c.limit)}
	for seen := 0; ; {
		page, err := c.stub.Range(ctx, r)
		if err != nil {
			return err
		}
		if err := expect(int(page.Count), c.space.Keys-seen); err != nil {
			return err
		}
		seen += len(page.Kvs)
		if !page.More || len(page.Kvs) == 0 {
			return expect(seen, c.space.Keys)
		}
		r.Revision = page.Header.Revision
		r.Key = append(page.Kvs[len(page.Kvs)-1].Key, 0)
	}
}

func count(ctx context.Context, c *client) error {
	r, err := c.stub.Range(ctx, &pb.RangeRequest{Key: c.space.key(0), RangeEnd: c.space.key(c.space.Keys), CountOnly: true})
	if err != nil {
		return err
	}
	return expect(int(r.Count), c.space.Keys)
}

func streamed(ctx context.Context, c *client) error {
	// A stream that is left early is freed when its context ends.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.stub.RangeStream(ctx, &pb.RangeRequest{Key: c.space.key(0), RangeEnd: c.space.key(c.space.Keys)})
	if err != nil {
		return err
	}
	seen := 0
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return expect(seen, c.space.Keys)
		}
		if err != nil {
			return err
		}
		seen += len(r.RangeResponse.GetKvs())
	}
}

var errOvertaken = errors.New("compare failed: another client was faster")

func compareAndPut(ctx context.Context, c *client) error {
	key := c.space.key(c.key)
	r, err := c.stub.Range(ctx, &pb.RangeRequest{Key: key})
	if err != nil {
		return err
	}
	if err := expect(len(r.Kvs), 1); err != nil {
		return err
	}
	done, err := c.stub.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_ModRevision{ModRevision: r.Kvs[0].ModRevision}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: c.value}}}},
	})
	if err == nil && !done.Succeeded {
		return errOvertaken
	}
	return err
}

func (c *client) read(ctx context.Context, r *pb.RangeRequest, keys int) error {
	answer, err := c.stub.Range(ctx, r)
	if err != nil {
		return err
	}
	return expect(len(answer.Kvs), keys)
}

// expect keeps a fast wrong answer from counting as a good one.
func expect(got, want int) error {
	if got != want {
		return fmt.Errorf("wrong answer: %d keys instead of %d", got, want)
	}
	return nil
}
