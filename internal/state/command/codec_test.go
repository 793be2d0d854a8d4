package command_test

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	. "github.com/kvorum/kvorum/internal/state/command"
)

// header is one with every field set, so that a forgotten field shows.
func header(kind Kind) Header {
	return Header{
		Kind: kind, Class: Duty, Origin: Origin{Member: 0x8e9e05c52164694d, Boot: 0xfeedfacecafebeef, Seq: 7},
		Term: 9, User: "alice", AuthRevision: 3, Wall: 1_700_000_000_000_000_001,
		IdempotencyKey: "order-17", Needs: Version{3, 7},
	}
}

// bodies is one of every kind with every field set.
func bodies() []Body {
	rng := &RangeRequest{
		Key: []byte("a"), End: []byte{0}, Limit: -1, Revision: 5, Order: SortDescend, Target: SortByValue,
		Serializable: true, KeysOnly: true, CountOnly: true, MinModRevision: 1, MaxModRevision: 2, MinCreateRevision: 3, MaxCreateRevision: 4,
	}
	put := &PutRequest{Key: []byte("k"), Value: []byte("v\x00w"), Lease: -5, PrevKV: true, IgnoreValue: true, IgnoreLease: true}
	del := &DeleteRangeRequest{Key: []byte("k"), End: []byte("l"), PrevKV: true}
	inner := &TxnRequest{Failure: []Op{{Put: &PutRequest{Key: []byte("x")}}}}
	return []Body{
		put, del,
		&TxnRequest{
			Compares: []Compare{{Key: []byte("c"), End: []byte("d"), Result: 200, Target: CompareLease, Number: -3, Value: []byte("z")}},
			Success:  []Op{{Range: rng}, {Put: put}, {Delete: del}, {Txn: inner}},
			Failure:  []Op{{Delete: del}},
		},
		&CompactRequest{Revision: 1 << 40, Physical: true},
		&LeaseGrant{ID: -7, TTL: MaxLeaseTTL}, &LeaseRevoke{ID: 1 << 60},
		&LeaseExpire{Leases: []LeaseName{{ID: 3, Birth: 1}, {ID: -4, Birth: 1 << 50}}},
		&LeaseCheckpoint{Leases: []LeaseRemaining{{LeaseName{ID: 3, Birth: 1}, 60}, {LeaseName{ID: -4, Birth: 2}, 0}}},
		&MemberPublish{Member: 0xf00, Name: "infra0", PeerURLs: []string{"http://h:2380"}, ClientURLs: []string{"http://h:2379", ""}},
		&ClusterVersion{Version: Version{3, 7}}, &DowngradeEnable{Target: Version{3, 6}}, &DowngradeCancel{}, &DowngradeEnd{},
		&MemberGenesis{Members: []GenesisMember{{Member: 5, PeerURLs: []string{"http://p"}}, {Member: 6}}},
		&MemberUpdate{Member: 5, PeerURLs: []string{"http://p", "https://q"}},
		&AlarmRaise{Alarm{Member: 1 << 63, Type: AlarmNoSpace}}, &AlarmDisarm{Alarm{Type: -3}}, &AlarmReport{Alarm{Member: 5, Type: AlarmCorrupt}}, &AlarmWithdraw{Alarm{Member: 5, Type: 17}},
		&AuthEnable{}, &AuthDisable{}, &Authenticate{User: "ann", Since: 9, Digest: TokenDigest{1, 31: 2}},
		&UserAdd{Name: "ann", Hash: []byte("$2a$"), NoPassword: true}, &UserDelete{Name: "ann"},
		&UserPassword{Name: "ann", Hash: []byte("$2a$")}, &UserGrantRole{User: "ann", Role: "r"}, &UserRevokeRole{User: "ann", Role: "r"},
		&RoleAdd{Name: "r"}, &RoleDelete{Name: "r"},
		&RoleGrant{Role: "r", Given: true, Permission: Permission{Type: -3, Key: []byte("k"), End: []byte{0}}},
		&RoleRevoke{Role: "r", Key: []byte("k"), End: []byte("l")},
	}
}

func TestEveryKindComesBackAsItWentIn(t *testing.T) {
	all := bodies()
	if len(all) != len(Kinds()) {
		t.Fatalf("%d bodies for %d kinds", len(all), len(Kinds()))
	}
	for _, body := range all {
		h := header(body.Kind())
		cmd := Encode([]byte("before"), h, body)[len("before"):]
		got, err := Decode(cmd)
		if err != nil {
			t.Fatalf("%v: %v", body.Kind(), err)
		}
		if got.Header != h {
			t.Errorf("%v: header %+v, want %+v", body.Kind(), got.Header, h)
		}
		if !reflect.DeepEqual(got.Body, body) {
			t.Errorf("%v: body %+v, want %+v", body.Kind(), got.Body, body)
		}
		for cut := range len(cmd) {
			if _, err := Decode(cmd[:cut]); !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v cut at %d of %d: %v", body.Kind(), cut, len(cmd), err)
			}
		}
		if _, err := Decode(append(cmd[:len(cmd):len(cmd)], 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v with a byte too many: %v", body.Kind(), err)
		}
	}
}

// The bytes are durable: a change of this test is a change of the format.
func TestBytesOfAPut(t *testing.T) {
	h := Header{Origin: Origin{Member: 1, Boot: 2, Seq: 3}, Term: 4, Wall: 5, AuthRevision: 6, Needs: Version{3, 7}}
	cmd := Encode(nil, h, &PutRequest{Key: []byte("greeting"), Value: []byte("hi"), Lease: 1})
	want := "01" + "0100" + "01" + "0100000000000000" + "0200000000000000" + "0300000000000000" +
		"0400000000000000" + "0500000000000000" + "0600000000000000" + "0307" + "00" + "00" +
		"00" + "02" + "08" + hex.EncodeToString([]byte("greeting")) + "02" + hex.EncodeToString([]byte("hi"))
	if got := hex.EncodeToString(cmd); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestStampAndPeekLookAtTheFixedPartOnly(t *testing.T) {
	cmd := Encode(nil, Header{User: "bob", Wall: 77}, &CompactRequest{Revision: 4})
	before := len(cmd)
	origin := Origin{Member: 11, Boot: 12, Seq: 13}
	Stamp(cmd, origin, 14)
	h, err := Peek(cmd)
	if err != nil || h.Origin != origin || h.Term != 14 || h.Class != Client || h.Kind != KindCompact || h.Wall != 77 || h.User != "" {
		t.Fatalf("peeked %+v, %v", h, err)
	}
	StampTerm(cmd, 15)
	got, err := Decode(cmd)
	if err != nil || got.Term != 15 || got.Origin != origin || got.User != "bob" || len(cmd) != before {
		t.Fatalf("decoded %+v, %v", got.Header, err)
	}
	if n := testing.AllocsPerRun(100, func() { Stamp(cmd, origin, 16); _, _ = Peek(cmd) }); n != 0 {
		t.Fatalf("stamp and peek allocate %v times", n)
	}
}

func TestDecodingAPutAgainAllocatesNothing(t *testing.T) {
	cmd := Encode(nil, Header{}, &PutRequest{Key: []byte("k"), Value: []byte("v")})
	var c Command
	if n := testing.AllocsPerRun(100, func() {
		if c.Decode(cmd) != nil {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestTheUnknownIsNamedAndNeverSkipped(t *testing.T) {
	good := Encode(nil, Header{}, &PutRequest{Key: []byte("k")})
	for _, c := range []struct {
		at     int
		value  byte
		what   string
		number uint64
	}{{0, 2, "format version", 2}, {1, 99, "kind", 99}, {2, 1, "kind", 257}, {3, 0, "class", 0}, {3, 3, "class", 3}} {
		bad := append([]byte(nil), good...)
		bad[c.at] = c.value
		var unknown *UnknownError
		for _, read := range []func([]byte) error{
			func(b []byte) error { _, err := Peek(b); return err },
			func(b []byte) error { _, err := Decode(b); return err },
		} {
			if err := read(bad); !errors.As(err, &unknown) || unknown.What != c.what || unknown.Number != c.number || !strings.Contains(err.Error(), c.what) {
				t.Errorf("byte %d = %d: %v", c.at, c.value, err)
			}
		}
	}
}

func nested(depth int) *TxnRequest {
	txn := &TxnRequest{}
	for range depth - 1 {
		txn = &TxnRequest{Success: []Op{{Txn: txn}}}
	}
	return txn
}

func TestNestingHasAnEnd(t *testing.T) {
	if _, err := Decode(Encode(nil, Header{}, nested(MaxTxnDepth))); err != nil {
		t.Errorf("deepest legal txn: %v", err)
	}
	if _, err := Decode(Encode(nil, Header{}, nested(MaxTxnDepth+1))); !errors.Is(err, ErrMalformed) {
		t.Errorf("deeper txn: %v", err)
	}
	if err := ValidateTxn(nested(MaxTxnDepth), 1000); err != nil {
		t.Errorf("deepest legal txn is not valid: %v", err)
	}
	if err := ValidateTxn(nested(MaxTxnDepth+1), 1000); !errors.Is(err, ErrTooManyOps) {
		t.Errorf("deeper txn is valid: %v", err)
	}
}

// A length that promises more than the bytes hold must be refused before memory
// is taken for it.
func TestLengthsAreCheckedBeforeAllocation(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	start := Encode(nil, Header{}, &TxnRequest{})
	txn := append(start[:len(start)-3:len(start)-3], huge...)
	publish := Encode(nil, Header{}, &MemberPublish{})
	publish = append(publish[:len(publish)-1:len(publish)-1], huge...)
	for _, cmd := range [][]byte{txn, publish} {
		if n := testing.AllocsPerRun(10, func() { _, _ = Decode(cmd) }); n > 10 {
			t.Errorf("%v allocations", n)
		}
		if _, err := Decode(cmd); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v", err)
		}
	}
}

func TestBatchHoldsCommandsInOrder(t *testing.T) {
	var batch []byte
	var want []string
	for _, body := range bodies() {
		cmd := Encode(nil, header(body.Kind()), body)
		before := len(batch)
		batch = AppendToBatch(batch, cmd)
		if len(batch)-before != BatchSize(len(cmd)) {
			t.Errorf("BatchSize(%d) = %d, took %d", len(cmd), BatchSize(len(cmd)), len(batch)-before)
		}
		want = append(want, string(cmd))
	}
	got, err := readAll(batch)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%q, %v", got, err)
	}
	for name, bad := range map[string][]byte{
		"cut":                batch[:len(batch)-1],
		"zero length":        append(batch[:len(batch):len(batch)], 0),
		"length not minimal": {0x81, 0x00, 'x'},
		"endless length":     {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		if _, err := readAll(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func readAll(batch []byte) (cmds []string, err error) {
	b := ReadBatch(batch)
	for b.Next() {
		cmds = append(cmds, string(b.Command()))
	}
	return cmds, b.Err()
}

func TestCostIsTheLargerBranch(t *testing.T) {
	put := func(key, value string) Op { return Op{Put: &PutRequest{Key: []byte(key), Value: []byte(value)}} }
	txn := &TxnRequest{
		Success: []Op{put("a", "1"), {Txn: &TxnRequest{Failure: []Op{put("b", "22")}}}, {Delete: &DeleteRangeRequest{Key: []byte("z")}}},
		Failure: []Op{put("ccc", "333")},
	}
	for _, c := range []struct {
		body Body
		want int64
	}{
		{&PutRequest{Key: []byte("key"), Value: []byte("value")}, 264},
		{txn, 256 + 2 + 256 + 3},
		{&DeleteRangeRequest{Key: []byte("key")}, 0}, {&CompactRequest{}, 0}, {&MemberPublish{}, 0},
	} {
		if got := c.body.Cost(); got != c.want {
			t.Errorf("%v costs %d, want %d", c.body.Kind(), got, c.want)
		}
	}
}

func TestRandomCommandsComeBack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		body := randomTxn(rnd, 3)
		cmd := Encode(nil, Header{User: "u", Term: id.Term(rnd.Uint64())}, body)
		got, err := Decode(cmd)
		if err != nil || !reflect.DeepEqual(got.Body, body) {
			t.Fatalf("%v\ngot  %+v\nwant %+v", err, got.Body, body)
		}
	}
}

func randomTxn(rnd *rand.Rand, depth int) *TxnRequest {
	txn := &TxnRequest{Success: randomOps(rnd, depth), Failure: randomOps(rnd, depth)}
	for range rnd.IntN(3) {
		txn.Compares = append(txn.Compares, Compare{
			Key: randomBytes(rnd), End: randomBytes(rnd), Result: CompareResult(rnd.IntN(6)),
			Target: CompareTarget(rnd.IntN(7)), Number: rnd.Int64() >> rnd.IntN(64), Value: randomBytes(rnd),
		})
	}
	return txn
}

func randomOps(rnd *rand.Rand, depth int) (ops []Op) {
	for range rnd.IntN(4) {
		switch n := rnd.IntN(4); {
		case n == 0:
			ops = append(ops, Op{Put: &PutRequest{Key: randomBytes(rnd), Value: randomBytes(rnd), Lease: id.Lease(rnd.Int64() >> rnd.IntN(64)), PrevKV: rnd.IntN(2) == 0}})
		case n == 1:
			ops = append(ops, Op{Delete: &DeleteRangeRequest{Key: randomBytes(rnd), End: randomBytes(rnd)}})
		case n == 2 && depth > 0:
			ops = append(ops, Op{Txn: randomTxn(rnd, depth-1)})
		default:
			ops = append(ops, Op{Range: &RangeRequest{Key: randomBytes(rnd), Limit: rnd.Int64() >> rnd.IntN(64), Revision: id.Revision(rnd.Int64N(9) - 2), KeysOnly: rnd.IntN(2) == 0}})
		}
	}
	return ops
}

func randomBytes(rnd *rand.Rand) []byte {
	n := rnd.IntN(5)
	if n == 0 {
		return nil
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

func FuzzDecode(f *testing.F) {
	for _, body := range bodies() {
		f.Add(Encode(nil, header(body.Kind()), body))
	}
	f.Fuzz(func(t *testing.T, cmd []byte) {
		got, err := Decode(cmd)
		if err != nil {
			var unknown *UnknownError
			if !errors.Is(err, ErrMalformed) && !errors.As(err, &unknown) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if again := Encode(nil, got.Header, got.Body); string(again) != string(cmd) {
			t.Fatalf("decoded %x, encoded %x", cmd, again)
		}
	})
}

func FuzzBatch(f *testing.F) {
	f.Add(AppendToBatch(AppendToBatch(nil, []byte("one")), []byte("two")))
	f.Fuzz(func(t *testing.T, batch []byte) {
		cmds, err := readAll(batch)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		var again []byte
		for _, cmd := range cmds {
			again = AppendToBatch(again, []byte(cmd))
		}
		if string(again) != string(batch) {
			t.Fatalf("read %x, wrote %x", batch, again)
		}
	})
}

// The context of a configuration change has one encoding, and only that is read.
func TestChangesOfTheConfiguration(t *testing.T) {
	for _, c := range []*MemberChange{
		{Change: AddMember, Member: 1 << 63, PeerURLs: []string{"http://a:1", "https://b:2"}},
		{Change: AddLearner, Member: 7, PeerURLs: []string{"http://a:1"}},
		{Change: RemoveMember, Member: 7}, {Change: PromoteMember, Member: 1},
	} {
		data := EncodeChange(c)
		got, err := DecodeChange(data)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
		for _, bad := range [][]byte{data[:len(data)-1], append(slices.Clone(data), 0)} {
			if _, err := DecodeChange(bad); !errors.Is(err, ErrMalformed) {
				t.Errorf("% x: %v", bad, err)
			}
		}
	}
	var unknown *UnknownError
	if _, err := DecodeChange([]byte{9, 1, 0}); !errors.As(err, &unknown) {
		t.Errorf("an unknown change: %v", err)
	}
}

// What the first programs published had no version; one of zeros is never written.
func TestAPublicationWithoutAVersion(t *testing.T) {
	cmd := Encode(nil, Header{}, &MemberPublish{Member: 1, Name: "n"})
	if c, err := Decode(cmd); err != nil || c.Body.(*MemberPublish).Version != (Version{}) {
		t.Errorf("%+v, %v", c.Body, err)
	}
	told := Encode(nil, Header{}, &MemberPublish{Member: 1, Name: "n", Version: Version{3, 7}})
	if c, err := Decode(told); err != nil || c.Body.(*MemberPublish).Version != (Version{3, 7}) || len(told) != len(cmd)+2 {
		t.Errorf("%+v, %v", c.Body, err)
	}
	for _, bad := range [][]byte{{0, 0}, {3}, {3, 7, 0}} {
		if _, err := Decode(append(cmd[:len(cmd):len(cmd)], bad...)); !errors.Is(err, ErrMalformed) {
			t.Errorf("% x: %v", bad, err)
		}
	}
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]Version{
		"3.7.1": {3, 7}, "3.7": {3, 7}, "3.0.0": {3, 0}, "3.10.0-alpha.1": {3, 10},
		"": {}, "3": {}, "not_decided": {}, "3.x.1": {}, "3.256.0": {}, "0.1.0": {}, "-3.1.0": {},
	} {
		if got, ok := ParseVersion(text); got != want || ok != (want != Version{}) {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	if v := (Version{3, 10}); !(Version{3, 9}).Before(v) || v.Before(v) || !v.Before(Version{4, 0}) || v.String() != "3.10.0" || (Version{}).String() != "" {
		t.Errorf("%v", v)
	}
}
