package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"
)

// A story is what a program would do with the official Go client, and what it
// sees, line by line. It is told of us and, where it is installed, of etcd 3.4:
// both must say what is written here.
type story struct {
	name string
	tell func(*telling)
	want string
}

// telling is a story being told of one server.
type telling struct {
	*clientv3.Client
	ctx  context.Context
	said strings.Builder
	// base is the revision at the beginning.
	base int64
}

// untold ends a story that cannot go on.
type untold struct{ why string }

// got fails the story at an error.
func got[T any](v T, err error) T {
	if err != nil {
		panic(untold{err.Error()})
	}
	return v
}

// done fails the story at an error.
func done(err error) { got(0, err) }

// say tells a line.
func (s *telling) say(format string, args ...any) { fmt.Fprintf(&s.said, format+"\n", args...) }

// refused tells how a call ended.
func (s *telling) refused(what string, err error) {
	if err == nil {
		s.say("%s: done", what)
		return
	}
	s.say("%s: %v: %s", what, status.Code(err), status.Convert(err).Message())
}

// at is a revision as the story counts.
func (s *telling) at(revision int64) int64 { return revision - s.base }

// until waits for something that others bring about.
func (s *telling) until(what string, so func() bool) {
	for !so() {
		select {
		case <-s.ctx.Done():
			panic(untold{"waited in vain: " + what})
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// take waits for one thing on a channel.
func take[T any](s *telling, what string, from <-chan T) T {
	select {
	case v, ok := <-from:
		if !ok {
			panic(untold{what + ": the channel is closed"})
		}
		return v
	case <-s.ctx.Done():
		panic(untold{"waited in vain: " + what})
	}
}

// ended waits for the end of a channel.
func ended[T any](s *telling, what string, from <-chan T) {
	for {
		select {
		case _, ok := <-from:
			if !ok {
				return
			}
		case <-s.ctx.Done():
			panic(untold{"waited in vain for the end: " + what})
		}
	}
}

// keys are those with a prefix, in the order of their creation.
func (s *telling) keys(prefix string) (list []string) {
	r := got(s.Get(s.ctx, prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend)))
	for _, kv := range r.Kvs {
		list = append(list, string(kv.Key))
	}
	return list
}

// has waits until there are so many keys with a prefix.
func (s *telling) has(prefix string, n int) {
	s.until(fmt.Sprintf("%d keys with %s", n, prefix), func() bool { return len(s.keys(prefix)) == n })
}

// tellOf tells a story of the server at an address.
func (st *story) tellOf(ctx context.Context, address string) (said string) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	s := &telling{Client: c, ctx: ctx}
	defer func() {
		switch why := recover().(type) {
		case nil:
		case untold:
			said = s.said.String() + "!! " + why.why + "\n"
		default:
			panic(why)
		}
	}()
	s.base = got(c.Get(ctx, "base")).Header.Revision
	st.tell(s)
	return s.said.String()
}

// teller is a server that stories are told of, and how it is called.
type teller struct{ name, address string }

func tellers(t *testing.T) []teller {
	t.Helper()
	all := []teller{{"ours", "127.0.0.1:" + ours(t)}}
	if _, err := os.Stat("/usr/bin/etcd"); err != nil {
		t.Log("/usr/bin/etcd is not installed: nothing to compare with")
		return all
	}
	return append(all, teller{"etcd 3.4", "127.0.0.1:" + realEtcd(t)})
}

// tellAll tells stories one after the other, of all servers at once.
func tellAll(t *testing.T, stories []story) {
	t.Helper()
	of := tellers(t)
	t.Parallel() // from here on it mostly waits; their ports are taken
	for _, st := range stories {
		t.Run(st.name, func(t *testing.T) {
			said := make([]chan string, len(of))
			for i, server := range of {
				said[i] = make(chan string, 1)
				go func() { said[i] <- st.tellOf(t.Context(), server.address) }()
			}
			for i, server := range of {
				sameLines(t, server.name, strings.TrimSpace(<-said[i]), strings.TrimSpace(st.want))
			}
		})
	}
}

// sorted is a list in order.
func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }
