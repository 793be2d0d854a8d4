package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/clientv3util"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
	"go.uber.org/zap"
)

// The official Go client and the packages around it, as far as KV and
// Maintenance go.

func clientConfig(p *process) clientv3.Config {
	return clientv3.Config{Endpoints: []string{"http://" + p.client}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(), RejectOldCluster: true}
}

func goClient(t *testing.T) (*clientv3.Client, *process) {
	t.Helper()
	p := start(t, t.TempDir())
	p.awaitReady()
	c, err := clientv3.New(clientConfig(p))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, p
}

// pairs are the keys and values of an answer.
func pairs(r *clientv3.GetResponse) string {
	var s []string
	for _, kv := range r.Kvs {
		s = append(s, string(kv.Key)+"="+string(kv.Value))
	}
	return strings.Join(s, " ")
}

// asked fails the test at an error.
func asked[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestTheGoClientsKV(t *testing.T) {
	c, _ := goClient(t)
	ctx := t.Context()
	get := asked[*clientv3.GetResponse](t)
	for i := range 25 {
		if _, err := c.Put(ctx, fmt.Sprintf("key/%02d", i), fmt.Sprint(99-i)); err != nil {
			t.Fatal(err)
		}
	}
	first := get(c.Get(ctx, "key/00")).Kvs[0].ModRevision
	for _, q := range []struct {
		what string
		key  string
		opts []clientv3.OpOption
		want string
	}{
		{"one", "key/03", nil, "key/03=96"},
		{"none", "nothing", nil, ""},
		{"limit", "key/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(2)}, "key/00=99 key/01=98"},
		{"from", "key/23", []clientv3.OpOption{clientv3.WithFromKey()}, "key/23=76 key/24=75"},
		{"range", "key/05", []clientv3.OpOption{clientv3.WithRange("key/07")}, "key/05=94 key/06=93"},
		{"first created", "key/", clientv3.WithFirstCreate(), "key/00=99"},
		{"last changed", "key/", clientv3.WithLastRev(), "key/24=75"},
		{"last key", "key/", clientv3.WithLastKey(), "key/24=75"},
		{"keys only", "key/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(1)}, "key/00="},
		{"count", "", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCountOnly()}, ""},
		{"by value", "key/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend), clientv3.WithLimit(1)}, "key/24=75"},
		{"since", "key/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMinModRev(first + 23)}, "key/23=76 key/24=75"},
		{"until", "key/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMaxCreateRev(first + 1), clientv3.WithSerializable()}, "key/00=99 key/01=98"},
		{"old", "key/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(first)}, "key/00=99"},
	} {
		if got := pairs(get(c.Get(ctx, q.key, q.opts...))); got != q.want {
			t.Errorf("%s: %s, want %s", q.what, got, q.want)
		}
	}
	stream, err := c.GetStream(ctx, "key/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	whole, err := clientv3.GetStreamToGetResponse(stream)
	if direct := get(c.Get(ctx, "key/", clientv3.WithPrefix())); err != nil || pairs(whole) != pairs(direct) || whole.Count != 25 || whole.More || whole.Header.Revision != direct.Header.Revision {
		t.Errorf("as a stream: %v, %v", whole, err)
	}
	put := asked[*clientv3.PutResponse](t)
	if prev := put(c.Put(ctx, "key/00", "new", clientv3.WithPrevKV())).PrevKv; string(prev.Value) != "99" {
		t.Errorf("before the put: %v", prev)
	}
	put(c.Put(ctx, "key/00", "", clientv3.WithIgnoreValue()))
	if got := get(c.Get(ctx, "key/00")).Kvs[0]; string(got.Value) != "new" || got.Version != 3 {
		t.Errorf("ignored value: %v", got)
	}
	del := asked[*clientv3.DeleteResponse](t)
	if d := del(c.Delete(ctx, "key/1", clientv3.WithPrefix(), clientv3.WithPrevKV())); d.Deleted != 10 || string(d.PrevKvs[9].Key) != "key/19" {
		t.Errorf("deleted: %v", d)
	}
	for what, q := range map[error]func() error{
		rpctypes.ErrEmptyKey:      func() error { _, err := c.Put(ctx, "", "x"); return err },
		rpctypes.ErrFutureRev:     func() error { _, err := c.Get(ctx, "x", clientv3.WithRev(1<<40)); return err },
		rpctypes.ErrKeyNotFound:   func() error { _, err := c.Put(ctx, "none", "", clientv3.WithIgnoreValue()); return err },
		rpctypes.ErrLeaseNotFound: func() error { _, err := c.Put(ctx, "x", "", clientv3.WithLease(5)); return err },
		rpctypes.ErrRequestTooLarge: func() error {
			_, err := c.Put(ctx, "x", strings.Repeat("x", 1600000))
			return err
		},
	} {
		if err := q(); !errors.Is(err, what) {
			t.Errorf("%v, want %v", err, what)
		}
	}
	// A caller that insists on a leader gets its answers too.
	if _, err := c.Get(clientv3.WithRequireLeader(ctx), "x"); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(ctx, time.Nanosecond)
	defer cancel()
	if _, err := c.Put(short, "x", "y"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without time: %v", err)
	}
}

func TestTheGoClientsTxns(t *testing.T) {
	c, _ := goClient(t)
	ctx := t.Context()
	txn := asked[*clientv3.TxnResponse](t)
	create := func() *clientv3.TxnResponse {
		return txn(c.Txn(ctx).If(clientv3util.KeyMissing("leader")).
			Then(clientv3.OpPut("leader", "a"), clientv3.OpTxn(
				[]clientv3.Cmp{clientv3util.KeyMissing("log"), clientv3.Compare(clientv3.CreateRevision("leader"), "=", 0)},
				[]clientv3.Op{clientv3.OpPut("log", "first"), clientv3.OpGet("leader")},
				[]clientv3.Op{clientv3.OpDelete("log", clientv3.WithPrevKV())})).
			Else(clientv3.OpGet("l", clientv3.WithPrefix())).Commit())
	}
	r := create()
	if !r.Succeeded || r.Header.Revision != 2 || !r.Responses[1].GetResponseTxn().Succeeded {
		t.Fatalf("first: %v", r)
	}
	inner := r.Responses[1].GetResponseTxn().Responses
	if got := inner[1].GetResponseRange(); len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "a" || got.Kvs[0].ModRevision != 2 {
		t.Errorf("what the nested txn read: %v", got)
	}
	if r = create(); r.Succeeded || r.Responses[0].GetResponseRange().Count != 2 || r.Header.Revision != 2 {
		t.Errorf("second: %v", r)
	}
	for _, cmp := range []struct {
		cmp   clientv3.Cmp
		holds bool
	}{
		{clientv3.Compare(clientv3.Value("leader"), "=", "a"), true},
		{clientv3.Compare(clientv3.Value("leader"), ">", "b"), false},
		{clientv3.Compare(clientv3.Version("leader"), "!=", 1), false},
		{clientv3.Compare(clientv3.ModRevision("none"), "<", 1), true},
		{clientv3.Compare(clientv3.LeaseValue("leader"), "=", 0), true},
		{clientv3.Compare(clientv3.Value("none"), "!=", "a"), false},
		{clientv3.Compare(clientv3.Version("l").WithPrefix(), "=", 1), true},
		{clientv3.Compare(clientv3.Value("l").WithPrefix(), "=", "a"), false},
		{clientv3.Compare(clientv3.CreateRevision("\x00").WithRange("\x00"), ">", 1), true},
		{clientv3util.KeyExists("leader"), true},
	} {
		r, err := c.Txn(ctx).If(cmp.cmp).Commit()
		if err != nil || r.Succeeded != cmp.holds {
			t.Errorf("%v: %v, %v", cmp.cmp, r, err)
		}
	}
	if _, err := c.Txn(ctx).If(clientv3util.KeyExists("")).Commit(); !errors.Is(err, rpctypes.ErrEmptyKey) {
		t.Errorf("a compare without key: %v", err)
	}
	if _, err := c.Txn(ctx).Then(clientv3.OpPut("a", "1"), clientv3.OpPut("a", "2")).Commit(); !errors.Is(err, rpctypes.ErrDuplicateKey) {
		t.Errorf("one key twice: %v", err)
	}
	many := make([]clientv3.Op, 129)
	for i := range many {
		many[i] = clientv3.OpPut(fmt.Sprint(i), "")
	}
	if _, err := c.Txn(ctx).Then(many...).Commit(); !errors.Is(err, rpctypes.ErrTooManyOps) {
		t.Errorf("129 operations: %v", err)
	}
	// Transactional memory: every increment counts.
	done := make(chan error, 8)
	for range cap(done) {
		go func() {
			_, err := concurrency.NewSTM(c, func(s concurrency.STM) error {
				s.Put("count", s.Get("count")+"x")
				return nil
			})
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got := pairs(asked[*clientv3.GetResponse](t)(c.Get(ctx, "count"))); got != "count=xxxxxxxx" {
		t.Errorf("eight increments: %s", got)
	}
}

func TestTheGoClientsMaintenance(t *testing.T) {
	c, p := goClient(t)
	ctx := t.Context()
	for i := range 10 {
		if _, err := c.Put(ctx, "k", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	status, err := c.Status(ctx, p.client)
	if err != nil || status.Version != "3.7.1" || status.Leader != status.Header.MemberId || status.IsLearner || status.DbSize <= 0 || len(status.Errors) != 0 {
		t.Errorf("status: %v, %v", status, err)
	}
	hash := asked[*clientv3.HashKVResponse](t)
	before := hash(c.HashKV(ctx, p.client, 0))
	if before.HashRevision != 11 || before.CompactRevision != -1 || before.Header.Revision != 11 {
		t.Errorf("hash: %+v", before)
	}
	if again := hash(c.HashKV(ctx, p.client, 11)); again.Hash != before.Hash {
		t.Errorf("two hashes of one revision: %x, %x", before.Hash, again.Hash)
	}
	if _, err := c.HashKV(ctx, p.client, 12); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("the hash of the future: %v", err)
	}
	if _, err := c.Compact(ctx, 6); err != nil {
		t.Error(err)
	}
	if _, err := c.Compact(ctx, 9, clientv3.WithCompactPhysical()); err != nil {
		t.Error(err)
	}
	if _, err := c.Compact(ctx, 9); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("compacted twice: %v", err)
	}
	if _, err := c.Get(ctx, "k", clientv3.WithRev(8)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("a compacted revision: %v", err)
	}
	if got, err := c.Get(ctx, "k", clientv3.WithRev(9)); err != nil || pairs(got) != "k=7" {
		t.Errorf("the compact revision: %v, %v", got, err)
	}
	if after := hash(c.HashKV(ctx, p.client, 0)); after.CompactRevision != 9 || after.Hash == before.Hash {
		t.Errorf("the hash after compaction: %+v", after)
	}
	if _, err := c.Defragment(ctx, p.client); err != nil {
		t.Error(err)
	}
	if list, err := c.MemberList(ctx); err != nil || len(list.Members) != 1 || list.Members[0].ID != status.Leader {
		t.Errorf("members: %v, %v", list, err)
	}
	if alarms, err := c.AlarmList(ctx); err != nil || len(alarms.Alarms) != 0 {
		t.Errorf("alarms: %v, %v", alarms, err)
	}
	if err := c.Sync(ctx); err != nil || c.Endpoints()[0] != "http://"+p.client {
		t.Errorf("after a sync of endpoints: %v, %v", c.Endpoints(), err)
	}
}

// Packages that wrap the client's KV.
func TestTheGoClientsWrappers(t *testing.T) {
	c, p := goClient(t)
	ctx := t.Context()
	get := asked[*clientv3.GetResponse](t)
	ns := namespace.NewKV(c.KV, "ns/")
	for _, key := range []string{"a", "b", "\xff"} {
		if _, err := ns.Put(ctx, key, key); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Put(ctx, "ns0", "outside"); err != nil {
		t.Fatal(err)
	}
	if got := pairs(get(ns.Get(ctx, "", clientv3.WithFromKey()))); got != "a=a b=b \xff=\xff" {
		t.Errorf("in the namespace: %q", got)
	}
	if got := pairs(get(c.Get(ctx, "ns/", clientv3.WithPrefix(), clientv3.WithLimit(1)))); got != "ns/a=a" {
		t.Errorf("outside of it: %q", got)
	}
	r, err := ns.Txn(ctx).If(clientv3util.KeyExists("a"), clientv3.Compare(clientv3.Version("").WithPrefix(), "=", 1)).
		Then(clientv3.OpDelete("b", clientv3.WithPrevKV()), clientv3.OpGet("", clientv3.WithPrefix())).Commit()
	if err != nil || !r.Succeeded || string(r.Responses[0].GetResponseDeleteRange().PrevKvs[0].Key) != "b" || r.Responses[1].GetResponseRange().Count != 2 {
		t.Errorf("a txn in the namespace: %v, %v", r, err)
	}

	ordered := ordering.NewKV(c.KV, func(clientv3.Op, clientv3.OpResponse, int64) error { return errors.New("time went back") })
	for range 3 {
		if _, err := ordered.Get(ctx, "ns/a", clientv3.WithSerializable()); err != nil {
			t.Error(err)
		}
	}

	k8s, err := kubernetes.New(clientConfig(p))
	if err != nil {
		t.Fatal(err)
	}
	defer k8s.Close()
	made, err := k8s.Kubernetes.OptimisticPut(ctx, "/registry/pods/a", []byte("1"), 0, kubernetes.PutOptions{})
	if err != nil || !made.Succeeded {
		t.Fatalf("create: %v, %v", made, err)
	}
	late, err := k8s.Kubernetes.OptimisticPut(ctx, "/registry/pods/a", []byte("2"), 0, kubernetes.PutOptions{GetOnFailure: true})
	if err != nil || late.Succeeded || string(late.KV.Value) != "1" || late.KV.ModRevision != made.Revision {
		t.Errorf("create again: %v, %v", late, err)
	}
	update, err := k8s.Kubernetes.OptimisticPut(ctx, "/registry/pods/a", []byte("2"), made.Revision, kubernetes.PutOptions{})
	if err != nil || !update.Succeeded || update.Revision != made.Revision+1 {
		t.Errorf("update: %v, %v", update, err)
	}
	for _, name := range []string{"b", "c", "d"} {
		if _, err := k8s.Kubernetes.OptimisticPut(ctx, "/registry/pods/"+name, []byte(name), 0, kubernetes.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	page, err := k8s.Kubernetes.List(ctx, "/registry/pods/", kubernetes.ListOptions{Limit: 2})
	if err != nil || len(page.Kvs) != 2 || page.Count != 4 {
		t.Fatalf("a page: %v, %v", page, err)
	}
	rest, err := k8s.Kubernetes.List(ctx, "/registry/pods/", kubernetes.ListOptions{Limit: 5, Revision: page.Revision, Continue: string(page.Kvs[1].Key) + "\x00"})
	if err != nil || len(rest.Kvs) != 2 || string(rest.Kvs[1].Key) != "/registry/pods/d" {
		t.Errorf("the next page: %v, %v", rest, err)
	}
	if n, err := k8s.Kubernetes.Count(ctx, "/registry/", kubernetes.CountOptions{}); err != nil || n != 4 {
		t.Errorf("count: %d, %v", n, err)
	}
	gone, err := k8s.Kubernetes.OptimisticDelete(ctx, "/registry/pods/a", made.Revision, kubernetes.DeleteOptions{GetOnFailure: true})
	if err != nil || gone.Succeeded || string(gone.KV.Value) != "2" {
		t.Errorf("delete of an old version: %v, %v", gone, err)
	}
	if gone, err = k8s.Kubernetes.OptimisticDelete(ctx, "/registry/pods/a", update.Revision, kubernetes.DeleteOptions{}); err != nil || !gone.Succeeded {
		t.Errorf("delete: %v, %v", gone, err)
	}
}
