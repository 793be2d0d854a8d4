package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// patience bounds every wait.
const patience = 5 * time.Minute

// The real programs, where they are installed.
const (
	realEtcd = "/usr/bin/etcd"
	realCtl  = "/usr/bin/etcdctl"
)

// A house is a server in a directory of its own, ours or the real one.
type house struct {
	t            *testing.T
	dir          string
	client, peer string
	program      string
	process      *exec.Cmd
	said         *bytes.Buffer
}

// program links one of our programs under its name.
func program(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func newHouse(t *testing.T, program string) *house {
	t.Helper()
	return &house{t: t, dir: filepath.Join(t.TempDir(), "data"), program: program, client: ports.Reserve(t), peer: ports.Reserve(t)}
}

// move are the flags that a restored member has.
func (h *house) move() []string {
	return []string{"--name=m", "--initial-cluster=m=http://" + h.peer, "--initial-advertise-peer-urls=http://" + h.peer, "--data-dir=" + h.dir}
}

// start runs the server and waits until it answers.
func (h *house) start() *clientv3.Client {
	h.t.Helper()
	h.said = &bytes.Buffer{}
	h.process = exec.Command(h.program, append(h.move(),
		"--listen-client-urls=http://"+h.client, "--advertise-client-urls=http://"+h.client, "--listen-peer-urls=http://"+h.peer,
		"--logger=zap", "--log-outputs=stderr")...)
	h.process.Stderr, h.process.Stdout = h.said, h.said
	if err := h.process.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { h.stop(syscall.SIGKILL) })
	c := h.dial("", "")
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	for {
		short, end := context.WithTimeout(ctx, time.Second)
		_, err := c.Get(short, "health")
		end()
		if err == nil || errors.Is(err, rpctypes.ErrUserEmpty) {
			return c
		}
		if ctx.Err() != nil {
			h.t.Fatalf("%s does not answer (%v):\n%s", h.program, err, h.said)
		}
	}
}

func (h *house) dial(user, password string) *clientv3.Client {
	h.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{h.client}, Username: user, Password: password, DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

func (h *house) stop(sig syscall.Signal) {
	if h.process == nil {
		return
	}
	_ = h.process.Process.Signal(sig)
	_ = h.process.Wait()
	h.process = nil
}

// do runs a program that must succeed.
func do(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := run1(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return out
}

func run1(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must fails the test at an error.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// furnish fills a server: keys with history, deleted and born again, in transactions,
// on leases, a compaction in the middle, users and roles; then permissions are checked.
func furnish(t *testing.T, c *clientv3.Client, keys int) {
	t.Helper()
	ctx := t.Context()
	var leases []clientv3.LeaseID
	for i := range 5 {
		leases = append(leases, must[*clientv3.LeaseGrantResponse](t)(c.Grant(ctx, int64(1000*(i+1)))).ID)
	}
	many := func(from, to int, value string) {
		t.Helper()
		for ; from < to; from += 100 {
			var ops []clientv3.Op
			for i := from; i < min(from+100, to); i++ {
				var opts []clientv3.OpOption
				if i%50 == 0 {
					opts = append(opts, clientv3.WithLease(leases[i/50%5]))
				}
				ops = append(ops, clientv3.OpPut(fmt.Sprintf("/registry/%07d", i), value+strconv.Itoa(i), opts...))
			}
			must[*clientv3.TxnResponse](t)(c.Txn(ctx).Then(ops...).Commit())
		}
	}
	many(0, keys, "first ")
	half := must[*clientv3.PutResponse](t)(c.Put(ctx, "single", "1")).Header.Revision
	many(keys/4, keys/2, "second ")
	must[*clientv3.DeleteResponse](t)(c.Delete(ctx, "/registry/0000010", clientv3.WithRange("/registry/0000090")))
	must[*clientv3.PutResponse](t)(c.Put(ctx, "/registry/0000020", "born again"))
	must[*clientv3.CompactResponse](t)(c.Compact(ctx, half+2, clientv3.WithCompactPhysical()))
	must[*clientv3.PutResponse](t)(c.Put(ctx, "\x00\xff odd", string([]byte{0, 1, 2, 255})))
	must[*clientv3.PutResponse](t)(c.Put(ctx, "empty", ""))
	must[*clientv3.PutResponse](t)(c.Put(ctx, "large", strings.Repeat("x", 1_000_000)))
	must[*clientv3.DeleteResponse](t)(c.Delete(ctx, "single"))
	for i := range 100 {
		must[*clientv3.PutResponse](t)(c.Put(ctx, "often", strconv.Itoa(i)))
	}
	must[*clientv3.AuthRoleAddResponse](t)(c.RoleAdd(ctx, "reader"))
	must[*clientv3.AuthRoleGrantPermissionResponse](t)(c.RoleGrantPermission(ctx, "reader", "a", "z", clientv3.PermissionType(clientv3.PermRead)))
	must[*clientv3.AuthRoleAddResponse](t)(c.RoleAdd(ctx, "root"))
	must[*clientv3.AuthUserAddResponse](t)(c.UserAdd(ctx, "root", "secret"))
	must[*clientv3.AuthUserAddResponse](t)(c.UserAdd(ctx, "anna", "anna's"))
	must[*clientv3.AuthUserAddResponse](t)(c.UserAddWithOptions(ctx, "cert", "", &clientv3.UserAddOptions{NoPassword: true}))
	must[*clientv3.AuthUserGrantRoleResponse](t)(c.UserGrantRole(ctx, "root", "root"))
	must[*clientv3.AuthUserGrantRoleResponse](t)(c.UserGrantRole(ctx, "anna", "reader"))
	must[*clientv3.AuthEnableResponse](t)(c.AuthEnable(ctx))
}

// census is all that can be asked of a server.
type census struct {
	Revision, Compacted int64
	// Kept are the keys at the compact revision, Events everything after it: together
	// they say what every key was at every revision.
	Kept   []*mvccpb.KeyValue
	Events []string
	Hashes []uint32
	Leases []string
	Users  []string
	Before string
}

func take(t *testing.T, h *house) census {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := h.dial("root", "secret")
	kv := must[*clientv3.GetResponse](t)(c.Get(ctx, "often"))
	hash := must[*clientv3.HashKVResponse](t)(c.HashKV(ctx, h.client, 0))
	n := census{Revision: kv.Header.Revision, Compacted: hash.CompactRevision}
	from := max(n.Compacted, 1)
	page := ""
	for {
		if page == "" {
			page = "\x00"
		}
		r := must[*clientv3.GetResponse](t)(c.Get(ctx, page, clientv3.WithFromKey(), clientv3.WithRev(from), clientv3.WithLimit(1000)))
		n.Kept = append(n.Kept, r.Kvs...)
		if !r.More {
			break
		}
		page = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
	_, err := c.Get(ctx, "often", clientv3.WithRev(from-1))
	n.Before = fmt.Sprint(err)
	watch := c.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(from+1))
	for last := int64(0); last < n.Revision; {
		r, ok := <-watch
		if !ok || r.Err() != nil {
			t.Fatalf("the watch ended at %d of %d: %v", last, n.Revision, r.Err())
		}
		for _, e := range r.Events {
			last = e.Kv.ModRevision
			n.Events = append(n.Events, fmt.Sprintf("%d %v %q %q %d %d %d %x", last, e.Type, e.Kv.Key, e.Kv.Value, e.Kv.CreateRevision, e.Kv.Version, e.Kv.Lease, e.Kv.Lease))
		}
	}
	for _, rev := range []int64{from + 1, (from + n.Revision) / 2, n.Revision} { // 3.4 refuses the compact revision itself
		n.Hashes = append(n.Hashes, must[*clientv3.HashKVResponse](t)(c.HashKV(ctx, h.client, rev)).Hash)
	}
	for _, l := range must[*clientv3.LeaseLeasesResponse](t)(c.Leases(ctx)).Leases {
		r := must[*clientv3.LeaseTimeToLiveResponse](t)(c.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys()))
		slices.SortFunc(r.Keys, bytes.Compare)
		n.Leases = append(n.Leases, fmt.Sprintf("%x %d %q", l.ID, r.GrantedTTL, r.Keys))
	}
	slices.Sort(n.Leases)
	for _, name := range must[*clientv3.AuthUserListResponse](t)(c.UserList(ctx)).Users {
		n.Users = append(n.Users, fmt.Sprint(name, must[*clientv3.AuthUserGetResponse](t)(c.UserGet(ctx, name)).Roles))
	}
	for _, name := range must[*clientv3.AuthRoleListResponse](t)(c.RoleList(ctx)).Roles {
		if name == "root" {
			n.Users = append(n.Users, "the role root") // 3.4 shows no permission of it
			continue
		}
		n.Users = append(n.Users, fmt.Sprint(name, must[*clientv3.AuthRoleGetResponse](t)(c.RoleGet(ctx, name)).Perm))
	}
	slices.Sort(n.Users)
	return n
}

// equal says where two servers differ.
func equal(t *testing.T, what string, got, want census) {
	t.Helper()
	if len(want.Kept) == 0 || len(want.Events) < 100 || len(want.Leases) != 5 || len(want.Users) < 5 {
		t.Fatalf("%s: there is little to compare: %d keys, %d events, %v, %v", what, len(want.Kept), len(want.Events), want.Leases, want.Users)
	}
	for i, kv := range want.Kept {
		if i >= len(got.Kept) || got.Kept[i].String() != kv.String() {
			t.Fatalf("%s: key %d of %d (have %d) at the compact revision is not %s", what, i, len(want.Kept), len(got.Kept), kv)
		}
	}
	for i, e := range want.Events {
		if i >= len(got.Events) || got.Events[i] != e {
			t.Fatalf("%s: event %d of %d (have %d) is not %.200s", what, i, len(want.Events), len(got.Events), e)
		}
	}
	got.Kept, got.Events, want.Kept, want.Events = nil, nil, nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n%+v\nwant\n%+v", what, got, want)
	}
}

// keysToMove is how many keys a house has; KVORUM_MOVE_KEYS says another number.
func keysToMove(t *testing.T) int {
	t.Helper()
	text := os.Getenv("KVORUM_MOVE_KEYS")
	if text == "" {
		return 1500
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A cluster moves from the real etcd to us, and back: every key at every revision, the
// compaction, leases, users and roles are the same at all three stations, whichever
// etcdctl saves.
func TestMovingInAndOut(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the stories of the commands are enough")
	}
	for _, path := range []string{realEtcd, realCtl} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%s is not installed: there is nobody to move from", path)
		}
	}
	ctl, utl := program(t, "etcdctl"), program(t, "etcdutl")
	old := newHouse(t, realEtcd)
	furnish(t, old.start(), keysToMove(t))
	want := take(t, old)
	files := t.TempDir()
	theirs, again, ours := filepath.Join(files, "theirs"), filepath.Join(files, "again"), filepath.Join(files, "ours")
	save := func(ctl string, h *house, to string) {
		do(t, ctl, "--endpoints="+h.client, "--user=root:secret", "snapshot", "save", to)
	}
	save(realCtl, old, theirs)
	save(ctl, old, again)
	status := do(t, utl, "snapshot", "status", theirs, "-w", "json")
	if real := do(t, realCtl, "snapshot", "status", theirs, "-w", "json"); strings.TrimSuffix(strings.TrimSpace(real), "}") != strings.TrimSuffix(strings.TrimSpace(status), `,"version":""}`) {
		t.Errorf("status is\n%sthe real one says\n%s", status, real)
	}

	for _, from := range []string{theirs, again} {
		house := newHouse(t, program(t, "etcd"))
		do(t, utl, append([]string{"snapshot", "restore", from}, house.move()...)...)
		house.start()
		equal(t, "moved in", take(t, house), want)
		if from == theirs {
			save(ctl, house, ours)
			save(realCtl, house, filepath.Join(files, "by theirs"))
		}
		house.stop(syscall.SIGTERM)
	}
	if a, b := do(t, utl, "hashkv", theirs), do(t, utl, "hashkv", ours); a != b {
		t.Errorf("the hash of our backup is %s, that of theirs %s", b, a)
	}

	back := newHouse(t, realEtcd)
	do(t, realCtl, append([]string{"snapshot", "restore", ours}, back.move()...)...)
	back.start()
	equal(t, "moved back", take(t, back), want)

	// The house that was left, stopped, is moved into without a backup; unless its last
	// words are not in its database for certain, and then that is said.
	leave := func(what string, last func(*clientv3.Client)) (refused bool) {
		t.Helper()
		if old.process == nil {
			old.start()
		}
		last(old.dial("root", "secret"))
		want := take(t, old)
		old.stop(syscall.SIGTERM)
		to := newHouse(t, program(t, "etcd"))
		out, err := run1(utl, append([]string{"import", old.dir}, to.move()...)...)
		if err != nil {
			if _, err := os.Stat(to.dir); err == nil || !strings.Contains(out, "start that etcd again and save a snapshot, or put a key and stop it with SIGTERM") {
				t.Errorf("%s: refused with %s, and %v", what, out, err)
			}
			return true
		}
		to.start()
		equal(t, what, take(t, to), want)
		return false
	}
	if leave("a key is put last", func(c *clientv3.Client) { must[*clientv3.PutResponse](t)(c.Put(t.Context(), "last", "word")) }) {
		t.Error("an etcd that stopped after a put is refused")
	}
	leave("a user is made last", func(c *clientv3.Client) {
		must[*clientv3.AuthUserAddResponse](t)(c.UserAdd(t.Context(), "late", "secret"))
	})
}
