package state_test

import (
	"errors"
	"math"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
)

// as applies a request in a caller's name, judged under an auth revision.
func (r *replica) as(user string, revision uint64, body command.Body) error {
	r.t.Helper()
	r.entry(1, command.Encode(nil, command.Header{User: user, AuthRevision: revision}, body))
	return r.apply()[0].Err
}

// people makes root, and ann who may write "a" to "c" and read "b".
func (r *replica) people() {
	r.t.Helper()
	for _, body := range []command.Body{
		&command.UserAdd{Name: "root", Hash: []byte("hash")}, &command.UserGrantRole{User: "root", Role: "root"},
		&command.RoleAdd{Name: "r"},
		&command.RoleGrant{Role: "r", Given: true, Permission: command.Permission{Type: command.PermitWrite, Key: []byte("a"), End: []byte("c")}},
		&command.RoleGrant{Role: "r", Given: true, Permission: command.Permission{Type: command.PermitRead, Key: []byte("b")}},
		&command.UserAdd{Name: "ann", Hash: []byte("hash")}, &command.UserGrantRole{User: "ann", Role: "r"},
		&command.AuthEnable{},
	} {
		if _, err := r.do(body); err != nil {
			r.t.Fatal(err)
		}
	}
}

func key(k string) []byte { return []byte(k) }

// Every command is judged where it is applied, by what was applied before it.
func TestCommandsAreJudgedAtApply(t *testing.T) {
	r := newReplica(t, 1)
	r.people()
	now := r.m.View().Auth().Revision()
	lease := &command.LeaseGrant{ID: 7, TTL: 60}
	for _, c := range []struct {
		user string
		body command.Body
		want error
	}{
		{"", &command.PutRequest{Key: key("a")}, command.ErrUserEmpty},
		{"", &command.TxnRequest{}, nil},
		{"", lease, command.ErrUserEmpty},
		{"", &command.CompactRequest{Revision: 1}, command.ErrUserEmpty},
		{"eve", &command.PutRequest{Key: key("a")}, command.ErrPermissionDenied},
		{"eve", &command.CompactRequest{Revision: 1}, command.ErrUserNotFound},
		{"ann", &command.PutRequest{Key: key("a")}, nil},
		{"ann", &command.PutRequest{Key: key("a"), PrevKV: true}, command.ErrPermissionDenied},
		{"ann", &command.PutRequest{Key: key("b"), PrevKV: true}, nil},
		{"ann", &command.PutRequest{Key: key("c")}, command.ErrPermissionDenied},
		{"ann", lease, nil},
		{"root", &command.PutRequest{Key: key("x"), Lease: 7}, nil},
		{"ann", &command.PutRequest{Key: key("a"), Lease: 7}, command.ErrPermissionDenied},
		{"ann", &command.TxnRequest{Success: []command.Op{{Txn: &command.TxnRequest{Failure: []command.Op{{Put: &command.PutRequest{Key: key("a"), Lease: 7}}}}}}}, command.ErrPermissionDenied},
		{"ann", &command.LeaseRevoke{ID: 7}, command.ErrPermissionDenied},
		{"ann", &command.LeaseRevoke{ID: 8}, command.ErrLeaseNotFound},
		{"ann", &command.UserAdd{Name: "bob"}, command.ErrPermissionDenied},
		{"ann", &command.AuthDisable{}, command.ErrPermissionDenied},
		{"ann", &command.MemberUpdate{Member: 1}, command.ErrPermissionDenied},
		{"ann", &command.DowngradeEnable{Target: command.FirstVersion}, command.ErrPermissionDenied},
		{"ann", &command.DowngradeCancel{}, command.ErrPermissionDenied},
		{"root", &command.LeaseRevoke{ID: 7}, nil},
		{"root", &command.CompactRequest{Revision: 2}, nil},
	} {
		before := r.hash()
		if err := r.as(c.user, now, c.body); !errors.Is(err, c.want) || err != nil && c.want == nil {
			t.Errorf("%q: %v %+v: %v, want %v", c.user, c.body.Kind(), c.body, err, c.want)
		}
		if c.want != nil && r.hash() != before {
			t.Errorf("%q: %v was refused, and changed something", c.user, c.body.Kind())
		}
	}
	// What was judged before a change is not obeyed after it, whoever asks.
	if err := r.as("root", now, &command.UserAdd{Name: "bob"}); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"ann", "root"} {
		if err := r.as(user, now, &command.PutRequest{Key: key("a")}); !errors.Is(err, command.ErrAuthOldRevision) {
			t.Errorf("%s, judged before a change: %v", user, err)
		}
	}
	// The members' own commands are nobody's.
	if err := r.as("", 0, &command.MemberPublish{Member: 3, Name: "three"}); err != nil {
		t.Errorf("a member's own command: %v", err)
	}
}

// Tokens are told with their digests, in order, and are nothing that is stored.
func TestTokensAreTold(t *testing.T) {
	r := newReplica(t, 1)
	feed := r.m.FollowTokens()
	r.people()
	view := r.m.View().Auth()
	give := &command.Authenticate{User: "ann", Since: view.User("ann").Since, Digest: command.TokenDigest{1}}
	before := r.hash()
	if err := r.as("", 0, give); err != nil {
		t.Fatal(err)
	}
	if r.hash() != before || r.m.View().Auth() != view {
		t.Error("a token has changed the state")
	}
	want := auth.Token{User: "ann", Digest: command.TokenDigest{1}, Revision: view.Revision(), Index: r.m.Mark().Index}
	if got := feed.Next(); len(got) != 1 || got[0] != want {
		t.Errorf("told %+v, want %+v", got, want)
	}
	if err := r.as("root", view.Revision(), &command.UserPassword{Name: "ann", Hash: []byte("other")}); err != nil {
		t.Fatal(err)
	}
	if err := r.as("", 0, give); !errors.Is(err, command.ErrAuthOldRevision) {
		t.Errorf("a token for the former password: %v", err)
	}
	if feed.More() {
		t.Error("told of a token that was refused")
	}
}

// Users and roles last over a crash, travel with the state, and are part of its hash.
func TestUsersAreOfTheState(t *testing.T) {
	r := newReplica(t, 1)
	before := r.hash()
	r.people()
	if r.hash() == before {
		t.Error("no part of the hash")
	}
	want, users := r.hash(), len(r.m.View().Auth().Users())
	saved, err := r.m.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	other := newReplica(t, 2)
	err = receive(other.m, saved.At(), func() ([]byte, bool) {
		chunk, ok, err := saved.Next(200)
		if err != nil {
			t.Fatal(err)
		}
		return chunk, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	saved.Close()
	if got := other.m.View().Auth(); other.hash() != want || !got.Enabled() || len(got.Users()) != users {
		t.Errorf("came with %d users, enabled %v", len(got.Users()), got.Enabled())
	}
	check := other.m.View().Check(auth.Caller{User: "ann", Issued: math.MaxUint64})
	if err := check.Range(key("b"), nil); err != nil {
		t.Error(err)
	}
	if err := check.Range(key("a"), nil); !errors.Is(err, command.ErrPermissionDenied) {
		t.Error(err)
	}
	want = r.hash()
	r.crash(simenv.PowerCrash)
	r.apply()
	if r.hash() != want || r.m.View().Auth().Revision() != 8 {
		t.Errorf("after a crash: revision %d", r.m.View().Auth().Revision())
	}
	if err := r.as("ann", 8, &command.PutRequest{Key: key("c"), Lease: id.Lease(0)}); !errors.Is(err, command.ErrPermissionDenied) {
		t.Errorf("after a crash: %v", err)
	}
}
