package v3

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/watch"
)

// line is what locks and elections have in common (spec 8). Under a name everyone who
// wants it has a key that is bound to a lease:
//
//	name/694d77aa9e38260f   created in revision 12: has it
//	name/326963a02758b527   created in revision 15: waits until the first is deleted
//	name/7587823f1d3a5a09   created in revision 19: waits until the second is deleted
//
// Invariant: nobody ever comes to stand before a key that is there, since revisions
// only grow. So who was seen first at a revision is first as long as his key lasts,
// and the revisions at which one after the other was first grow: they fence.
//
// Clients that keep such lines themselves (the concurrency package of etcd's Go
// client) use the same keys: both kinds may stand in one line.
type line struct {
	member *server.Member
	reads  gate
	// as is what a call does it as: its caller may do no more here than anywhere else.
	as server.Session
}

// by is the line as the caller of a call may use it.
func (l *line) by(ctx context.Context) (*line, error) {
	as, err := session(ctx, l.member)
	if err != nil {
		return nil, lineError(err)
	}
	return &line{member: l.member, reads: l.reads, as: as}, nil
}

// place is where a caller stands in a line.
type place struct {
	prefix, end []byte // the keys of the line
	key         []byte
	lease       id.Lease
	// created is the revision in which the key was made, entered that of the store
	// when the caller came.
	created, entered id.Revision
	// fresh says that this call made the key; else the lease had it before, with value.
	fresh bool
	value []byte
}

const (
	// freeLease is how long a lease lasts, in seconds, that a caller without one is
	// given. Nobody renews it but the caller.
	freeLease = 60
	// leaveTries is how often the deletion of a key is proposed whose caller has left.
	leaveTries = 3
	// linePause is the time before a question is asked again that nobody could answer.
	linePause = 20 * time.Millisecond
)

// linePrefix is what the keys of a line begin with, and where they end.
func linePrefix(name []byte) (prefix, end []byte) {
	prefix = append(slices.Clip(name), '/')
	end = append(slices.Clip(name), '/'+1)
	return prefix, end
}

// leaseOf is the caller's lease, or a new one for a caller without.
func (l *line) leaseOf(ctx context.Context, lease id.Lease) (id.Lease, error) {
	if lease != 0 {
		return lease, nil
	}
	grant := command.LeaseGrant{TTL: freeLease}
	result, err := await(ctx, l.member, func(call host.Call) { l.as.LeaseGrant(call, &grant) })
	if err != nil {
		return 0, err
	}
	return result.Response.(*command.LeaseGrantResponse).ID, nil
}

// txn runs a txn to its end, whatever becomes of the caller meanwhile: what it did is
// to be known.
func (l *line) txn(in *command.TxnRequest) (*command.TxnResponse, error) {
	result, err := await(context.Background(), l.member, func(call host.Call) { l.as.Txn(call, in) })
	if err != nil {
		return nil, err
	}
	return result.Response.(*command.TxnResponse), nil
}

// madeAt is the condition that a key is the one that was made in a revision; 0 is that
// there is none.
func madeAt(key []byte, created id.Revision) []command.Compare {
	return []command.Compare{{Key: key, Target: command.CompareCreate, Result: command.Equal, Number: int64(created)}}
}

// enter puts the caller at the end of a line, unless its lease stands there already.
// Errors: command.ErrLeaseNotFound, the context's, the host's; then the caller does
// not stand there on account of this call, as far as anybody can tell.
func (l *line) enter(ctx context.Context, name []byte, lease id.Lease, value []byte) (*place, error) {
	lease, err := l.leaseOf(ctx, lease)
	if err != nil {
		return nil, err
	}
	p := &place{lease: lease, value: value}
	p.prefix, p.end = linePrefix(name)
	p.key = strconv.AppendInt(slices.Clip(p.prefix), int64(lease), 16)
	done, err := l.txn(&command.TxnRequest{
		Compares: madeAt(p.key, 0),
		Success:  []command.Op{{Put: &command.PutRequest{Key: p.key, Value: value, Lease: lease}}},
		Failure:  []command.Op{{Range: &command.RangeRequest{Key: p.key}}},
	})
	if err != nil {
		return nil, err
	}
	p.entered, p.created, p.fresh = done.Revision, done.Revision, done.Succeeded
	if !p.fresh {
		own := done.Responses[0].Range.KVs[0]
		p.created, p.value = own.CreateRevision, own.Value
	}
	if err := ctx.Err(); err != nil && p.fresh {
		l.leave(p)
		return nil, err
	}
	return p, nil
}

// leave deletes the key of a place, if it is still that one. It goes on without its
// caller, and gives up when there is no majority for long: the lease ends it then.
func (l *line) leave(p *place) {
	for range leaveTries {
		_, err := l.txn(&command.TxnRequest{
			Compares: madeAt(p.key, p.created),
			Success:  []command.Op{{Delete: &command.DeleteRangeRequest{Key: p.key}}},
		})
		if !passes(err) || sleep(context.Background(), linePause) != nil {
			return
		}
	}
}

// errEnded says that a key went while its place had not come to its turn.
var errEnded = errors.New("v3: the key of a place in a line is gone")

// turn waits until nobody stands before a place, and returns a revision in which that
// was so. A caller that leaves, or an error, gives the place up. Errors: errEnded,
// which is found out only once those before have gone (spec 8); the context's;
// watch.ErrClosed, host.ErrStopped; *mvcc.DamageError.
func (l *line) turn(ctx context.Context, p *place) (id.Revision, error) {
	for {
		revision, err := l.wait(ctx, p)
		switch {
		case err == nil:
			return revision, nil
		case passes(err):
			if err = sleep(ctx, linePause); err == nil {
				continue
			}
		}
		l.leave(p)
		return 0, err
	}
}

// wait is one try of turn.
func (l *line) wait(ctx context.Context, p *place) (id.Revision, error) {
	for waited := false; ; waited = true {
		before, err := l.before(ctx, p)
		if err != nil {
			return 0, err
		}
		if len(before.KVs) > 0 {
			if err := l.deletion(ctx, before.KVs[0].Key, before.Revision+1); err != nil {
				return 0, err
			}
			continue
		}
		// This member has applied the caller's own entering. What has happened since
		// it may hear late; who has waited long is told the truth of now.
		if waited {
			if _, err := await(ctx, l.member, l.member.Barrier); err != nil {
				return 0, err
			}
		}
		own, err := l.read(ctx, &command.RangeRequest{Key: p.key, KeysOnly: true})
		if err != nil {
			return 0, err
		}
		if len(own.KVs) == 0 || own.KVs[0].CreateRevision != p.created {
			return 0, errEnded
		}
		return own.Revision, nil
	}
}

// before is the one who stands next before a place, as this member knows it.
func (l *line) before(ctx context.Context, p *place) (*command.RangeResponse, error) {
	return l.read(ctx, &command.RangeRequest{
		Key: p.prefix, End: p.end, MaxCreateRevision: p.created - 1, Limit: 1, KeysOnly: true,
		Target: command.SortByCreate, Order: command.SortDescend,
	})
}

// deletion waits until a key is deleted in a revision or later. It also returns when
// that cannot be told any more: the caller looks again.
func (l *line) deletion(ctx context.Context, key []byte, from id.Revision) error {
	f := follow(l, watch.Request{Key: key, Start: from, NoPuts: true})
	defer f.close()
	_, err := f.next(ctx)
	if errors.Is(err, command.ErrCompacted) {
		return nil
	}
	return err
}

// first is who stands first under a name in a revision; 0 is now, as this member knows
// it.
func (l *line) first(ctx context.Context, name []byte, at id.Revision) (*command.RangeResponse, error) {
	prefix, end := linePrefix(name)
	return l.read(ctx, &command.RangeRequest{
		Key: prefix, End: end, Revision: at, Limit: 1, Target: command.SortByCreate, Order: command.SortAscend,
	})
}

// read reads from what this member has applied.
func (l *line) read(ctx context.Context, in *command.RangeRequest) (*command.RangeResponse, error) {
	if err := l.reads.enter(ctx); err != nil {
		return nil, err
	}
	defer l.reads.leave()
	return l.as.Range(in)
}

// passes says whether an error is one that time heals, while nothing has been done.
func passes(err error) bool {
	for _, transient := range []error{
		mvcc.ErrReplaced, engine.ErrIterators, host.ErrTimeout, host.ErrTimeoutLeader, host.ErrNoLeader,
		host.ErrLeaderChanged, host.ErrTooManyRequests, host.ErrStalled,
	} {
		if errors.Is(err, transient) {
			return true
		}
	}
	return false
}

// lineError words an error as these services do: Unknown, whatever its code would be
// elsewhere, unless it is the end of the caller's time (spec 1.3, quirk d). A
// member that stops is no error of the call: another member takes it.
func lineError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, watch.ErrClosed):
		return rpctypes.ErrGRPCStopped
	}
	told := status.Convert(toWire(err))
	if told.Code() == codes.Canceled || told.Code() == codes.DeadlineExceeded {
		return told.Err()
	}
	return status.Error(codes.Unknown, told.Message())
}
