package mvcc_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// Slices put together are the appended range, whatever is asked, wherever they are
// cut, and wherever it is measured from; fences or not.
func TestSlicesAreTheRange(t *testing.T) {
	for _, leaf := range []int{0, 16} {
		t.Run(fmt.Sprint("leaves of ", leaf), func(t *testing.T) { slicesOf(t, leaf) })
	}
}

func slicesOf(t *testing.T, leaf int) {
	k, g := counted(t, 11, leaf)
	v := k.view.Load()
	cut, measured, refusals := 0, 0, 0
	for range 4000 {
		r := g.Range(v.Revision)
		if r.Validate() != nil || !r.KeyOrder() {
			continue
		}
		if g.Rand.Int64N(2) == 0 {
			r.Key, r.End = b("k"), b("l")
		}
		rev := r.Revision
		if rev <= 0 {
			rev = v.Revision
		}
		want, told, refused := v.AppendRange(nil, r, mvcc.AppendLimits{})
		made := mvcc.StartAt(r)
		var got []byte
		var seen mvcc.Place
		behind := g.Rand.Int64N(6) // slices, after which the rest is measured
		for n := int64(0); !made.Over; n++ {
			if n == behind {
				for seen = made.Clone(); !seen.Over; measured++ {
					if err := v.MeasureSlice(r, rev, &seen); !errors.Is(err, refused) {
						t.Fatalf("%s: measured: %v, want %v", model.Text(r), err, refused)
					} else if err != nil {
						break
					}
				}
				if made.Last = seen.Pairs; refused == nil && (seen.Bytes != int64(len(want)) || seen.Appended != told) {
					t.Fatalf("%s: measured %+v, it is %+v with %d bytes", model.Text(r), seen, told, len(want))
				}
			}
			room := g.Rand.Int64N(200)
			most := mvcc.PageLimits{Keys: g.Rand.Int64N(4), Bytes: int(g.Rand.Int64N(2) * g.Rand.Int64N(150))}
			dst := append(make([]byte, 0, 2+room), "ab"...)
			out, err := v.AppendSlice(dst, r, rev, &made, most)
			if !errors.Is(err, refused) || !bytes.HasPrefix(out, []byte("ab")) {
				t.Fatalf("%s: %v, want %v", model.Text(r), err, refused)
			}
			if err != nil {
				refusals++
				break
			}
			if cut++; len(out) == 2 && !made.Over && !r.CountOnly && !r.Filtered() && r.Limit <= 0 {
				t.Fatalf("%s: nothing was appended, and it is not over: %+v", model.Text(r), made)
			}
			got = append(got, out[2:]...)
		}
		if refused != nil {
			continue
		}
		if made.Last < 0 && made.Appended != told || !bytes.Equal(got, want) {
			t.Fatalf("%s: %+v, want %+v\n%x\n%x", model.Text(r), made, told, got, want)
		}
	}
	if cut < 3000 || measured < 500 || refusals < 50 {
		t.Fatalf("%d slices, %d measured, %d ranges refused", cut, measured, refusals)
	}
}

// One pair at least is appended however small the room, and a slice ends after a
// megabyte of rows although the answer, of keys alone, is small.
func TestASliceHasOnePairAndAMegabyteOfRows(t *testing.T) {
	k := newStore(t)
	for i := range 5 {
		k.must(put(fmt.Sprint("k", i), string(make([]byte, 400<<10))))
	}
	v := k.view.Load()
	r := get("k", "l")
	at := mvcc.StartAt(r)
	for i := int64(1); i <= 5; i++ {
		if out, err := v.AppendSlice(nil, r, v.Revision, &at, mvcc.PageLimits{}); err != nil || at.Pairs != i || len(out) < 400<<10 {
			t.Fatalf("slice %d: %+v, %v", i, at, err)
		}
	}
	r.KeysOnly = true
	at = mvcc.StartAt(r)
	if _, err := v.AppendSlice(make([]byte, 0, 1000), r, v.Revision, &at, mvcc.PageLimits{}); err != nil || at.Over || at.Pairs != 3 {
		t.Fatalf("the keys of rows of 400 KB: %+v, %v", at, err)
	}
}

// A compaction that passes the revision ends the walk, which is where it was.
func TestASliceBehindACompaction(t *testing.T) {
	k := newStore(t)
	for i := range 9 {
		k.must(put(fmt.Sprint("k", i), "v"))
	}
	r := get("k", "l")
	rev := k.view.Load().Revision
	at := mvcc.StartAt(r)
	if _, err := k.view.Load().AppendSlice(make([]byte, 0, 1000), r, rev, &at, mvcc.PageLimits{Keys: 4}); err != nil || at.Pairs != 4 {
		t.Fatalf("%+v, %v", at, err)
	}
	was := at.Clone()
	k.must(put("k0", "w"))
	k.must(compact(rev + 1))
	dst, err := k.view.Load().AppendSlice([]byte("before"), r, rev, &at, mvcc.PageLimits{})
	if !errors.Is(err, command.ErrCompacted) || string(dst) != "before" || at.Pairs != was.Pairs || !bytes.Equal(at.From, was.From) {
		t.Errorf("%q, %+v, %v", dst, at, err)
	}
}
