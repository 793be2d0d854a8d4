package v3

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"

	"github.com/kvorum/kvorum/internal/api/v3/concurrencypb"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/watch"
)

// observer follows an election for one client: whoever leads, and every value that a
// leader proclaims, each once and in order. It goes through the history revision by
// revision, so that no leader is missed however slowly the client reads; only if
// compaction passes it, it goes on with whoever leads then.
type observer struct {
	line *line
	name []byte
	to   grpc.ServerStreamingServer[concurrencypb.LeaderResponse]
	// at is the revision up to which the client has been told everything; 0 is none.
	at id.Revision
	// told is what was sent last.
	told *mvccpb.KeyValue
}

// Observe tells a client who leads until it leaves (spec 8). The header's revision is
// the one up to which the client has been told everything.
func (s *election) Observe(r *concurrencypb.LeaderRequest, to grpc.ServerStreamingServer[concurrencypb.LeaderResponse]) error {
	ctx := to.Context()
	own, err := s.line.by(ctx)
	if err != nil {
		return err
	}
	o := &observer{line: own, name: r.Name, to: to}
	if _, err := await(ctx, s.line.member, s.line.member.Barrier); err != nil {
		return lineError(err)
	}
	for {
		err := o.follow(ctx)
		switch {
		case errors.Is(err, command.ErrCompacted):
			o.at, err = 0, nil
		case passes(err):
			err = sleep(ctx, linePause)
		}
		if err != nil {
			return lineError(err)
		}
	}
}

// follow finds who leads in the revision where the client is, and tells of that leader
// until it has gone.
func (o *observer) follow(ctx context.Context) error {
	got, err := o.line.first(ctx, o.name, o.at)
	if err != nil {
		return err
	}
	if o.at == 0 {
		o.at = got.Revision
	}
	if len(got.KVs) == 0 {
		return o.candidate(ctx)
	}
	leader := pairToWire(&got.KVs[0])
	if err := o.tell(leader); err != nil {
		return err
	}
	f := follow(o.line, watch.Request{Key: leader.Key, Start: o.at + 1})
	defer f.close()
	for {
		events, err := f.next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			o.at = id.Revision(e.Kv.ModRevision)
			if e.Type == mvccpb.Event_DELETE {
				return nil
			}
			if err := o.tell(e.Kv); err != nil {
				return err
			}
		}
	}
}

// candidate waits until somebody stands for election where nobody does.
func (o *observer) candidate(ctx context.Context) error {
	prefix, end := linePrefix(o.name)
	f := follow(o.line, watch.Request{Key: prefix, End: end, Start: o.at + 1, NoDeletes: true})
	defer f.close()
	events, err := f.next(ctx)
	if err == nil {
		o.at = id.Revision(events[0].Kv.ModRevision)
	}
	return err
}

// tell sends a leader's key unless it is what was sent last.
func (o *observer) tell(leader *mvccpb.KeyValue) error {
	if o.told != nil && o.told.ModRevision == leader.ModRevision && string(o.told.Key) == string(leader.Key) {
		return nil
	}
	o.told = leader
	return o.to.Send(&concurrencypb.LeaderResponse{Header: header(o.line.member, o.at), Kv: leader})
}
