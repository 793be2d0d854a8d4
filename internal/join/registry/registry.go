// Package registry finds the members of a new cluster at a running one
// (--discovery-token and --discovery-endpoints): each writes itself down under the
// token and waits until as many are there as somebody has said beforehand, as
// spec/discovery.md 4 has it.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/id"
)

// Why a member does not come in. Texts are etcd's.
var (
	ErrSizeNotFound = errors.New("discovery: size key not found")
	ErrBadSize      = errors.New("discovery: size key is bad")
	ErrFull         = errors.New("discovery: cluster is full")
	ErrDuplicate    = errors.New("discovery: found duplicate name")
)

// Options of one member that looks for the others.
type Options struct {
	// Client is how the running cluster is reached.
	Client clientv3.Config
	// Token is the word under which the members meet.
	Token string
	// Member and Self are the one that asks: its id, and "name=url,name=url".
	Member id.Member
	Self   string
	// Timeout bounds one request.
	Timeout time.Duration
	// Pause is the first wait after a failure; it doubles, up to 128 times itself.
	Pause time.Duration
	Log   *slog.Logger
}

// longestPause is so many times the first one.
const longestPause = 128

// Join writes the member down and returns what --initial-cluster would say, once all
// are there. It waits for a cluster that does not answer, until ctx ends.
func Join(ctx context.Context, o Options) (string, error) {
	c, err := clientv3.New(o.Client)
	if err != nil {
		return "", wrap(err)
	}
	defer c.Close()
	r := &registry{Options: o, client: c, prefix: "/_etcd/registry/" + o.Token}
	r.Log.Info("Bootstrapping cluster using v3 discovery.", "endpoints", o.Client.Endpoints)
	list, err := r.join(ctx)
	if err != nil {
		return "", wrap(err)
	}
	return list, nil
}

func wrap(err error) error { return fmt.Errorf("failed to join discovery cluster (%w)", err) }

type registry struct {
	Options
	client *clientv3.Client
	prefix string

	// What was seen last: how many are wanted, who is there in the order of their
	// coming, and as of which revision.
	size     int
	members  []entry
	revision int64
}

type entry struct{ key, value string }

func (r *registry) own() string { return r.prefix + "/members/" + r.Member.String() }

func (r *registry) join(ctx context.Context) (string, error) {
	if err := r.insist(ctx, "cluster status check", r.look); err != nil {
		return "", err
	}
	if err := r.insist(ctx, "register member itself", r.register); err != nil {
		return "", err
	}
	r.Log.Info("register member itself successfully", "member-id", r.Member.String())
	if err := r.insist(ctx, "cluster status check", r.look); err != nil {
		return "", err
	}
	for len(r.members) < r.size {
		r.Log.Info("waiting for peers from discovery service", "size", r.size, "found", len(r.members))
		if err := r.insist(ctx, "wait for peers", r.await); err != nil {
			return "", err
		}
	}
	return r.list()
}

// final are errors that asking again does not cure.
func final(err error) bool {
	return errors.Is(err, ErrSizeNotFound) || errors.Is(err, ErrBadSize) || errors.Is(err, ErrFull)
}

// insist does a step until it succeeds or cannot.
func (r *registry) insist(ctx context.Context, what string, step func(context.Context) error) error {
	for pause := r.Pause; ; pause = min(2*pause, longestPause*r.Pause) {
		err := step(ctx)
		if err == nil || final(err) || ctx.Err() != nil {
			return err
		}
		r.Log.Warn("retry connecting to discovery service", "reason", what, "backoff", pause.String(), "error", err.Error())
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		}
	}
}

// look reads the size and who is there.
func (r *registry) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	size, err := r.client.Get(ctx, r.prefix+"/_config/size")
	if err != nil {
		return err
	}
	if len(size.Kvs) == 0 {
		return ErrSizeNotFound
	}
	if r.size, err = strconv.Atoi(string(size.Kvs[0].Value)); err != nil || r.size <= 0 {
		return ErrBadSize
	}
	there, err := r.client.Get(ctx, r.prefix+"/members", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	if err != nil {
		return err
	}
	r.members, r.revision = nil, there.Header.Revision
	for _, kv := range there.Kvs {
		e := entry{string(kv.Key), string(kv.Value)}
		if !strings.Contains(e.value, "=") {
			r.Log.Warn("invalid peer info returned from discovery service", "key", e.key)
			continue
		}
		r.members = append(r.members, e)
	}
	if len(r.members) >= r.size {
		r.members = r.members[:r.size] // the first ones count
		if !slices.ContainsFunc(r.members, func(e entry) bool { return e.key == r.own() }) {
			return ErrFull
		}
	}
	return nil
}

// register writes this member down; it may have been there before, by the same id.
func (r *registry) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	_, err := r.client.Put(ctx, r.own(), r.Self)
	return err
}

// await waits until somebody comes, and looks again.
func (r *registry) await(ctx context.Context) error {
	watch, stop := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer stop()
	for news := range r.client.Watch(watch, r.prefix+"/members", clientv3.WithPrefix(), clientv3.WithRev(r.revision+1)) {
		if err := news.Err(); err != nil {
			return err
		}
		if len(news.Events) > 0 {
			stop()
			return r.look(ctx)
		}
	}
	return errors.New("the watch for members has ended")
}

// list joins what the members say of themselves, each under a name of its own.
func (r *registry) list() (string, error) {
	var all []string
	seen := map[string]bool{}
	for _, e := range r.members {
		name, _, _ := strings.Cut(e.value, "=")
		if seen[name] {
			return "", fmt.Errorf("%w: %s", ErrDuplicate, name)
		}
		seen[name] = true
		all = append(all, e.value)
		if e.key != r.own() {
			r.Log.Info("found peer from discovery service", "peer", e.value)
		}
	}
	r.Log.Info("found all needed peers from discovery service", "size", len(all))
	return strings.Join(all, ","), nil
}
