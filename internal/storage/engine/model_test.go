package engine_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// model is the store that is obviously right: a sorted slice.
type model []row

type row struct{ key, value []byte }

func (m model) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(m, key, func(r row, key []byte) int { return keys.Compare(r.key, key) })
}

// set and remove return a new model: what was handed out stays as it is.
func (m model) set(key, value []byte) model {
	i, found := m.find(key)
	if found {
		m = slices.Clone(m)
		m[i].value = value
		return m
	}
	return slices.Insert(slices.Clone(m), i, row{key, value})
}

func (m model) remove(key []byte) model {
	i, found := m.find(key)
	if !found {
		return m
	}
	return slices.Delete(slices.Clone(m), i, i+1)
}

func (m model) within(lower, upper []byte) model {
	var out model
	for _, r := range m {
		if (lower == nil || keys.Compare(lower, r.key) <= 0) && (upper == nil || keys.Compare(r.key, upper) < 0) {
			out = append(out, r)
		}
	}
	return out
}

// cursor walks a model as engine.Iterator promises.
type cursor struct {
	rows    model
	at      int // -1 before the rows, len(rows) after them
	started bool
}

func (c *cursor) valid() bool { return c.started && c.at >= 0 && c.at < len(c.rows) }

func (c *cursor) seekGE(key []byte) { c.at, _ = c.rows.find(key); c.started = true }

func (c *cursor) seekLT(key []byte) {
	c.at, _ = c.rows.find(key)
	c.at--
	c.started = true
}

func (c *cursor) next() {
	if !c.started {
		c.at = -1
	}
	c.at, c.started = min(c.at+1, len(c.rows)), true
}

func (c *cursor) nextPrefix() {
	prefix := c.rows[c.at].key
	prefix = prefix[:keys.Split(prefix)]
	for c.next(); c.valid() && bytes.HasPrefix(c.rows[c.at].key, prefix) && keys.Split(c.rows[c.at].key) == len(prefix); c.next() {
	}
}

func (c *cursor) prev() {
	if !c.started {
		c.at = len(c.rows)
	}
	c.at, c.started = max(c.at-1, -1), true
}

// drawKey draws keys and bounds of every kind from a space small enough that
// they meet each other.
func drawKey(t *rapid.T, label string) []byte {
	group := id.Group(rapid.IntRange(1, 2).Draw(t, label+" group"))
	user := []byte(rapid.SampledFrom([]string{"", "a", "a\x00", "a\x00b", "a\r", "b", "b\xff"}).Draw(t, label+" user"))
	main := id.Revision(rapid.IntRange(1, 6).Draw(t, label+" main"))
	switch rapid.IntRange(0, 9).Draw(t, label+" kind") {
	case 0:
		return keys.AppendMeta(nil, group, string(user))
	case 1:
		return keys.AppendHistory(nil, group, main, 0)
	default:
		return keys.AppendVersion(nil, group, user, main, 0)
	}
}

func drawBound(t *rapid.T, label string) []byte {
	group := id.Group(rapid.IntRange(1, 2).Draw(t, label+" group"))
	user := []byte(rapid.SampledFrom([]string{"", "a", "a\x00", "b"}).Draw(t, label+" user"))
	switch rapid.IntRange(0, 6).Draw(t, label+" kind") {
	case 0:
		return nil
	case 1:
		return keys.AppendUserKey(nil, group, user)
	case 2:
		return keys.AppendAfterUserKey(nil, group, user)
	case 3:
		return keys.AppendDataEnd(nil, group)
	case 4:
		return keys.AppendGroupEnd(nil, group)
	default:
		return drawKey(t, label)
	}
}

// drawRange draws bounds, among them often those of a point read.
func drawRange(t *rapid.T, label string) (lower, upper []byte) {
	if rapid.IntRange(0, 2).Draw(t, label) == 0 {
		group := id.Group(rapid.IntRange(1, 2).Draw(t, label+" group"))
		user := []byte(rapid.SampledFrom([]string{"", "a", "a\x00", "b", "nobody"}).Draw(t, label+" user"))
		lower = keys.AppendAtOrBelow(nil, group, user, id.Revision(rapid.IntRange(0, 6).Draw(t, label+" main")))
		return lower, keys.AppendAfterUserKey(nil, group, user)
	}
	lower, upper = drawBound(t, label+" lower"), drawBound(t, label+" upper")
	if lower != nil && upper != nil && keys.Compare(lower, upper) > 0 {
		lower, upper = upper, lower
	}
	return lower, upper
}

// world is a store, its model, and what was taken from it and must not move.
type world struct {
	b     body
	fs    *vfs.MemFS
	db    engine.DB
	rows  model
	iters []*heldIter
	saves []heldSave
	made  int
}

type heldIter struct {
	it           engine.Iterator
	all          model // that it sees, of whatever range
	cur          *cursor
	lower, upper []byte
}

type heldSave struct {
	cp   engine.Checkpoint
	rows model
}

func TestBothBodiesAgreeWithAMap(t *testing.T) {
	eachBody(t, func(t *testing.T, b body) {
		rapid.Check(t, func(rt *rapid.T) {
			w := &world{b: b, fs: vfs.NewMem()}
			w.db = mustOpen(t, b, w.fs)
			rt.Repeat(map[string]func(*rapid.T){
				"commit":     w.commit,
				"get":        w.get,
				"iterate":    w.iterate,
				"move":       w.move,
				"flush":      w.flush,
				"install":    w.install,
				"checkpoint": w.checkpoint,
				"saved":      w.saved,
				"reopen":     w.reopen,
				"":           func(*rapid.T) { w.db.Turn(0) },
			})
			w.letGo(rt)
			must(t, w.db.Close())
		})
	})
}

func check(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) commit(t *rapid.T) {
	b := w.db.NewBatch()
	defer b.Close()
	for range rapid.IntRange(0, 12).Draw(t, "writes") {
		key := drawKey(t, "write")
		if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
			b.Delete(key)
			w.rows = w.rows.remove(key)
			continue
		}
		w.made++
		value := fmt.Appendf(nil, "%d", w.made)
		b.Set(key, value)
		w.rows = w.rows.set(bytes.Clone(key), bytes.Clone(value))
		clear(key) // the batch has its own copies
		clear(value)
	}
	check(t, w.db.Commit(b))
}

func (w *world) get(t *rapid.T) { w.compareGet(t, w.db, w.rows) }

func (w *world) compareGet(t *rapid.T, r engine.Reader, rows model) {
	key := drawKey(t, "get")
	got, err := r.Get(key, nil)
	i, found := rows.find(key)
	switch {
	case err == engine.ErrNotFound && !found:
	case err != nil:
		t.Fatalf("Get(%s): %v, the model has it: %v", keys.Text(key), err, found)
	case !found || !bytes.Equal(got, rows[i].value):
		t.Fatalf("Get(%s) = %s; the model has it: %v", keys.Text(key), got, found)
	}
}

func (w *world) iterate(t *rapid.T) {
	w.hold(t, w.db, w.rows)
}

func (w *world) hold(t *rapid.T, r engine.Reader, rows model) {
	if len(w.iters) >= 4 {
		check(t, w.iters[0].it.Close())
		w.iters = w.iters[1:]
	}
	lower, upper := drawRange(t, "range")
	it, err := r.Iter(lower, upper)
	check(t, err)
	w.iters = append(w.iters, &heldIter{it, rows, &cursor{rows: rows.within(lower, upper)}, bytes.Clone(lower), bytes.Clone(upper)})
	// The iterator keeps its own copy of the bounds.
	clear(lower)
	clear(upper)
}

// move makes a mix of moves with one of the open iterators, old or new.
func (w *world) move(t *rapid.T) {
	if len(w.iters) == 0 {
		t.Skip("no iterator is open")
	}
	h := rapid.SampledFrom(w.iters).Draw(t, "iterator")
	for range rapid.IntRange(1, 8).Draw(t, "moves") {
		var name string
		var got bool
		switch rapid.IntRange(0, 7).Draw(t, "move") {
		case 0:
			key := h.seekTarget(t)
			if key == nil {
				continue
			}
			h.cur.seekGE(key)
			name, got = "SeekGE "+keys.Text(key).String(), h.it.SeekGE(key)
		case 1:
			key := h.seekTarget(t)
			if key == nil {
				continue
			}
			h.cur.seekLT(key)
			name, got = "SeekLT "+keys.Text(key).String(), h.it.SeekLT(key)
		case 2, 3:
			h.cur.next()
			name, got = "Next", h.it.Next()
		case 4:
			if !h.cur.valid() {
				continue
			}
			h.cur.nextPrefix()
			name, got = "NextPrefix", h.it.NextPrefix()
		case 5:
			h.bound(t)
			name, got = "Bound", h.it.Valid()
		default:
			h.cur.prev()
			name, got = "Prev", h.it.Prev()
		}
		want := h.cur.valid()
		if got != want || h.it.Valid() != want {
			t.Fatalf("%s says %v, Valid %v, want %v (err %v)", name, got, h.it.Valid(), want, h.it.Err())
		}
		if !want {
			check(t, h.it.Err())
			continue
		}
		value, err := h.it.Value()
		check(t, err)
		if r := h.cur.rows[h.cur.at]; !keys.Equal(h.it.Key(), r.key) || !bytes.Equal(value, r.value) {
			t.Fatalf("%s stands on %s = %s, want %s = %s", name, keys.Text(h.it.Key()), value, keys.Text(r.key), r.value)
		}
	}
}

// bound gives the iterator another range.
func (h *heldIter) bound(t *rapid.T) {
	lower, upper := drawRange(t, "other range")
	h.it.Bound(lower, upper)
	h.lower, h.upper, h.cur = bytes.Clone(lower), bytes.Clone(upper), &cursor{rows: h.all.within(lower, upper)}
	// It keeps its own copy of these, too.
	clear(lower)
	clear(upper)
}

// seekTarget draws a key, often from the edges of the range or from its rows.
func (h *heldIter) seekTarget(t *rapid.T) []byte {
	switch n := rapid.IntRange(0, 5).Draw(t, "target"); {
	case n < 2:
		return h.lower
	case n == 2:
		return h.upper
	case n == 3 && len(h.cur.rows) > 0:
		return rapid.SampledFrom(h.cur.rows).Draw(t, "row").key
	}
	return drawBound(t, "seek")
}

func (w *world) flush(t *rapid.T) { check(t, w.db.StartFlush()) }

// install replaces a group by rows that are partly its own.
func (w *world) install(t *rapid.T) {
	group := id.Group(rapid.IntRange(1, 2).Draw(t, "group"))
	lower, upper := keys.AppendGroupStart(nil, group), keys.AppendGroupEnd(nil, group)
	var fresh model
	for range rapid.IntRange(0, 10).Draw(t, "rows") {
		key := drawKey(t, "row")
		if got, _ := keys.GroupOf(key); got == group {
			w.made++
			fresh = fresh.set(key, fmt.Appendf(nil, "%d", w.made))
		}
	}
	left := fresh
	check(t, install(w.db, lower, upper, func() (key, value []byte, ok bool) {
		if len(left) == 0 {
			return nil, nil, false
		}
		r := left[0]
		left = left[1:]
		return r.key, r.value, true
	}))
	for _, r := range w.rows.within(lower, upper) {
		w.rows = w.rows.remove(r.key)
	}
	for _, r := range fresh {
		w.rows = w.rows.set(r.key, r.value)
	}
	// Everything is durable now, what was committed before as well.
	for _, r := range w.rows {
		value, err := w.db.Durable(r.key, nil)
		if err != nil || !bytes.Equal(value, r.value) {
			t.Fatalf("after Install %s = %s (%v) is durable, want %s", keys.Text(r.key), value, err, r.value)
		}
	}
}

func (w *world) checkpoint(t *rapid.T) {
	if len(w.saves) >= 2 {
		t.Skip("two checkpoints are open")
	}
	w.made++
	cp, err := w.db.Checkpoint(fmt.Sprintf("save-%d", w.made))
	check(t, err)
	w.saves = append(w.saves, heldSave{cp, w.rows})
}

// saved looks into a checkpoint, which shows what was there when it was taken.
func (w *world) saved(t *rapid.T) {
	if len(w.saves) == 0 {
		t.Skip("no checkpoint is open")
	}
	s := rapid.SampledFrom(w.saves).Draw(t, "checkpoint")
	w.compareGet(t, s.cp, s.rows)
	compareAll(t, s.cp, s.rows)
}

func compareAll(t interface{ Fatalf(string, ...any) }, r engine.Reader, rows model) {
	it, err := r.Iter(nil, nil)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer it.Close()
	for _, want := range rows {
		if !it.Next() {
			t.Fatalf("%s is missing (err %v)", keys.Text(want.key), it.Err())
		}
		value, err := it.Value()
		if err != nil || !keys.Equal(it.Key(), want.key) || !bytes.Equal(value, want.value) {
			t.Fatalf("%s = %s (%v), want %s = %s", keys.Text(it.Key()), value, err, keys.Text(want.key), want.value)
		}
	}
	if it.Next() {
		t.Fatalf("%s is too much", keys.Text(it.Key()))
	}
	if err := it.Err(); err != nil {
		t.Fatalf("%v", err)
	}
}

// reopen stops cleanly and starts again: everything is there.
func (w *world) reopen(t *rapid.T) {
	w.letGo(t)
	check(t, w.db.Close())
	db, err := w.b.open(w.fs, "store")
	check(t, err)
	w.db = db
	compareAll(t, w.db, w.rows)
}

func (w *world) letGo(t *rapid.T) {
	for _, h := range w.iters {
		check(t, h.it.Close())
	}
	for _, s := range w.saves {
		check(t, s.cp.Close())
	}
	w.iters, w.saves = nil, nil
}
