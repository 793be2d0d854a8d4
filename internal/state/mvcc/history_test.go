package mvcc_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// told is an event as a client would read it.
func told(t testing.TB, e *mvcc.Event) string {
	t.Helper()
	var m mvccpb.Event
	if err := proto.Unmarshal(e.Body, &m); err != nil || m.Kv.ModRevision != int64(e.Revision) || !bytes.Equal(m.Kv.Key, e.Key) {
		t.Fatalf("%v of %+v: %v", &m, e, err)
	}
	value := m.Kv.Value
	return fmt.Sprintf("%d %s %q %d bytes %.1q", e.Revision, m.Type, m.Kv.Key, len(value), value)
}

// loaded is all that a walk from a revision on has once at most so many bytes of it
// were loaded.
func loaded(t testing.TB, v *mvcc.View, from id.Revision, most int) (list []string, past *mvcc.Past) {
	t.Helper()
	past, err := v.Past(from)
	if err != nil {
		t.Fatal(err)
	}
	var e mvcc.Event
	for ok := true; ok; {
		if ok, err = past.Next(&e); err != nil {
			t.Fatal(err)
		}
		if ok {
			past.Keep(&e)
		}
	}
	if err := past.Load(most, func() {}); err != nil {
		t.Fatal(err)
	}
	past.Close() // what was loaded outlives it
	sum := 0
	for i := range past.Kept() {
		if !past.Event(i, &e) {
			continue
		}
		if size, main := past.Size(i); size != len(e.Body) || main != e.Revision {
			t.Fatalf("event %d has %d bytes, is said to have %d", i, len(e.Body), size)
		}
		sum += len(e.Body)
		list = append(list, told(t, &e))
	}
	if sum != past.Bytes() || past.Memory() < sum {
		t.Fatalf("%d bytes, is said to be %d, and %d in memory", sum, past.Bytes(), past.Memory())
	}
	return list, past
}

// What is read in the order of keys comes out in the order of revisions: whatever keys
// have in common, be one the beginning of another or end in what others are filled up
// with, and whether values are small or longer than a page of bodies.
func TestThePastComesInItsOrder(t *testing.T) {
	keys := []string{"a", "a\x00", "a\x00\x00", "aaaaaaaa", "aaaaaaaab", "aaaaaaaaa\x00", "aaaaaaaaa", "ab", "aaaaaaa\xff\xff\xff\xff\xff\xff\xff\xff", "b"}
	for _, common := range []string{"", "/registry/pods/default/"} {
		k := newStore(t)
		draw := rand.New(rand.NewPCG(7, uint64(len(common))))
		alive := map[string]bool{}
		var want []string
		for rev := 2; rev < 500; rev++ {
			key := common + keys[draw.IntN(len(keys))]
			if alive[key] && draw.IntN(4) == 0 {
				k.must(del(key, ""))
				alive[key] = false
				want = append(want, fmt.Sprintf("%d DELETE %q 0 bytes %.1q", rev, key, ""))
				continue
			}
			size := draw.IntN(300)
			if draw.IntN(50) == 0 {
				size = draw.IntN(600_000)
			}
			value := strings.Repeat(string(rune('a'+draw.IntN(26))), size)
			k.must(put(key, value))
			alive[key] = true
			want = append(want, fmt.Sprintf("%d PUT %q %d bytes %.1q", rev, key, size, value))
		}
		for _, from := range []int{2, 3, 250, 498, 499} {
			got, _ := loaded(t, k.view.Load(), id.Revision(from), 1<<30)
			if !slices.Equal(got, want[from-2:]) {
				t.Fatalf("from %d:\n%s\nwant\n%s", from, strings.Join(got, "\n"), strings.Join(want[from-2:], "\n"))
			}
		}
		// Of more than is allowed the beginning is left, whole revisions.
		got, past := loaded(t, k.view.Load(), 2, 100_000)
		if n := len(got); n == 0 || n > 400 || past.Bytes() > 700_000 || !slices.Equal(got, want[:n]) || past.Upto() != id.Revision(n+1) {
			t.Fatalf("%d of %d bytes up to %d:\n%s", n, past.Bytes(), past.Upto(), strings.Join(got, "\n"))
		}
	}
}

// BenchmarkPast reads the past of 100,000 keys that were put five times each in turn,
// so many events at a time.
func BenchmarkPast(b *testing.B) {
	const keys, rounds = 100_000, 5
	k := benchStore(b, keys, 256, rounds)
	v := k.view.Load()
	for _, events := range []int{4000, 48_000, 96_000} {
		b.Run(fmt.Sprint(events), func(b *testing.B) {
			b.ReportAllocs()
			done := 0
			for i := range b.N {
				past, err := v.Past(id.Revision(2 + (i*events)%(keys*rounds-events)))
				if err != nil {
					b.Fatal(err)
				}
				var e mvcc.Event
				for range events {
					if ok, err := past.Next(&e); !ok || err != nil {
						b.Fatal(ok, err)
					}
					past.Keep(&e)
				}
				if err := past.Load(1<<30, func() {}); err != nil {
					b.Fatal(err)
				}
				past.Close()
				done += events
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(done), "ns/event")
		})
	}
}
