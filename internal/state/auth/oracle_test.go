package auth

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/testkit/rights"
)

// The oracle is testkit/rights: permissions written out as sets of keys.

// pool is the keys that requests name; points are those and the strings next to them,
// at which ranges end.
var pool, points = func() (pool, points [][]byte) {
	for _, k := range []string{"\x00", "a", "a\x00a", "aa", "ab", "b", "b\x00", "c", "ca", "d", "\xff", "\xff\xff"} {
		pool = append(pool, []byte(k))
		points = append(points, []byte(k), []byte(k+"\x00"))
	}
	slices.SortFunc(points, bytes.Compare)
	return pool, slices.CompactFunc(points, bytes.Equal)
}()

// drawing is what both are asked about.
type drawing struct {
	oracle *rights.Table
	leases map[id.Lease][][]byte
}

func (d *drawing) keys(lease id.Lease) [][]byte { return d.leases[lease] }

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

// reach draws the range of a request: now and then one that holds no key.
func reach(r *rand.Rand) (key, end []byte) {
	if r.IntN(12) == 0 {
		return pool[r.IntN(len(pool))], points[r.IntN(len(points))]
	}
	return ground(r)
}

// drawn makes both by the commands that administrators give.
func drawn(t *testing.T, r *rand.Rand) (*drawing, *Table) {
	d := &drawing{oracle: rights.New(), leases: map[id.Lease][][]byte{}}
	table := empty()
	do := func(next *Table, err error, body command.Body) {
		if err != nil {
			t.Fatal(err)
		}
		table = next
		if d.oracle, err = d.oracle.Apply(body); err != nil {
			t.Fatal(err)
		}
	}
	roles := 1 + r.IntN(4)
	for i := range roles {
		role := &command.RoleAdd{Name: fmt.Sprint("role", i)}
		next, err := table.AddRole(nowhere, role)
		do(next, err, role)
		for range r.IntN(6) {
			grant := &command.RoleGrant{Role: role.Name, Given: true, Permission: command.Permission{Type: command.PermissionType(r.IntN(4))}}
			grant.Key, grant.End = ground(r)
			next, err := table.GrantPermission(nowhere, grant)
			do(next, err, grant)
		}
		if list := d.oracle.Roles[role.Name]; len(list) > 0 && r.IntN(3) == 0 {
			gone := list[r.IntN(len(list))]
			revoke := &command.RoleRevoke{Role: role.Name, Key: gone.Key, End: gone.End}
			next, err := table.RevokePermission(nowhere, revoke)
			do(next, err, revoke)
		}
	}
	for _, name := range []string{Root, "ann", "bob"} {
		user := &command.UserAdd{Name: name, NoPassword: true}
		next, err := table.AddUser(nowhere, user)
		do(next, err, user)
		for i := range roles {
			if grant := (&command.UserGrantRole{User: name, Role: fmt.Sprint("role", i)}); name != Root && r.IntN(2) == 0 {
				next, err := table.GrantRole(nowhere, grant)
				do(next, err, grant)
			}
		}
	}
	office := &command.UserGrantRole{User: Root, Role: Root}
	next, err := table.GrantRole(nowhere, office)
	do(next, err, office)
	if r.IntN(4) == 0 {
		gone := &command.RoleDelete{Name: "role0"}
		next, err := table.DeleteRole(nowhere, gone)
		do(next, err, gone)
	}
	next, err = table.Enable(nowhere)
	do(next, err, &command.AuthEnable{})
	for lease := range id.Lease(3) {
		for range r.IntN(3) {
			d.leases[lease+1] = append(d.leases[lease+1], pool[r.IntN(len(pool))])
		}
	}
	return d, table
}

func drawOp(r *rand.Rand, depth int) (op command.Op) {
	switch n := r.IntN(7); {
	case n < 2:
		op.Range = &command.RangeRequest{CountOnly: r.IntN(4) == 0}
		op.Range.Key, op.Range.End = reach(r)
	case n < 4:
		op.Put = &command.PutRequest{Key: pool[r.IntN(len(pool))], PrevKV: r.IntN(3) == 0, IgnoreValue: r.IntN(4) == 0}
		if r.IntN(3) == 0 {
			op.Put.Lease = id.Lease(r.IntN(5))
		}
	case n < 5 || depth == 0:
		op.Delete = &command.DeleteRangeRequest{PrevKV: r.IntN(3) == 0}
		op.Delete.Key, op.Delete.End = reach(r)
	default:
		op.Txn = drawTxn(r, depth-1)
	}
	return op
}

func drawTxn(r *rand.Rand, depth int) *command.TxnRequest {
	t := &command.TxnRequest{}
	for range max(0, r.IntN(4)-2) {
		c := command.Compare{}
		c.Key, c.End = reach(r)
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
func ask(r *rand.Rand, d *drawing, check *Check) (what string, got, want error) {
	lease := id.Lease(r.IntN(5))
	oracle, who := d.oracle, rights.Caller{User: check.Who.User, Issued: check.Who.Issued, Strict: check.Strict}
	keys := func(request any) error { return oracle.Keys(who, rights.Of(request, d.keys)) }
	switch r.IntN(12) {
	case 0:
		op := drawOp(r, 0)
		switch {
		case op.Range != nil:
			return fmt.Sprintf("range or watch %q %q", op.Range.Key, op.Range.End), check.Range(op.Range.Key, op.Range.End), keys(op.Range)
		case op.Put != nil:
			return fmt.Sprintf("put %+v", *op.Put), check.Put(op.Put), keys(op.Put)
		}
		return fmt.Sprintf("delete %+v", *op.Delete), check.Delete(op.Delete), keys(op.Delete)
	case 1:
		return fmt.Sprint("end or renew lease ", lease), check.LeaseWrite(lease), oracle.LeaseWrite(who, lease, d.keys)
	case 2:
		return fmt.Sprint("keys of lease ", lease), check.LeaseRead(lease), oracle.LeaseRead(who, lease, d.keys)
	case 3:
		return "administer", check.Admin(), oracle.Admin(who)
	case 4:
		return "status", check.AnyUser(), oracle.AnyUser(who)
	case 5:
		if want = oracle.Admin(who); who.User == "ann" {
			want = nil
		}
		return "user get ann", check.Self("ann"), want
	case 6:
		if want = oracle.Admin(who); slices.Contains(oracle.Users[who.User].Roles, "role1") {
			want = nil
		}
		return "role get role1", check.Holder("role1"), want
	}
	txn := drawTxn(r, 2)
	return "txn " + text(txn), check.Txn(txn), keys(txn)
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
				return fmt.Sprintf("seed %d: %q asks for %s: got %v, want %v\n%v\nleases %v", seed, check.Who.User, what, got, want, w.oracle, w.leases), verdicts
			}
		}
	}
	return "", verdicts
}

// Whatever is asked, the check says what the oracle says. What calls make of it is in
// embed's TestEveryCallIsJudgedAsTheOracleJudges.
func TestTheCheckAgreesWithTheOracle(t *testing.T) {
	const pairs = 200_000
	what, verdicts := disagreement(t, pairs)
	if what != "" {
		t.Fatal(what)
	}
	for _, verdict := range []error{nil, command.ErrUserEmpty, command.ErrPermissionDenied, command.ErrUserNotFound} {
		if verdicts[verdict] < pairs/200 {
			t.Errorf("only %d of %d were %v: the test asks too little", verdicts[verdict], pairs, verdict)
		}
	}
	t.Logf("%d pairs: %v", pairs, verdicts)
}
