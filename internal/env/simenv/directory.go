package simenv

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
)

// directory holds names, and what was done to them since its last sync.
type directory struct {
	entries map[string]*inode
	// journal lists the unsynced operations, oldest first. Undoing its end gives
	// what a power loss may leave.
	journal []dirOp
	cut     int // during a power loss: how many operations of the journal remain
}

// dirOp is one operation's share in one directory. The operation is atomic: a
// rename within a directory has two changes in one dirOp, one between two
// directories has a dirOp of the same id in each.
type dirOp struct {
	id      uint64
	shared  bool // another directory has a part of it
	changes [2]nameChange
	n       int
}

type nameChange struct {
	name     string
	old, new *inode
}

func newDirectory() *inode {
	return &inode{dir: &directory{entries: map[string]*inode{}}, epoch: 1}
}

// names lists the entries in order.
func (dir *directory) names() []string { return slices.Sorted(maps.Keys(dir.entries)) }

func (dir *directory) apply(name string, n *inode) {
	if n == nil {
		delete(dir.entries, name)
	} else {
		dir.entries[name] = n
	}
}

func (dir *directory) undo(op *dirOp) {
	for i := op.n - 1; i >= 0; i-- {
		dir.apply(op.changes[i].name, op.changes[i].old)
	}
}

func (dir *directory) redo(op *dirOp) {
	for i := range op.n {
		dir.apply(op.changes[i].name, op.changes[i].new)
	}
}

// after counts the operations up to and including the one with the id; 0 if it
// is not in the journal.
func (dir *directory) after(id uint64) int {
	return 1 + slices.IndexFunc(dir.journal, func(op dirOp) bool { return op.id == id })
}

// clean makes every spelling of a path one: without a leading or trailing slash,
// the root being empty.
func clean(name string) string { return path.Clean("/" + name)[1:] }

// lookup returns what a cleaned path names, or nil.
func (d *Disk) lookup(name string) *inode {
	n := d.root
	for rest := name; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if n.dir == nil {
			return nil
		}
		if n = n.dir.entries[part]; n == nil {
			return nil
		}
	}
	return n
}

// parent returns the directory that holds the last element of a cleaned path.
func (d *Disk) parent(op, name string) (dir *inode, base string, err error) {
	above, base := path.Split(name)
	if base == "" {
		return nil, "", pathError(op, name, fs.ErrInvalid)
	}
	dir = d.lookup(strings.TrimSuffix(above, "/"))
	if dir == nil {
		return nil, "", pathError(op, name, fs.ErrNotExist)
	}
	if dir.dir == nil {
		return nil, "", pathError(op, name, syscall.ENOTDIR)
	}
	return dir, base, nil
}

// change points a name of a directory at n (nil: nowhere) and keeps the count of
// links and of disk space.
func (d *Disk) change(dir *inode, name string, n *inode) nameChange {
	old := dir.dir.entries[name]
	dir.dir.apply(name, n)
	if n != nil {
		if n.links++; n.links == 1 {
			d.used += n.alloc
		}
	}
	if old != nil {
		if old.links--; old.links == 0 {
			d.used -= old.alloc
		}
	}
	dir.modified = d.now()
	return nameChange{name: name, old: old, new: n}
}

// record enters a finished operation into a directory's journal.
func (d *Disk) record(dir *inode, op dirOp) {
	if len(dir.dir.journal) == 0 {
		d.unsynced = append(d.unsynced, dir)
	}
	dir.dir.journal = append(dir.dir.journal, op)
}

// set points one name somewhere else, as one operation.
func (d *Disk) set(dir *inode, name string, n *inode) {
	d.lastOp++
	d.record(dir, dirOp{id: d.lastOp, n: 1, changes: [2]nameChange{d.change(dir, name, n)}})
}

// move renames an entry, over whatever has the new name, as one operation.
func (d *Disk) move(from *inode, oldname string, to *inode, newname string) {
	n := from.dir.entries[oldname]
	d.lastOp++
	into := d.change(to, newname, n)
	outOf := d.change(from, oldname, nil)
	if from == to {
		d.record(from, dirOp{id: d.lastOp, n: 2, changes: [2]nameChange{into, outOf}})
		return
	}
	d.record(to, dirOp{id: d.lastOp, shared: true, n: 1, changes: [2]nameChange{into}})
	d.record(from, dirOp{id: d.lastOp, shared: true, n: 1, changes: [2]nameChange{outOf}})
}

// syncDir makes the first count unsynced operations of a directory durable, and
// with an operation between two directories everything that came before it in
// the other.
func (d *Disk) syncDir(dir *inode, count int) {
	done := dir.dir.journal[:count]
	dir.dir.journal = dir.dir.journal[count:]
	for _, op := range done {
		if !op.shared {
			continue
		}
		for _, other := range d.unsynced {
			if after := other.dir.after(op.id); after > 0 {
				d.syncDir(other, after)
			}
		}
	}
}

func (d *Disk) forgetSynced() {
	d.unsynced = slices.DeleteFunc(d.unsynced, func(dir *inode) bool {
		if len(dir.dir.journal) > 0 {
			return false
		}
		dir.dir.journal = nil
		return true
	})
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}
