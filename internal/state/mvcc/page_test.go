package mvcc_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/mvcc"
	"github.com/kvorum/kvorum/internal/testkit/model"
)

// Pages put together are the range, at every revision and whatever ends a page.
func TestPagesAreTheRange(t *testing.T) {
	k := newStore(t)
	g := &model.Generator{Rand: rand.New(rand.NewPCG(3, 9)), Keys: 40}
	for range 400 {
		_, _ = k.do(g.Put())
		_, _ = k.do(g.DeleteRange())
		_, _ = k.do(g.Put())
	}
	v := k.view.Load()
	pages := 0
	for range 3000 {
		r := g.Range(v.Revision)
		if r.Validate() != nil || r.Revision <= 0 {
			continue
		}
		if g.Rand.Int64N(2) == 0 {
			r.Key, r.End = b("k"), b("l")
		}
		plain := &command.RangeRequest{Key: r.Key, End: r.End, Revision: r.Revision, KeysOnly: r.KeysOnly}
		want, refused := v.Range(plain)
		got := &command.RangeResponse{Revision: v.Revision}
		most := mvcc.PageLimits{Keys: g.Rand.Int64N(6), Bytes: int(g.Rand.Int64N(200))}
		for next := *plain; ; pages++ {
			page, err := v.Page(&next, r.Revision, most)
			if !errors.Is(err, refused) {
				t.Fatalf("%s: %v, want %v", model.Text(plain), err, refused)
			}
			if err != nil {
				break
			}
			if n := int64(len(page.KVs)); most.Keys > 0 && n > most.Keys || page.Next != nil && n == 0 {
				t.Fatalf("a page of %d keys, most %+v, next %q", n, most, page.Next)
			}
			got.KVs = append(got.KVs, page.KVs...)
			if next.Key = page.Next; next.Key == nil {
				break
			}
		}
		if refused != nil {
			continue
		}
		got.Count = int64(len(got.KVs))
		if a, b := model.Text(got), model.Text(want); a != b {
			t.Fatalf("%s by %+v:\n%s\n%s", model.Text(plain), most, a, b)
		}
	}
	if pages < 500 {
		t.Fatalf("only %d pages were turned", pages)
	}
}
