package raftlog

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/wal"
)

// Store is the log of every group of one process. Its methods are called from
// the persister's turn only, but for Entries and Bounds, which any goroutine may
// call. They know what StartSync has written, not what is only staged.
type Store struct {
	log *wal.Log
	// ops are what the records of the staged frame will do to the groups, once it
	// is written and their places are known. The groups show what is written, so
	// that the header of a new segment never promises what only waits.
	ops []op
	// vote is where a vote is encoded: sums move what they see to the heap.
	vote [8]byte
	// needs counts, for each segment, the groups whose first needed entry is in
	// it; low is the oldest segment with one.
	needs map[uint64]int
	low   uint64

	// mu guards the groups against Entries and Bounds; the persister alone writes.
	mu     sync.RWMutex
	groups map[id.Group]*group
	order  []*group // by number
}

// op is the effect of one staged record.
type op struct {
	kind  uint8
	g     *group
	index id.Index
	term  id.Term
	// offset and length are the record's place in the frame.
	offset, length uint32
	hard           raft.HardState
	conf           *raft.Conf
	reset          *Reset
}

// Open recovers the log in opts.Dir, or makes an empty one. It ends with a data
// sync of everything that it read (rule 4). Torn last frames are cut silently
// (rule 2). Damage does not fail Open: it is told by Damage and marks every
// group (rule 5). Errors are those of the file system, and wal.ErrVersion.
func Open(opts Options) (*Store, error) {
	s := &Store{needs: map[uint64]int{}, groups: map[id.Group]*group{}}
	log, err := wal.Open(wal.Options{
		FS: opts.FS, Dir: opts.Dir, Rand: opts.Rand, Tasks: opts.Tasks, Clock: opts.Clock,
		FirstSegmentBytes: opts.FirstSegmentBytes, MaxSegmentBytes: opts.MaxSegmentBytes,
	}, (*owner)(s))
	if err != nil {
		return nil, err
	}
	s.log = log
	for _, g := range s.order {
		g.former, g.placed, g.held = nil, true, log.Damage() != nil
		g.trimConfs()
		g.hard.Commit = min(g.hard.Commit, g.last)
		g.stagedHard, g.stagedBase, g.stagedLast = g.hard, g.base.Index, g.last
		s.setNeed(g)
	}
	s.advance()
	return s, nil
}

// Damage is what recovery found damaged, or nil. If the damage hides how groups
// began, Groups may miss them: a process must not take such a log for a new one.
func (s *Store) Damage() *DamageError {
	d := s.log.Damage()
	if d == nil {
		return nil
	}
	return &DamageError{File: d.File, Offset: d.Offset, Reason: d.Reason}
}

// Groups lists what was recovered, in order of group number.
func (s *Store) Groups() []Recovered {
	var all []Recovered
	for _, g := range s.order {
		all = append(all, Recovered{Group: g.id, Start: g.start(s.log.Damage() != nil)})
	}
	return all
}

// Create records a new group with its first configuration; Remove records its
// end. Both are durable with the next StartSync.
func (s *Store) Create(group id.Group, conf raft.Conf) {
	invariant.Check(s.groups[group] == nil, "group %d is created twice", group)
	g := newGroup(group, conf)
	s.mu.Lock()
	s.insert(g)
	s.mu.Unlock()
	s.stage(op{kind: kindCreate, g: g}, raft.EncodeConf(conf))
}

func newGroup(number id.Group, conf raft.Conf) *group {
	return &group{id: number, confs: []confAt{{0, conf}}}
}

// Remove records the end of a group; its number is never used again.
func (s *Store) Remove(group id.Group) {
	g := s.group(group)
	s.stage(op{kind: kindRemove, g: g}, nil)
	g.removed = true
}

func (s *Store) group(number id.Group) *group {
	g := s.groups[number]
	if g == nil || g.removed {
		invariant.Check(false, "group %d is not in the log", number)
	}
	return g
}

// stage adds a record that is no entry to the frame.
func (s *Store) stage(o op, data []byte) {
	r := wal.Record{Group: o.g.id, Kind: o.kind, Term: o.term, Index: o.index, Data: data}
	r.Sum = wal.Sum(r.Group, r.Kind, r.Term, r.Index, r.Data)
	o.offset = s.log.Append(r)
	s.ops = append(s.ops, o)
}

// Append stages what one Output wants persisted into the next frame. The Sum of
// each entry must be wal.Sum of it: recovery and Entries compare.
func (s *Store) Append(save Save) {
	g := s.group(save.Group)
	if r := save.Reset; r != nil {
		own := *r
		s.stage(op{kind: kindReset, g: g, index: r.At.Index, term: r.At.Term, reset: &own}, encodeReset(r))
		g.stagedBase, g.stagedLast = r.At.Index, r.At.Index
	}
	for i := range save.Entries {
		s.stageEntry(g, &save.Entries[i])
	}
	if save.Hard != g.stagedHard {
		binary.LittleEndian.PutUint64(s.vote[:], uint64(save.Hard.Vote))
		s.stage(op{kind: kindHard, g: g, index: save.Hard.Commit, term: save.Hard.Term, hard: save.Hard}, s.vote[:])
		g.stagedHard = save.Hard
	}
}

func (s *Store) stageEntry(g *group, e *raft.Entry) {
	if e.Index <= g.stagedBase || e.Index > g.stagedLast+1 || e.Kind == 0 || uint8(e.Kind) >= firstOther {
		// The arguments of a Check are made even if it holds: not on this path.
		invariant.Check(false, "group %d: entry %d of kind %d does not fit a log of (%d, %d]",
			g.id, e.Index, e.Kind, g.stagedBase, g.stagedLast)
	}
	r := wal.Record{Group: g.id, Kind: uint8(e.Kind), Term: e.Term, Index: e.Index, Sum: e.Sum, Data: e.Data}
	if invariant.Dear {
		invariant.Check(e.Sum == wal.Sum(r.Group, r.Kind, r.Term, r.Index, r.Data), "group %d: entry %d has a wrong sum", g.id, e.Index)
	}
	o := op{kind: r.Kind, g: g, index: e.Index, term: e.Term, length: uint32(wal.RecordHeadBytes + len(e.Data))}
	if e.Kind == raft.Change {
		conf, _, err := raft.DecodeChange(e.Data)
		invariant.Check(err == nil, "group %d: the configuration of entry %d is malformed", g.id, e.Index)
		o.conf = &conf
	}
	o.offset = s.log.Append(r)
	s.ops = append(s.ops, o)
	g.stagedLast = e.Index
}

// Staged is how many bytes wait for the next StartSync.
func (s *Store) Staged() int { return s.log.Staged() }

// StartSync writes all that is staged as one frame and begins its sync. done is
// called once; nil says that all of it is durable. At most one is under way:
// the next may be called after done. idle is env.Syncer's. An error is final.
func (s *Store) StartSync(idle bool, done func(error)) { s.log.StartSync(idle, done) }

// Bounds says what a group's log holds; nothing of a group that is not there.
func (s *Store) Bounds(group id.Group) Bounds {
	s.mu.RLock()
	defer s.mu.RUnlock()
	g := s.groups[group]
	if g == nil {
		return Bounds{}
	}
	return Bounds{Base: g.baseIn(s.low), Last: g.lastPosition()}
}

// Retain tells what the group still needs: entries up to durable are in the
// store's durable state, entries from keep on are wanted by followers. Segments
// that nobody needs are recycled or removed in later turns. It returns where the
// group's log now begins; what it needs no more but shares a segment with what
// others need is still there. Of a damaged log it must not be called before the
// replica has healed: what it lets go may be what remembers the damage.
func (s *Store) Retain(group id.Group, durable, keep id.Index) (base raft.Position) {
	g := s.group(group)
	s.mu.Lock()
	defer s.mu.Unlock()
	g.held = false
	if keep > 0 {
		g.trim = max(g.trim, min(durable, keep-1, g.last))
	}
	s.setNeed(g)
	s.advance()
	g.forget(s.low)
	return g.base
}

// setNeed keeps needs up to date with one group.
func (s *Store) setNeed(g *group) {
	need := g.needed()
	if g.removed && g.placed {
		need = 0
	}
	if need == g.need {
		return
	}
	if g.need != 0 {
		if s.needs[g.need]--; s.needs[g.need] == 0 {
			delete(s.needs, g.need)
		}
	}
	if need != 0 {
		s.needs[need]++
	}
	g.need = need
}

// advance moves low to the oldest segment that a group needs, at most to the
// newest.
func (s *Store) advance() {
	for newest := s.log.Newest(); s.low < newest && s.needs[s.low] == 0; {
		s.low++
	}
	s.log.Release(s.low)
}

// BytesAfter estimates how much log the group has written after index: what a
// restart would have to replay (rule 7).
func (s *Store) BytesAfter(group id.Group, index id.Index) int64 {
	g := s.group(group)
	index = max(index, g.base.Index)
	if index >= g.last {
		return 0
	}
	return g.slots.bytesBefore(g.slots.count) - g.slots.bytesBefore(int(index-g.base.Index))
}

// Turn does the log's own housekeeping: the seal after 100 ms without a frame
// (rule 2), removal and recycling of segments, spares.
func (s *Store) Turn(now env.Instant) (worked bool, wake env.Instant) { return s.log.Turn(now) }

// Measured is what the log below counts.
func (s *Store) Measured() *wal.Measured { return s.log.Measured() }

// Close seals and syncs the log and closes its files. Nothing is under way.
func (s *Store) Close() error { return s.log.Close() }

// insert and erase keep groups and order alike.
func (s *Store) insert(g *group) {
	s.groups[g.id] = g
	i, _ := s.position(g.id)
	s.order = slices.Insert(s.order, i, g)
}

func (s *Store) erase(g *group) {
	g.removed, g.placed = true, true
	s.setNeed(g)
	delete(s.groups, g.id)
	if i, ok := s.position(g.id); ok {
		s.order = slices.Delete(s.order, i, i+1)
	}
}

func (s *Store) position(number id.Group) (int, bool) {
	return slices.BinarySearchFunc(s.order, number, func(g *group, n id.Group) int {
		switch {
		case g.id < n:
			return -1
		case g.id > n:
			return 1
		}
		return 0
	})
}

var errUnknownGroup = errors.New("raftlog: a record of an unknown group")
