package v3

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/watch"
)

// follower reads the events of one range from this member, for calls that wait for
// a change themselves. It belongs to one goroutine.
type follower struct {
	stream *watch.Stream
	wake   chan struct{}
}

// follow begins to read events, as the caller of a line may; he closes it.
func follow(l *line, what watch.Request) *follower {
	what.Permit = l.as.MayWatch
	f := &follower{wake: make(chan struct{}, 1)}
	f.stream = l.member.Watch(func() { signal(f.wake) })
	f.stream.Create(&what)
	return f
}

func (f *follower) close() { f.stream.Close() }

// next waits for the next events, of one revision or more, never of parts of one.
// Errors: the context's; command.ErrCompacted, after which there is nothing more;
// watch.ErrClosed; *mvcc.DamageError.
func (f *follower) next(ctx context.Context) ([]*mvccpb.Event, error) {
	for {
		r, ok, err := f.stream.Next()
		switch {
		case errors.Is(err, watch.ErrBusy):
			if err := sleep(ctx, busyPause); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return nil, err
		case r.Refused != nil:
			return nil, r.Refused
		case r.Canceled:
			return nil, command.ErrCompacted
		case len(r.Events) > 0:
			var m pb.WatchResponse
			err := proto.Unmarshal(r.Events, &m) // nothing but the field "events"
			return m.GetEvents(), err
		case ok:
			continue
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// sleep lasts for a while or until the caller's end.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
