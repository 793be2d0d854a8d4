package mvcc

import (
	"errors"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Past walks events in the history on disk, in order. It reads the rows of changes;
// a value is read when it is asked for.
type Past struct {
	view *View
	it   engine.Iterator
	// more says that the iterator stands at a row, fresh that it is the next one.
	more, fresh bool
	at          []byte // engine key of the value asked for
	row         []byte
}

// Past starts a walk at a revision; it ends with the view's revision. The caller
// closes it soon (rule 23), whatever Next returns. Errors: command.ErrCompacted,
// ErrReplaced, engine.ErrIterators, *DamageError.
func (v *View) Past(from id.Revision) (*Past, error) {
	low := keys.AppendHistory(nil, v.group, from, 0)
	it, err := v.open(low, keys.AppendHistory(nil, v.group, v.Revision+1, 0), from)
	if err != nil {
		return nil, err
	}
	return &Past{view: v, it: it, more: it.SeekGE(low), fresh: true}, nil
}

// Close ends the walk.
func (p *Past) Close() {
	p.it.Close()
	p.view.readers.Add(-1)
}

// Next moves to the next event, without its body; ok is false after the last. What
// e refers to is valid until the next call. Errors: *DamageError.
func (p *Past) Next(e *Event) (ok bool, err error) {
	if p.more && !p.fresh {
		p.more = p.it.Next()
	}
	p.fresh = false
	if !p.more {
		if err := p.it.Err(); err != nil {
			return false, &DamageError{"of the changes", err}
		}
		return false, nil
	}
	at := p.it.Key()
	_, main, sub, ok := keys.DecodeHistory(at)
	if !ok {
		return false, &DamageError{keys.Text(at).String(), errRow}
	}
	row, err := p.it.Value()
	if err != nil {
		return false, &DamageError{keys.Text(at).String(), err}
	}
	c, err := decodeChange(row, main, sub)
	if err != nil {
		return false, &DamageError{keys.Text(at).String(), err}
	}
	*e = Event{Revision: main, Sub: sub, Deleted: c.dead, Key: c.key, Body: e.Body[:0], prevMain: c.prevMain, prevSub: c.prevSub}
	return true, nil
}

// Load reads the body of the event that Next has moved to. ok is false for one that
// is no more: at the compact revision only the last change of a key remains. Errors:
// command.ErrCompacted if a compaction has overtaken the walk, ErrReplaced,
// *DamageError.
func (p *Past) Load(e *Event) (ok bool, err error) {
	v := p.view
	if e.Deleted {
		p.row = appendVersion(p.row[:0], &version{mod: e.Revision, sub: e.Sub, dead: true})
	} else {
		p.at = keys.AppendVersion(p.at[:0], v.group, e.Key, e.Revision, e.Sub)
		row, err := v.db.Get(p.at, p.row[:0])
		now := v.horizon()
		switch {
		case now.Loads != v.loads:
			return false, ErrReplaced
		case errors.Is(err, engine.ErrNotFound) && e.Revision < now.Compacted:
			return false, command.ErrCompacted
		case errors.Is(err, engine.ErrNotFound) && e.Revision == now.Compacted:
			return false, nil
		case err != nil:
			return false, &DamageError{keys.Text(p.at).String(), err}
		}
		p.row = row
		if _, err := decodeVersion(row, e.Revision, e.Sub); err != nil {
			return false, &DamageError{keys.Text(p.at).String(), err}
		}
	}
	e.Body, _ = appendEvent(e.Body[:0], e.Key, p.row, e.Deleted)
	return true, nil
}
