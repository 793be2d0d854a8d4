package auth

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// The oracle: permissions are sets of keys, written out. It knows no ranges, no unions
// and no recursion over branches that are taken or not; it lists what a request touches
// and looks each key up.
//
// Keys are byte strings, of which there are too many to list. But all ranges of the
// test begin and end at a few points, the pool's keys and the strings next to them, so
// every range that holds one string between two neighbouring points holds all of them:
// the points stand for all keys.

// points are those, sorted. pool is the keys that requests name.
var pool, points = func() (pool, points [][]byte) {
	for _, k := range []string{"\x00", "a", "a\x00a", "aa", "ab", "b", "b\x00", "c", "ca", "d", "\xff", "\xff\xff"} {
		pool = append(pool, []byte(k))
		points = append(points, []byte(k), []byte(k+"\x00"))
	}
	slices.SortFunc(points, bytes.Compare)
	return pool, slices.CompactFunc(points, bytes.Equal)
}()

// inside says whether a key is in a range, as spec 1.6 has it.
func inside(k, key, end []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(k, key)
	case string(end) == "\x00":
		return bytes.Compare(k, key) >= 0
	}
	return bytes.Compare(k, key) >= 0 && bytes.Compare(k, end) < 0
}

// rights is one user's, written out.
type rights struct {
	root        bool
	read, write map[string]bool
}

type worldly struct {
	roles  map[string][]command.Permission
	users  map[string][]string
	leases map[id.Lease][][]byte
}

func (w *worldly) rights(user string) rights {
	r := rights{read: map[string]bool{}, write: map[string]bool{}}
	for _, role := range w.users[user] {
		r.root = r.root || role == Root
		for _, p := range w.roles[role] {
			for _, k := range points {
				if !inside(k, p.Key, p.End) {
					continue
				}
				switch p.Type {
				case command.PermitRead:
					r.read[string(k)] = true
				case command.PermitWrite:
					r.write[string(k)] = true
				case command.PermitReadWrite:
					r.read[string(k)], r.write[string(k)] = true, true
				}
			}
		}
	}
	return r
}

// touched is what a request reads and writes: a list.
type touched struct {
	read, write [][]byte
	any         bool // it asks for something
}

func (w *worldly) all(key, end []byte) (list [][]byte) {
	for _, k := range points {
		if inside(k, key, end) {
			list = append(list, k)
		}
	}
	return list
}

func (w *worldly) touch(t *touched, op command.Op) {
	switch {
	case op.Range != nil:
		t.any = true
		t.read = append(t.read, w.all(op.Range.Key, op.Range.End)...)
	case op.Delete != nil:
		t.any = true
		t.write = append(t.write, w.all(op.Delete.Key, op.Delete.End)...)
		if op.Delete.PrevKV {
			t.read = append(t.read, w.all(op.Delete.Key, op.Delete.End)...)
		}
	case op.Put != nil:
		t.any = true
		t.write = append(t.write, op.Put.Key)
		if op.Put.PrevKV {
			t.read = append(t.read, op.Put.Key)
		}
		t.write = append(t.write, w.leases[op.Put.Lease]...)
	case op.Txn != nil:
		for _, c := range op.Txn.Compares {
			t.any = true
			t.read = append(t.read, w.all(c.Key, c.End)...)
		}
		for _, inner := range op.Txn.Success {
			w.touch(t, inner)
		}
		for _, inner := range op.Txn.Failure {
			w.touch(t, inner)
		}
	}
}

var errNobody, errDenied = command.ErrUserEmpty, command.ErrPermissionDenied

func (w *worldly) judge(user string, t touched) error {
	if !t.any {
		return nil
	}
	if user == "" {
		return errNobody
	}
	r := w.rights(user)
	if r.root {
		return nil
	}
	if _, known := w.users[user]; !known {
		return errDenied
	}
	for _, k := range t.read {
		if !r.read[string(k)] {
			return errDenied
		}
	}
	for _, k := range t.write {
		if !r.write[string(k)] {
			return errDenied
		}
	}
	return nil
}

// discard is a batch that keeps nothing.
type discard struct{}

func (discard) Set(_, _ []byte) {}
func (discard) Delete([]byte)   {}
func (discard) Bytes() int      { return 0 }
func (discard) Reset()          {}
func (discard) Close()          {}

var nowhere = To{Group: 1, Batch: discard{}}

// ground draws a range that holds a key, or a single key.
func ground(r *rand.Rand) (key, end []byte) {
	key = pool[r.IntN(len(pool))]
	switch r.IntN(5) {
	case 0, 1:
		return key, nil
	case 2:
		return key, []byte{0}
	}
	end = points[r.IntN(len(points))]
	if bytes.Compare(end, key) <= 0 || string(end) == "\x00" {
		return key, nil
	}
	return key, end
}

// drawn makes a world by the commands that administrators give.
func drawn(t *testing.T, r *rand.Rand) (*worldly, *Table) {
	w := &worldly{roles: map[string][]command.Permission{}, users: map[string][]string{}, leases: map[id.Lease][][]byte{}}
	table := empty()
	do := func(next *Table, err error) {
		if err != nil {
			t.Fatal(err)
		}
		table = next
	}
	roles := 1 + r.IntN(4)
	for i := range roles {
		name := fmt.Sprint("role", i)
		do(table.AddRole(nowhere, &command.RoleAdd{Name: name}))
		for range r.IntN(6) {
			p := command.Permission{Type: command.PermissionType(r.IntN(4))}
			p.Key, p.End = ground(r)
			do(table.GrantPermission(nowhere, &command.RoleGrant{Role: name, Given: true, Permission: p}))
			w.roles[name] = append(slices.DeleteFunc(w.roles[name], func(other command.Permission) bool {
				return bytes.Equal(other.Key, p.Key) && bytes.Equal(other.End, p.End)
			}), p)
		}
		if list := w.roles[name]; len(list) > 0 && r.IntN(3) == 0 {
			gone := list[r.IntN(len(list))]
			do(table.RevokePermission(nowhere, &command.RoleRevoke{Role: name, Key: gone.Key, End: gone.End}))
			w.roles[name] = slices.DeleteFunc(list, func(p command.Permission) bool {
				return bytes.Equal(gone.Key, p.Key) && bytes.Equal(gone.End, p.End)
			})
		}
	}
	for _, name := range []string{Root, "ann", "bob"} {
		do(table.AddUser(nowhere, &command.UserAdd{Name: name, NoPassword: true}))
		w.users[name] = nil
		for i := range roles {
			if role := fmt.Sprint("role", i); name != Root && r.IntN(2) == 0 {
				do(table.GrantRole(nowhere, &command.UserGrantRole{User: name, Role: role}))
				w.users[name] = append(w.users[name], role)
			}
		}
	}
	do(table.GrantRole(nowhere, &command.UserGrantRole{User: Root, Role: Root}))
	w.users[Root] = []string{Root}
	if r.IntN(4) == 0 {
		gone := fmt.Sprint("role", 0)
		do(table.DeleteRole(nowhere, &command.RoleDelete{Name: gone}))
		delete(w.roles, gone)
		for name, list := range w.users {
			w.users[name] = slices.DeleteFunc(list, func(role string) bool { return role == gone })
		}
	}
	do(table.Enable(nowhere))
	for lease := range id.Lease(3) {
		for range r.IntN(3) {
			w.leases[lease+1] = append(w.leases[lease+1], pool[r.IntN(len(pool))])
		}
	}
	return w, table
}

func drawOp(r *rand.Rand, depth int) (op command.Op) {
	switch n := r.IntN(7); {
	case n < 2:
		op.Range = &command.RangeRequest{CountOnly: r.IntN(4) == 0}
		op.Range.Key, op.Range.End = ground(r)
	case n < 4:
		op.Put = &command.PutRequest{Key: pool[r.IntN(len(pool))], PrevKV: r.IntN(3) == 0, IgnoreValue: r.IntN(4) == 0}
		if r.IntN(3) == 0 {
			op.Put.Lease = id.Lease(r.IntN(5))
		}
	case n < 5 || depth == 0:
		op.Delete = &command.DeleteRangeRequest{PrevKV: r.IntN(3) == 0}
		op.Delete.Key, op.Delete.End = ground(r)
	default:
		op.Txn = drawTxn(r, depth-1)
	}
	return op
}

func drawTxn(r *rand.Rand, depth int) *command.TxnRequest {
	t := &command.TxnRequest{}
	for range max(0, r.IntN(4)-2) {
		c := command.Compare{}
		c.Key, c.End = ground(r)
		t.Compares = append(t.Compares, c)
	}
	for range r.IntN(3) {
		t.Success = append(t.Success, drawOp(r, depth))
	}
	for range r.IntN(2) {
		t.Failure = append(t.Failure, drawOp(r, depth))
	}
	return t
}

// ask puts one drawn request to the check and to the oracle.
func ask(r *rand.Rand, w *worldly, check *Check) (what string, got, want error) {
	user := check.Who.User
	lease := id.Lease(r.IntN(5))
	byLease := func(read bool) error {
		t := touched{any: len(w.leases[lease]) > 0}
		if t.write = w.leases[lease]; read {
			t.read, t.write = t.write, nil
		}
		if user == "" {
			return errNobody
		}
		return w.judge(user, t)
	}
	switch r.IntN(12) {
	case 0:
		op := drawOp(r, 0)
		t := touched{}
		w.touch(&t, op)
		switch {
		case op.Range != nil:
			return fmt.Sprintf("range or watch %q %q", op.Range.Key, op.Range.End), check.Range(op.Range.Key, op.Range.End), w.judge(user, t)
		case op.Put != nil:
			return fmt.Sprintf("put %+v", *op.Put), check.Put(op.Put), w.judge(user, t)
		}
		return fmt.Sprintf("delete %+v", *op.Delete), check.Delete(op.Delete), w.judge(user, t)
	case 1:
		return fmt.Sprint("end or renew lease ", lease), check.LeaseWrite(lease), byLease(false)
	case 2:
		return fmt.Sprint("keys of lease ", lease), check.LeaseRead(lease), byLease(true)
	case 3:
		return "administer", check.Admin(), w.admin(user)
	case 4:
		want = nil
		if user == "" {
			want = errNobody
		}
		return "status", check.AnyUser(), want
	case 5:
		if want = w.admin(user); user == "ann" {
			want = nil
		}
		return "user get ann", check.Self("ann"), want
	case 6:
		if want = w.admin(user); slices.Contains(w.users[user], "role1") {
			want = nil
		}
		return "role get role1", check.Holder("role1"), want
	}
	txn := drawTxn(r, 2)
	t := touched{}
	w.touch(&t, command.Op{Txn: txn})
	return "txn " + text(txn), check.Txn(txn), w.judge(user, t)
}

func (w *worldly) admin(user string) error {
	_, known := w.users[user]
	switch {
	case user == "":
		return errNobody
	case !known:
		return command.ErrUserNotFound
	case slices.Contains(w.users[user], Root):
		return nil
	}
	return errDenied
}

// text prints a txn with what is in it.
func text(t *command.TxnRequest) string {
	s := "if ["
	for _, c := range t.Compares {
		s += fmt.Sprintf("%q..%q ", c.Key, c.End)
	}
	for _, ops := range [][]command.Op{t.Success, t.Failure} {
		s += "] ["
		for _, op := range ops {
			switch {
			case op.Range != nil:
				s += fmt.Sprintf("get %q..%q; ", op.Range.Key, op.Range.End)
			case op.Put != nil:
				s += fmt.Sprintf("put %q lease %d prev %v; ", op.Put.Key, op.Put.Lease, op.Put.PrevKV)
			case op.Delete != nil:
				s += fmt.Sprintf("delete %q..%q prev %v; ", op.Delete.Key, op.Delete.End, op.Delete.PrevKV)
			default:
				s += text(op.Txn) + "; "
			}
		}
	}
	return s + "]"
}

// pairsAsked is how many requests a short run asks about; KVORUM_AUTH_PAIRS sets another
// number.
func pairsAsked(t *testing.T) int {
	text := os.Getenv("KVORUM_AUTH_PAIRS")
	if text == "" {
		return 10_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// disagreement finds a request that check and oracle judge differently, among so many.
func disagreement(t *testing.T, pairs int) (what string, verdicts map[error]int) {
	verdicts = map[error]int{}
	for seed := uint64(1); pairs > 0; seed++ {
		r := rand.New(rand.NewPCG(seed, 7))
		w, table := drawn(t, r)
		for range 25 {
			pairs--
			check := &Check{Table: table, Keys: func(lease id.Lease) ([][]byte, error) { return w.leases[lease], nil }}
			check.Who = Caller{User: []string{"", Root, "ann", "ann", "ann", "bob", "bob", "eve"}[r.IntN(8)], Issued: table.Revision()}
			check.Strict = r.IntN(2) == 0
			what, got, want := ask(r, w, check)
			verdicts[want]++
			if !errors.Is(got, want) || (got == nil) != (want == nil) {
				return fmt.Sprintf("seed %d: %q asks for %s: got %v, want %v\nroles %v\nusers %v\nleases %v",
					seed, check.Who.User, what, got, want, w.roles, w.users, w.leases), verdicts
			}
		}
	}
	return "", verdicts
}

// Whatever is asked, the check says what the oracle says:
//
//	KVORUM_AUTH_PAIRS=200000 go test -run Oracle -v ./internal/state/auth
func TestTheCheckAgreesWithTheOracle(t *testing.T) {
	pairs := pairsAsked(t)
	what, verdicts := disagreement(t, pairs)
	if what != "" {
		t.Fatal(what)
	}
	for _, verdict := range []error{nil, errNobody, errDenied, command.ErrUserNotFound} {
		if verdicts[verdict] < pairs/200 {
			t.Errorf("only %d of %d were %v: the test asks too little", verdicts[verdict], pairs, verdict)
		}
	}
	t.Logf("%d pairs: %v", pairs, verdicts)
}
