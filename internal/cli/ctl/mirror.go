package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

// mirrored is what make-mirror is told.
type mirrored struct {
	prefix, destPrefix     string
	noDestPrefix           bool
	rev                    int64
	maxTxnOps              uint
	cert, key, cacert      string
	insecure               bool
	destUser, destPassword string
}

const mirrorLong = `Copy keys into another cluster, and go on copying every change until interrupted.

What is there is copied in the order of keys as it was at one revision; then every change
follows, those of one revision in one txn, with those of others if the mirror is behind.
A broken connection on either side is waited for. Revisions and leases are not copied, and
keys that the destination has besides stay.
Every 30 seconds the number of keys that were copied or deleted is printed.

With --prefix only keys that begin with it are copied; in the destination they begin with
--dest-prefix instead, or with neither, with --no-dest-prefix. With --rev nothing is copied that was
there before that revision: a mirror that was interrupted goes on.`

func makeMirrorCommand(s *session) *cobra.Command {
	var o mirrored
	cmd := &cobra.Command{
		Use:   "make-mirror [flags] <destination endpoint>",
		Short: "Copy keys into another cluster, and every change to them.",
		Long:  mirrorLong,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit.BadArgs("make-mirror takes one destination argument")
			}
			if o.destPrefix != "" && o.noDestPrefix {
				return exit.BadArgs("`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one")
			}
			return s.connect(cmd, func(c *clientv3.Client, _ *print.Printer) error { return s.makeMirror(cmd, c, &o, args[0]) })
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.prefix, "prefix", "", "copy keys that begin with this")
	fs.Int64Var(&o.rev, "rev", 0, "copy changes from this revision on only; 0 is everything")
	fs.StringVar(&o.destPrefix, "dest-prefix", "", "what they begin with in the destination, in the place of --prefix")
	fs.BoolVar(&o.noDestPrefix, "no-dest-prefix", false, "cut --prefix off in the destination")
	fs.UintVar(&o.maxTxnOps, "max-txn-ops", 128, "most operations in a txn of the destination")
	fs.StringVar(&o.cert, "dest-cert", "", "client certificate file for the destination")
	fs.StringVar(&o.key, "dest-key", "", "client key file for the destination")
	fs.StringVar(&o.cacert, "dest-cacert", "", "CA file that the destination's certificate is checked with")
	fs.BoolVar(&o.insecure, "dest-insecure-transport", true, "use clear text for the destination when no TLS file is given")
	fs.StringVar(&o.destUser, "dest-user", "", "name[:password] in the destination; the password is asked for when it is absent")
	fs.StringVar(&o.destPassword, "dest-password", "", "password of --dest-user, which is a name only then")
	return cmd
}

// destination makes a client for the other cluster: the global flags, but for who is
// asked and who asks.
func (s *session) destination(cmd *cobra.Command, o *mirrored, endpoint string) (*clientv3.Client, error) {
	other := &session{Process: s.Process, flags: s.flags}
	g := &other.flags
	g.endpoints, g.srvDomain, g.srvName = []string{endpoint}, "", ""
	g.cert, g.key, g.cacert, g.insecureTransport = o.cert, o.key, o.cacert, o.insecure
	g.user, g.password, g.token = o.destUser, o.destPassword, ""
	return other.dial(cmd)
}

// mirrorTells is how often it is told how much was copied.
const mirrorTells = 30 * time.Second

func (s *session) makeMirror(cmd *cobra.Command, from *clientv3.Client, o *mirrored, endpoint string) error {
	to, err := s.destination(cmd, o, endpoint)
	if err != nil {
		return err
	}
	defer to.Close()
	m := &mirror{from: from, to: to, o: o, trouble: func(who string, err error) {
		fmt.Fprintf(s.Stderr, "%s does not answer, trying again: %v\n", who, err)
	}}
	tell := time.NewTicker(mirrorTells)
	defer tell.Stop()
	done := make(chan error, 1)
	go func() { done <- m.run(cmd.Context()) }()
	for {
		select {
		case <-tell.C:
			if _, err := fmt.Fprintln(s.Stdout, m.copied.Load()); err != nil {
				return err
			}
		case err := <-done:
			return err
		}
	}
}

// mirror copies one cluster's keys into another.
type mirror struct {
	from, to *clientv3.Client
	o        *mirrored
	trouble  func(who string, err error)
	copied   atomic.Int64
}

const (
	// mirrorPage is how many keys are read at once, mirrorBytes how much at most is put in
	// one txn: well below what a server takes.
	mirrorPage  = 1000
	mirrorBytes = 1 << 20
)

// run copies until the context ends or something is wrong that does not pass.
func (m *mirror) run(ctx context.Context) error {
	next := m.o.rev
	if next == 0 {
		at, err := m.base(ctx)
		if err != nil {
			return err
		}
		next = at + 1
	}
	for {
		err := m.watch(ctx, &next)
		if ctx.Err() != nil || err != nil && !passes(err) {
			return cmp.Or(ctx.Err(), err)
		}
		if err := m.rest(ctx, "the source", err); err != nil {
			return err
		}
	}
}

// watch copies changes from a revision on, and moves it. It ends when the watch does,
// with nil if nothing was said of why.
func (m *mirror) watch(ctx context.Context, next *int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for resp := range m.from.Watch(clientv3.WithRequireLeader(ctx), m.o.prefix, clientv3.WithRev(*next), clientv3.WithPrefix()) {
		if err := resp.Err(); err != nil {
			return err
		}
		if err := m.follow(ctx, resp.Events); err != nil {
			return err
		}
		if n := len(resp.Events); n > 0 {
			*next = resp.Events[n-1].Kv.ModRevision + 1
		}
	}
	return nil
}

// rest tells of what is waited for, and waits.
func (m *mirror) rest(ctx context.Context, who string, err error) error {
	m.trouble(who, err)
	select {
	case <-time.After(mirrorPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// base copies what is there, page by page at one revision, which it returns.
func (m *mirror) base(ctx context.Context) (rev int64, err error) {
	opts := []clientv3.OpOption{clientv3.WithLimit(mirrorPage), clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend)}
	key := m.o.prefix
	end := clientv3.GetPrefixRangeEnd(key)
	if key == "" {
		key, end = "\x00", "\x00"
	}
	for {
		r, err := m.from.Get(ctx, key, append(opts, clientv3.WithRange(end), clientv3.WithRev(rev))...)
		if err != nil {
			return 0, err
		}
		if rev == 0 {
			rev = r.Header.Revision
		}
		var t copying
		for _, kv := range r.Kvs {
			if err := m.add(ctx, &t, &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv}); err != nil {
				return 0, err
			}
		}
		if err := m.flush(ctx, &t); err != nil || !r.More {
			return rev, err
		}
		key = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// follow copies changes; those of one revision are one txn as far as that is possible.
// What comes together, when the mirror is behind, is copied together: revision by revision
// a destination of several members would be slower than a busy source.
func (m *mirror) follow(ctx context.Context, events []*clientv3.Event) error {
	var t copying
	for len(events) > 0 {
		one := 1
		for one < len(events) && events[one].Kv.ModRevision == events[0].Kv.ModRevision {
			one++
		}
		if !m.fits(&t, events[:one]) {
			if err := m.flush(ctx, &t); err != nil {
				return err
			}
		}
		for _, e := range events[:one] {
			if err := m.add(ctx, &t, (*mvccpb.Event)(e)); err != nil {
				return err
			}
		}
		events = events[one:]
	}
	return m.flush(ctx, &t)
}

// fits says whether all changes of a revision may be added to a txn.
func (m *mirror) fits(t *copying, events []*clientv3.Event) bool {
	bytes := t.bytes
	for _, e := range events {
		key := m.rename(string(e.Kv.Key))
		if bytes += len(key) + len(e.Kv.Value); t.keys[key] {
			return false
		}
	}
	return len(t.ops)+len(events) <= int(m.o.maxTxnOps) && bytes <= mirrorBytes
}

// copying is what is to be copied next.
type copying struct {
	ops   []clientv3.Op
	keys  map[string]bool
	bytes int
}

// add takes a change into the txn, which is done before if the change does not fit or
// is of a key that it has already.
func (m *mirror) add(ctx context.Context, t *copying, e *mvccpb.Event) error {
	key := m.rename(string(e.Kv.Key))
	size := len(key) + len(e.Kv.Value)
	if len(t.ops) > 0 && (len(t.ops) >= int(m.o.maxTxnOps) || t.bytes+size > mirrorBytes || t.keys[key]) {
		if err := m.flush(ctx, t); err != nil {
			return err
		}
	}
	if t.keys == nil {
		t.keys = map[string]bool{}
	}
	t.keys[key], t.bytes = true, t.bytes+size
	if e.Type == mvccpb.Event_DELETE {
		t.ops = append(t.ops, clientv3.OpDelete(key))
	} else {
		t.ops = append(t.ops, clientv3.OpPut(key, string(e.Kv.Value)))
	}
	return nil
}

// rename is what a key is called in the destination.
func (m *mirror) rename(key string) string {
	switch {
	case m.o.noDestPrefix:
		return key[len(m.o.prefix):]
	case m.o.destPrefix != "":
		return m.o.destPrefix + key[len(m.o.prefix):]
	}
	return key
}

// mirrorPause is the time between two tries.
const mirrorPause = time.Second

// flush does the txn and empties it. What is known to pass is waited for: to do the same
// puts and deletions twice does no harm, since nothing is done after them before.
func (m *mirror) flush(ctx context.Context, t *copying) error {
	for len(t.ops) > 0 {
		_, err := m.to.Txn(ctx).Then(t.ops...).Commit()
		switch {
		case err == nil:
			m.copied.Add(int64(len(t.ops)))
			*t = copying{}
		case ctx.Err() != nil || !passes(err):
			return err
		default:
			if err := m.rest(ctx, "the destination", err); err != nil {
				return err
			}
		}
	}
	return nil
}

// passes says of an error that the same call may do well later.
func passes(err error) bool {
	if errors.Is(err, rpctypes.ErrTooManyRequests) {
		return true
	}
	var told rpctypes.EtcdError
	code := status.Code(err)
	if errors.As(err, &told) {
		code = told.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}
