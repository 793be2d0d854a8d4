package auth

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
)

// scene is a table with the store that its rows go to.
type scene struct {
	t     *testing.T
	db    engine.DB
	batch engine.Batch
	table *Table
}

func newScene(t *testing.T) *scene {
	disk := simenv.NewDisk(1, simenv.DiskOptions{})
	db, err := memdb.Open(memdb.Options{FS: disk.Mount(), Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Crash(simenv.ProcessCrash) })
	return &scene{t: t, db: db, batch: db.NewBatch(), table: empty()}
}

// do gives a command, whose name, words and expected end a line tells, and looks that
// what was stored is what is in memory.
func (s *scene) do(line, want string) {
	s.t.Helper()
	w := append(strings.Fields(line), "", "", "", "")
	word := func(i int) string { return strings.NewReplacer(`\0`, "\x00", `""`, "").Replace(w[i]) }
	to := To{Group: 1, Batch: s.batch}
	var next *Table
	var err error
	before := s.table.Revision()
	switch w[0] {
	case "enable":
		next, err = s.table.Enable(to)
	case "disable":
		next = s.table.Disable(to)
	case "user":
		next, err = s.table.AddUser(to, &command.UserAdd{Name: word(1), Hash: []byte(word(2)), NoPassword: w[2] == "none"})
	case "drop-user":
		next, err = s.table.DeleteUser(to, &command.UserDelete{Name: word(1)})
	case "password":
		next, err = s.table.SetPassword(to, &command.UserPassword{Name: word(1), Hash: []byte(word(2))})
	case "grant":
		next, err = s.table.GrantRole(to, &command.UserGrantRole{User: word(1), Role: word(2)})
	case "revoke":
		next, err = s.table.RevokeRole(to, &command.UserRevokeRole{User: word(1), Role: word(2)})
	case "role":
		next, err = s.table.AddRole(to, &command.RoleAdd{Name: word(1)})
	case "drop-role":
		next, err = s.table.DeleteRole(to, &command.RoleDelete{Name: word(1)})
	case "allow":
		kinds := map[string]command.PermissionType{"r": 0, "w": 1, "rw": 2, "odd": 9}
		kind, given := kinds[w[2]]
		next, err = s.table.GrantPermission(to, &command.RoleGrant{Role: word(1), Given: given, Permission: command.Permission{Type: kind, Key: []byte(word(3)), End: []byte(word(4))}})
	case "forbid":
		next, err = s.table.RevokePermission(to, &command.RoleRevoke{Role: word(1), Key: []byte(word(2)), End: []byte(word(3))})
	default:
		s.t.Fatalf("no such command: %s", line)
	}
	got := "same"
	switch {
	case err != nil:
		got = strings.TrimPrefix(err.Error(), "etcdserver: ")
		if next != s.table {
			s.t.Errorf("%s: refused, and another table", line)
		}
	case next.Revision() == before+1:
		got = "ok"
	case next != s.table:
		got = "switched"
	}
	if got != want {
		s.t.Errorf("%s: %s, want %s", line, got, want)
	}
	s.table = next
	if err := s.db.Commit(s.batch); err != nil {
		s.t.Fatal(err)
	}
	s.batch.Reset()
	again, err := Load(1, s.db)
	if err != nil || string(again.AppendTo(nil)) != string(s.table.AppendTo(nil)) {
		s.t.Fatalf("%s: loaded %+v, %v; want %+v", line, again, err, s.table)
	}
	for i, u := range again.users {
		if got, want := fmt.Sprint(u.grants), fmt.Sprint(s.table.users[i].grants); got != want {
			s.t.Fatalf("%s: %s may %s, want %s", line, u.Name, got, want)
		}
	}
}

// Each line is a command and what comes of it: ok is a change with a revision of its
// own, switched one without, same is none.
func TestUsersAndRoles(t *testing.T) {
	s := newScene(t)
	for _, step := range strings.Split(strings.TrimSpace(`
		disable | same
		enable | root user does not exist
		user root hash | ok
		enable | root user does not have root role
		user root other | user name already exists
		user "" hash | user name is empty
		grant root root | ok
		grant root root | same
		grant eve root | user name not found
		user ann hash | ok
		user cert none | ok
		password cert hash | ok
		grant ann writers | role name not found
		role writers | ok
		role writers | role name already exists
		role "" | role name is empty
		grant ann writers | ok
		allow writers w k l | ok
		allow writers rw k l | ok
		allow writers rw k l | ok
		allow writers odd z | ok
		allow writers none k | permission not given
		allow writers r "" | invalid auth management
		allow writers r l k | invalid auth management
		allow writers r k k | invalid auth management
		allow writers r k \0 | ok
		allow nobody r k | role name not found
		forbid writers k m | permission is not granted to the role
		forbid writers k \0 | ok
		forbid nobody k | role name not found
		enable | switched
		enable | same
		drop-user root | invalid auth management
		revoke root root | invalid auth management
		drop-role root | invalid auth management
		revoke ann readers | role is not granted to the user
		revoke eve readers | user name not found
		password eve hash | user name not found
		password ann "" | ok
		drop-user eve | user name not found
		drop-role readers | role name not found
		role root | ok
		drop-role root | invalid auth management
		drop-role writers | ok
		revoke ann writers | role is not granted to the user
		drop-user ann | ok
		disable | ok
		disable | same
		drop-user root | ok`), "\n") {
		line, want, _ := strings.Cut(step, " | ")
		s.do(strings.TrimSpace(line), want)
	}
}

// What changes and what a user's credentials are worth then.
func TestCredentialsEndWithTheirUser(t *testing.T) {
	s := newScene(t)
	for _, line := range []string{"user root hash", "grant root root", "role r", "allow r rw k", "user ann hash", "grant ann r"} {
		s.do(line, "ok")
	}
	s.do("enable", "switched")
	ask := func(issued uint64) error {
		check := Check{Table: s.table, Who: Caller{User: "ann", Issued: issued}}
		return check.Range([]byte("k"), nil)
	}
	then := s.table.Revision()
	if err := ask(then); err != nil {
		t.Fatal(err)
	}
	s.do("allow r r other", "ok")
	if err := ask(then); err != nil {
		t.Errorf("after a change of somebody's permissions: %v", err)
	}
	check := Check{Table: s.table, Strict: true, Who: Caller{User: "ann", Issued: then}}
	if err := check.Put(&command.PutRequest{Key: []byte("k")}); !errors.Is(err, command.ErrAuthOldRevision) {
		t.Errorf("a command that was judged before it: %v", err)
	}
	s.do("password ann other", "ok")
	if err := ask(then); !errors.Is(err, command.ErrAuthOldRevision) {
		t.Errorf("after another password: %v", err)
	}
	then = s.table.Revision()
	s.do("drop-user ann", "ok")
	s.do("user ann hash", "ok")
	s.do("grant ann r", "ok")
	if err := ask(then); !errors.Is(err, command.ErrAuthOldRevision) {
		t.Errorf("as another user of that name: %v", err)
	}
	then = s.table.Revision()
	s.do("disable", "ok")
	s.do("enable", "switched")
	if err := ask(then); !errors.Is(err, command.ErrAuthOldRevision) {
		t.Errorf("after permissions were not checked for a while: %v", err)
	}
	if err := ask(s.table.Revision()); err != nil {
		t.Error(err)
	}
}

// A range that holds no key is judged as by etcd: something allowed must reach over it.
func TestBackwardRanges(t *testing.T) {
	allowed := joined([]span{spanOf([]byte("a"), []byte("c")), spanOf([]byte("m"), nil), spanOf([]byte("x"), []byte{0})})
	for _, c := range []struct {
		key, end string
		want     bool
	}{
		{"b", "aa", true}, {"b", "b", true}, {"b", "a", false}, {"c", "b", false}, {"m", "m", false}, {"m", "a", false}, {"z", "y", true}, {"z", "a", false},
	} {
		if got := allowed.covers([]byte(c.key), []byte(c.end)); got != c.want {
			t.Errorf("%q to %q: %v", c.key, c.end, got)
		}
	}
}

func FuzzRows(f *testing.F) {
	f.Add([]byte{1, 0, 1, 0})
	f.Add(appendUser(nil, &User{Hash: []byte("hash"), Roles: []string{"a", "b"}, Since: 300}))
	f.Add(appendRole(nil, &Role{Permissions: []command.Permission{{Type: 2, Key: []byte("k"), End: []byte("l")}}}))
	f.Fuzz(func(t *testing.T, row []byte) {
		if u, ok := decodeUser("u", row); ok && string(appendUser(nil, u)) != string(row) {
			t.Errorf("user %x came back as %x", row, appendUser(nil, u))
		}
		if r, ok := decodeRole("r", row); ok && string(appendRole(nil, r)) != string(row) {
			t.Errorf("role %x came back as %x", row, appendRole(nil, r))
		}
		if table := empty(); table.decodeState(row) && string(table.appendState(nil)) != string(row) {
			t.Errorf("state %x came back as %x", row, table.appendState(nil))
		}
	})
}
