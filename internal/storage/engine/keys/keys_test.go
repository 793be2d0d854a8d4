package keys

import (
	"bytes"
	"encoding/hex"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kvorum/kvorum/internal/id"
)

// TestBytesOfTheFormat pins the worked example of docs/format/engine-keys.md: a
// store written today must be read for ever.
func TestBytesOfTheFormat(t *testing.T) {
	for _, c := range []struct {
		name string
		key  []byte
		want string
		text string
	}{
		{"version", AppendVersion(nil, 1, []byte("foo"), 5, 2), "00000001" + "64" + "666f6f" + "00" + "fffffffffffffffa" + "fffffffd" + "0d", `1/d/"foo"@5.2`},
		{"at or below", AppendAtOrBelow(nil, 1, []byte("foo"), 5), "00000001" + "64" + "666f6f" + "00" + "fffffffffffffffa" + "00000000" + "0d", `1/d/"foo"@5.4294967295`},
		{"user key", AppendUserKey(nil, 1, []byte("foo")), "00000001" + "64" + "666f6f" + "00", `1/d/"foo"`},
		{"after user key", AppendAfterUserKey(nil, 1, []byte("foo")), "00000001" + "64" + "666f6f" + "0000", `1/d/"foo\x00"`},
		{"data end", AppendDataEnd(nil, 1), "00000001" + "65" + "00", "000000016500"},
		{"history", AppendHistory(nil, 258, 5, 2), "00000102" + "72" + "0000000000000005" + "00000002" + "00", "258/r/5.2"},
		{"history end", AppendHistoryEnd(nil, 1), "00000001" + "73" + "00", "000000017300"},
		{"meta", AppendMeta(nil, 1, "applied"), "00000001" + "6d" + "6170706c696564" + "00", "1/m/applied"},
		{"lease", AppendLease(nil, 1, 0x11), "00000001" + "6c" + "0000000000000011" + "00", "1/l/0000000000000011"},
		{"leases", AppendLeases(nil, 1), "00000001" + "6c" + "00", "000000016c00"},
		{"leases end", AppendLeasesEnd(nil, 1), "00000001" + "6d" + "00", "1/m/"},
		{"attached", AppendAttached(nil, 1, -2, []byte("foo")), "00000001" + "6b" + "fffffffffffffffe" + "666f6f" + "00", `1/k/fffffffffffffffe/"foo"`},
		{"attached end", AppendAttachedEnd(nil, 1, -2), "00000001" + "6b" + "ffffffffffffffff" + "00", "000000016bffffffffffffffff00"},
		{"last attached end", AppendAttachedEnd(nil, 1, -1), "00000001" + "6c" + "00", "000000016c00"},
		{"group start", AppendGroupStart(nil, 1), "00000001" + "00" + "00", "000000010000"},
		{"group end", AppendGroupEnd(nil, 1), "00000001" + "ff" + "00", "00000001ff00"},
	} {
		if got := hex.EncodeToString(c.key); got != c.want {
			t.Errorf("%s is %s, want %s", c.name, got, c.want)
		}
		if got := Text(c.key).String(); got != c.text {
			t.Errorf("%s prints as %s, want %s", c.name, got, c.text)
		}
		if !Valid(c.key) {
			t.Errorf("%s does not have the shape of a key", c.name)
		}
	}
	if OrderName != "kvorum.v1" {
		t.Errorf("the order's name is in every store and cannot become %q", OrderName)
	}
}

// userKeys draws keys that are easily beginnings of one another and that are full
// of the bytes which mean something in the format.
func userKeys() *rapid.Generator[[]byte] {
	return rapid.SliceOfN(rapid.SampledFrom([]byte{0, 0, 1, 13, 'a', 'b', 0xfe, 0xff}), 0, 18)
}

type version struct {
	group id.Group
	user  []byte
	main  id.Revision
	sub   uint32
}

func versions() *rapid.Generator[version] {
	return rapid.Custom(func(t *rapid.T) version {
		return version{
			group: id.Group(rapid.SampledFrom([]uint32{0, 1, 2, 256, math.MaxUint32}).Draw(t, "group")),
			user:  userKeys().Draw(t, "user"),
			main:  id.Revision(rapid.SampledFrom([]int64{0, 1, 2, 255, 256, 1 << 40, math.MaxInt64}).Draw(t, "main")),
			sub:   rapid.SampledFrom([]uint32{0, 1, 13, 255, LastSub}).Draw(t, "sub"),
		}
	})
}

func (v version) key() []byte { return AppendVersion(nil, v.group, v.user, v.main, v.sub) }

// order is what Compare must say, in plain words: by group, by user key, newest
// first.
func (v version) order(w version) int {
	switch {
	case v.group != w.group:
		return sign(v.group < w.group)
	case !bytes.Equal(v.user, w.user):
		return bytes.Compare(v.user, w.user)
	case v.main != w.main:
		return sign(v.main > w.main)
	case v.sub != w.sub:
		return sign(v.sub > w.sub)
	}
	return 0
}

func sign(less bool) int {
	if less {
		return -1
	}
	return 1
}

func TestVersionsSortByUserKeyThenNewestFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, w := versions().Draw(t, "v"), versions().Draw(t, "w")
		if got, want := Compare(v.key(), w.key()), v.order(w); got != want {
			t.Fatalf("Compare(%s, %s) = %d, want %d", Text(v.key()), Text(w.key()), got, want)
		}
		if Equal(v.key(), w.key()) != (v.order(w) == 0) {
			t.Fatalf("Equal(%s, %s) does not agree", Text(v.key()), Text(w.key()))
		}
	})
}

func TestBoundsEncloseWhatTheyName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, w := versions().Draw(t, "v"), versions().Draw(t, "w")
		w.group = v.group
		key := w.key()
		within := func(lower, upper []byte) bool { return Compare(lower, key) <= 0 && Compare(key, upper) < 0 }
		for _, c := range []struct {
			name      string
			got, want bool
		}{
			{"the versions of a key", within(AppendUserKey(nil, v.group, v.user), AppendAfterUserKey(nil, v.group, v.user)), bytes.Equal(v.user, w.user)},
			{"the keys from one on", within(AppendUserKey(nil, v.group, v.user), AppendDataEnd(nil, v.group)), bytes.Compare(v.user, w.user) <= 0},
			{"the keys before one", within(AppendUserKey(nil, v.group, nil), AppendUserKey(nil, v.group, v.user)), bytes.Compare(w.user, v.user) < 0},
			{"the versions at or below", within(AppendAtOrBelow(nil, v.group, v.user, v.main), AppendAfterUserKey(nil, v.group, v.user)), bytes.Equal(v.user, w.user) && w.main <= v.main},
			{"the group", within(AppendGroupStart(nil, v.group), AppendGroupEnd(nil, v.group)), true},
			{"the next group", within(AppendGroupStart(nil, v.group+1), AppendGroupEnd(nil, v.group+1)), false},
			{"the history", within(AppendHistory(nil, v.group, 0, 0), AppendHistoryEnd(nil, v.group)), false},
			{"the meta rows", within(AppendMeta(nil, v.group, ""), AppendMeta(nil, v.group, "\xff")), false},
		} {
			if c.got != c.want {
				t.Fatalf("%s of %s: %s inside is %v, want %v", c.name, Text(v.key()), Text(key), c.got, c.want)
			}
		}
	})
}

func TestRowsOfAGroupStayInItsSpan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, w := versions().Draw(t, "v"), versions().Draw(t, "w")
		h, i := AppendHistory(nil, v.group, v.main, v.sub), AppendHistory(nil, v.group, w.main, w.sub)
		want := 0
		switch {
		case v.main != w.main:
			want = sign(v.main < w.main)
		case v.sub != w.sub:
			want = sign(v.sub < w.sub)
		}
		if got := Compare(h, i); got != want {
			t.Fatalf("history %s against %s is %d, want %d", Text(h), Text(i), got, want)
		}
		m := AppendMeta(nil, v.group, string(v.user))
		l := AppendLease(nil, v.group, id.Lease(v.main))
		k := AppendAttached(nil, v.group, id.Lease(v.main), append([]byte{}, v.user...))
		for _, key := range [][]byte{h, m, l, k} {
			if Compare(AppendGroupStart(nil, v.group), key) > 0 || Compare(key, AppendGroupEnd(nil, v.group)) >= 0 {
				t.Fatalf("%s is outside its group", Text(key))
			}
		}
		if Compare(AppendLeases(nil, v.group), l) > 0 || Compare(l, AppendLeasesEnd(nil, v.group)) >= 0 {
			t.Fatalf("%s is outside the leases", Text(l))
		}
		for _, span := range [][2][]byte{
			{AppendAllAttached(nil, v.group), AppendAllAttachedEnd(nil, v.group)},
			{AppendAttached(nil, v.group, id.Lease(v.main), nil), AppendAttachedEnd(nil, v.group, id.Lease(v.main))},
		} {
			if Compare(span[0], k) > 0 || Compare(k, span[1]) >= 0 {
				t.Fatalf("%s is outside of %s, %s", Text(k), Text(span[0]), Text(span[1]))
			}
		}
		if Compare(AppendHistory(nil, v.group, 0, 0), h) > 0 || Compare(h, AppendHistoryEnd(nil, v.group)) >= 0 {
			t.Fatalf("%s is outside the history", Text(h))
		}
	})
}

// anyKeys draws keys and bounds of all kinds.
func anyKeys() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		v := versions().Draw(t, "version")
		return [][]byte{
			v.key(), v.key(), AppendUserKey(nil, v.group, v.user), AppendAfterUserKey(nil, v.group, v.user),
			AppendDataEnd(nil, v.group), AppendHistory(nil, v.group, v.main, v.sub), AppendHistoryEnd(nil, v.group),
			AppendMeta(nil, v.group, string(v.user)), AppendGroupStart(nil, v.group), AppendGroupEnd(nil, v.group),
			AppendLease(nil, v.group, id.Lease(v.main)), AppendAttached(nil, v.group, id.Lease(v.main), v.user),
		}[rapid.IntRange(0, 11).Draw(t, "kind")]
	})
}

// TestShortcutsAgreeWithTheOrder covers what Pebble's own check does not: the
// functions that make keys out of keys.
func TestShortcutsAgreeWithTheOrder(t *testing.T) {
	shorter := 0
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyKeys().Draw(t, "a"), anyKeys().Draw(t, "b")
		if Compare(a, b) > 0 {
			a, b = b, a
		}
		before := slices.Clone(a)
		if Compare(a, b) < 0 {
			if Abbreviate(a) > Abbreviate(b) {
				t.Fatalf("%s and %s abbreviate the wrong way round", Text(a), Text(b))
			}
			k := AppendSeparator([]byte("x"), a, b)
			if k[0] != 'x' {
				t.Fatal("the separator does not append")
			}
			if k = k[1:]; !Valid(k) || Compare(a, k) > 0 || Compare(k, b) >= 0 || len(k) > len(a) {
				t.Fatalf("separator of %x and %x is %x", a, b, k)
			}
			if len(k) < len(a) {
				shorter++
			}
		}
		if k := AppendSuccessor(nil, a); !Valid(k) || Compare(a, k) > 0 || len(k) > len(a) {
			t.Fatalf("successor of %x is %x", a, k)
		}
		prefix := a[:Split(a)]
		next := AppendImmediateSuccessor(nil, prefix)
		if !Valid(next) || Split(next) != len(next) || Compare(prefix, next) >= 0 {
			t.Fatalf("immediate successor of %x is %x", prefix, next)
		}
		if other := b[:Split(b)]; Compare(prefix, other) < 0 && Compare(other, next) < 0 {
			t.Fatalf("%x lies between %x and its immediate successor", other, prefix)
		}
		if !bytes.Equal(a, before) {
			t.Fatal("an argument was changed")
		}
	})
	if shorter == 0 {
		t.Error("no separator was ever shorter than its key")
	}
	if k := AppendSuccessor(nil, nil); !Valid(k) {
		t.Errorf("successor of nothing is %x", k)
	}
}

func TestDecodersUndoBuilders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := versions().Draw(t, "v")
		group, user, main, sub, ok := DecodeVersion(v.key())
		if !ok || group != v.group || !bytes.Equal(user, v.user) || main != v.main || sub != v.sub {
			t.Fatalf("version %+v comes back as %d %x %d %d %v", v, group, user, main, sub, ok)
		}
		if group, user, ok := DecodeUserKey(AppendUserKey(nil, v.group, v.user)); !ok || group != v.group || !bytes.Equal(user, v.user) {
			t.Fatalf("user key %x comes back as %d %x %v", v.user, group, user, ok)
		}
		if group, main, sub, ok := DecodeHistory(AppendHistory(nil, v.group, v.main, v.sub)); !ok || group != v.group || main != v.main || sub != v.sub {
			t.Fatalf("history %+v comes back as %d %d %d %v", v, group, main, sub, ok)
		}
		if group, name, ok := DecodeMeta(AppendMeta(nil, v.group, string(v.user))); !ok || group != v.group || !bytes.Equal(name, v.user) {
			t.Fatalf("meta %x comes back as %d %x %v", v.user, group, name, ok)
		}
		lease := id.Lease(rapid.Int64().Draw(t, "lease"))
		if group, got, ok := DecodeLease(AppendLease(nil, v.group, lease)); !ok || group != v.group || got != lease {
			t.Fatalf("lease %d comes back as %d %d %v", lease, group, got, ok)
		}
		if len(v.user) > 0 {
			group, got, user, ok := DecodeAttached(AppendAttached(nil, v.group, lease, v.user))
			if !ok || group != v.group || got != lease || !bytes.Equal(user, v.user) {
				t.Fatalf("%x of lease %d comes back as %d %d %x %v", v.user, lease, group, got, user, ok)
			}
		}
		if group, ok := GroupOf(v.key()); !ok || group != v.group {
			t.Fatalf("group of %x is %d %v", v.key(), group, ok)
		}
	})
}

func TestBuildersDoNotAllocateWithABuffer(t *testing.T) {
	buf, user := make([]byte, 0, 128), []byte("a/user/key")
	if n := testing.AllocsPerRun(100, func() {
		buf = AppendVersion(buf[:0], 1, user, 7, 0)
		buf = AppendAfterUserKey(buf[:0], 1, user)
		buf = AppendHistory(buf[:0], 1, 7, 0)
		buf = AppendMeta(buf[:0], 1, "applied")
		_ = Compare(buf, user)
		DecodeVersion(buf)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzDecode gives the decoders any bytes: they accept exactly what the builders
// make.
func FuzzDecode(f *testing.F) {
	for _, key := range [][]byte{
		nil, {0}, {13}, AppendVersion(nil, 1, []byte("foo"), 5, 2), AppendUserKey(nil, 1, nil),
		AppendHistory(nil, 1, 5, 2), AppendMeta(nil, 1, "applied"), AppendGroupEnd(nil, 1),
		AppendLease(nil, 1, 17), AppendAttached(nil, 1, 17, []byte("foo")),
		bytes.Repeat([]byte{13}, 13), bytes.Repeat([]byte{13}, 40),
	} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		if n := Split(key); n < 0 || n > len(key) {
			t.Fatalf("Split(%x) = %d", key, n)
		}
		if group, user, main, sub, ok := DecodeVersion(key); ok != (KindOf(key) == Data) || ok && !bytes.Equal(AppendVersion(nil, group, user, main, sub), key) {
			t.Fatalf("%x decodes as version %d %x %d %d", key, group, user, main, sub)
		}
		if group, main, sub, ok := DecodeHistory(key); ok != (KindOf(key) == History) || ok && !bytes.Equal(AppendHistory(nil, group, main, sub), key) {
			t.Fatalf("%x decodes as history %d %d %d", key, group, main, sub)
		}
		if group, name, ok := DecodeMeta(key); ok != (KindOf(key) == Meta) || ok && !bytes.Equal(AppendMeta(nil, group, string(name)), key) {
			t.Fatalf("%x decodes as meta %d %x", key, group, name)
		}
		if group, lease, ok := DecodeLease(key); ok != (KindOf(key) == Lease) || ok && !bytes.Equal(AppendLease(nil, group, lease), key) {
			t.Fatalf("%x decodes as lease %d %d", key, group, lease)
		}
		if group, lease, user, ok := DecodeAttached(key); ok != (KindOf(key) == Attached) || ok && !bytes.Equal(AppendAttached(nil, group, lease, user), key) {
			t.Fatalf("%x decodes as attached %d %d %x", key, group, lease, user)
		}
		if group, user, ok := DecodeUserKey(key); ok && !bytes.Equal(AppendUserKey(nil, group, user), key) {
			t.Fatalf("%x decodes as user key %d %x", key, group, user)
		}
		if KindOf(key) != Other && !Valid(key) {
			t.Fatalf("%x is a row but no key", key)
		}
		_ = Text(key).String()
	})
}

// FuzzCompare gives the order any bytes: it stays an order.
func FuzzCompare(f *testing.F) {
	f.Add(AppendVersion(nil, 1, []byte("a"), 5, 2), AppendVersion(nil, 1, []byte("a\x00b"), 5, 2), []byte{13})
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		if Compare(a, b) != -Compare(b, a) || (Compare(a, b) == 0) != Equal(a, b) {
			t.Fatalf("%x and %x are not ordered", a, b)
		}
		if Compare(a, b) <= 0 && Compare(b, c) <= 0 && Compare(a, c) > 0 {
			t.Fatalf("%x, %x, %x go round", a, b, c)
		}
	})
}

func BenchmarkCompare(b *testing.B) {
	x := AppendVersion(nil, 1, []byte("registry/pods/default/a-pod-name-1"), 1000, 0)
	y := AppendVersion(nil, 1, []byte("registry/pods/default/a-pod-name-2"), 1000, 0)
	for b.Loop() {
		Compare(x, y)
	}
}
