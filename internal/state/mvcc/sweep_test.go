package mvcc_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
)

// swept is what a sweep shows, so many rows at a time, put in order, each event as it
// comes back from its record.
func swept(t testing.TB, v *mvcc.View, key, end string, from, upto id.Revision, rows int, previous bool) []string {
	t.Helper()
	type event struct {
		main id.Revision
		sub  uint32
		text string
	}
	var list []event
	s := v.Sweep([]byte(key), []byte(end), from, upto, previous)
	show := func(e *mvcc.Event) error {
		var back mvcc.Event
		record := append(mvcc.AppendRecord([]byte("x"), e), "rest"...)
		if rest := mvcc.ReadRecord(record[1:], &back); string(rest) != "rest" || back.Sub != e.Sub || back.Deleted != e.Deleted || !bytes.Equal(back.Key, e.Key) {
			t.Fatalf("%+v comes back as %+v", e, back)
		}
		before, err := v.AppendPrevious(nil, e)
		if err != nil {
			return err
		}
		if len(before) > 0 && previous { // without any store
			known, err := new(mvcc.View).AppendPrevious(nil, &back)
			if err != nil || !bytes.Equal(known, before) {
				t.Fatalf("%s: the record has %x before, the store %x", told(t, &back), known, before)
			}
		}
		list = append(list, event{e.Revision, e.Sub, fmt.Sprintf("%s before %x", told(t, &back), before)})
		return nil
	}
	for more := true; more; {
		var err error
		if more, err = s.Next(rows, show); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(list, func(a, b event) int { return cmp.Or(cmp.Compare(a.main, b.main), cmp.Compare(a.sub, b.sub)) })
	texts := make([]string, len(list))
	for i, e := range list {
		texts[i] = e.text
	}
	return texts
}

// walked is the same as the history tells it, in the order of revisions.
func walked(t testing.TB, v *mvcc.View, covers func(key string) bool, from, upto id.Revision) (list []string) {
	t.Helper()
	past, err := v.Past(from)
	if err != nil {
		t.Fatal(err)
	}
	defer past.Close()
	var e mvcc.Event
	for {
		ok, err := past.Next(&e)
		if err != nil {
			t.Fatal(err)
		}
		if !ok || e.Revision > upto {
			break
		}
		if covers(string(e.Key)) {
			past.Keep(&e)
		}
	}
	if err := past.Load(1<<30, func() {}); err != nil {
		t.Fatal(err)
	}
	for i := range past.Kept() {
		if !past.Event(i, &e) {
			continue
		}
		previous, err := v.AppendPrevious(nil, &e)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%s before %x", told(t, &e), previous))
	}
	return list
}

// A sweep shows what the history tells, with what each change has superseded: keys that
// come and go and change twice in a revision, any range and stretch, however often the
// iterator is opened anew, before and after compactions.
func TestASweepShowsWhatTheHistoryTells(t *testing.T) {
	draw := rand.New(rand.NewPCG(3, 1))
	k := newStore(t)
	names := []string{"a", "a\x00", "ab", "b", "ba", "c"}
	alive := map[string]bool{}
	one := func(key string) any {
		if alive[key] && draw.IntN(3) == 0 {
			alive[key] = false
			return del(key, "")
		}
		alive[key] = true
		return put(key, strings.Repeat("v", draw.IntN(50)))
	}
	for range 300 {
		if draw.IntN(4) > 0 {
			k.must(one(names[draw.IntN(len(names))]))
			continue
		}
		var ops []command.Op
		for _, i := range draw.Perm(len(names))[:3] {
			switch r := one(names[i]).(type) {
			case *command.PutRequest:
				ops = append(ops, command.Op{Put: r})
			case *command.DeleteRangeRequest:
				ops = append(ops, command.Op{Delete: r})
			}
		}
		k.must(&command.TxnRequest{Success: ops})
	}
	compare := func(v *mvcc.View, least id.Revision) {
		t.Helper()
		for range 60 {
			from := least + id.Revision(draw.IntN(int(v.Revision-least)+1))
			upto := from + id.Revision(draw.IntN(int(v.Revision-from)+1))
			key, end := names[draw.IntN(len(names))], []string{"", "\x00", "b", "d"}[draw.IntN(4)]
			covers := func(name string) bool {
				switch end {
				case "":
					return name == key
				case "\x00":
					return name >= key
				}
				return name >= key && name < end
			}
			rows := 1 + draw.IntN(40)
			got, want := swept(t, v, key, end, from, upto, rows, draw.IntN(2) == 0), walked(t, v, covers, from, upto)
			if !slices.Equal(got, want) {
				t.Fatalf("%q to %q, %d to %d, %d rows at a time:\n%s\nwant\n%s", key, end, from, upto, rows, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	}
	compare(k.view.Load(), 2)
	before := k.view.Load()
	k.must(&command.CompactRequest{Revision: 150})
	compare(k.view.Load(), 150)
	for k.remove() {
	}
	compare(k.view.Load(), 150)
	s := before.Sweep([]byte("a"), []byte{0}, 149, before.Revision, false)
	if _, err := s.Next(10, func(*mvcc.Event) error { return nil }); !errors.Is(err, command.ErrCompacted) {
		t.Errorf("behind the compaction: %v", err)
	}
}

// BenchmarkSweep shows all events of the store of BenchmarkPast.
func BenchmarkSweep(b *testing.B) {
	const keys, rounds = 100_000, 5
	v := benchStore(b, keys, 256, rounds).view.Load()
	var record []byte
	done := 0
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		s := v.Sweep([]byte{0}, []byte{0}, 2, v.Revision, false)
		for more := true; more; {
			var err error
			if more, err = s.Next(2048, func(e *mvcc.Event) error {
				record = mvcc.AppendRecord(record[:0], e)
				done++
				return nil
			}); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(done), "ns/event")
}
