package raftlog

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/wal"
)

const (
	// gapBytes of other groups' records are read along rather than skipped by a
	// read of their own; spanBytes bounds what is read at once.
	gapBytes  = 8 << 10
	spanBytes = 1 << 20
)

// span is a stretch of one segment that is read at once.
type span struct {
	reader        wal.Reader
	segment       uint64
	offset        uint32
	length, slots int
}

// Entries reads entries [low, high] back, cut to about maxBytes but at least
// one. Errors: ErrTrimmed, *DamageError, the file system's.
func (s *Store) Entries(group id.Group, low, high id.Index, maxBytes int) ([]raft.Entry, error) {
	slots, spans, err := s.plan(group, low, high, maxBytes)
	defer func() {
		for i := range spans {
			spans[i].reader.Release()
		}
	}()
	if err != nil || len(slots) == 0 {
		return nil, err
	}
	entries := make([]raft.Entry, 0, len(slots))
	for i := range spans {
		sp := &spans[i]
		data := make([]byte, sp.length)
		if err := sp.reader.Read(data, sp.offset); err != nil {
			return nil, err
		}
		for _, at := range slots[:sp.slots] {
			from := at.offset - sp.offset
			e, ok := decodeEntry(data[from:from+at.length], group, low+id.Index(len(entries)))
			if !ok {
				file, offset := sp.reader.Where(at.offset)
				return nil, &DamageError{File: file, Offset: offset, Reason: "an entry is not as it was written"}
			}
			entries = append(entries, e)
		}
		slots = slots[sp.slots:]
	}
	return entries, nil
}

func decodeEntry(p []byte, group id.Group, index id.Index) (e raft.Entry, ok bool) {
	r, size, err := wal.DecodeRecord(p)
	if err != nil || size != len(p) || r.Group != group || r.Index != index || r.Kind >= firstOther {
		return e, false
	}
	e = raft.Entry{Term: r.Term, Index: r.Index, Kind: raft.Kind(r.Kind), Sum: r.Sum}
	if len(r.Data) > 0 {
		e.Data = r.Data
	}
	return e, true
}

// plan finds the slots of the entries and holds their segments. The spans must be
// released whatever it returns.
func (s *Store) plan(group id.Group, low, high id.Index, maxBytes int) (slots []slot, spans []span, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	g := s.groups[group]
	if g == nil || low <= g.baseIn(s.low).Index {
		return nil, nil, ErrTrimmed
	}
	high = min(high, g.last)
	total := 0
	for index := low; index <= high; index++ {
		at := g.slots.at(int(index - g.base.Index - 1))
		if total += int(at.length); total > maxBytes && index > low {
			break
		}
		slots = append(slots, at)
		segment := g.segmentOf(index)
		if n := len(spans); n > 0 && spans[n-1].takes(segment, at) {
			last := &spans[n-1]
			last.length, last.slots = int(at.offset+at.length-last.offset), last.slots+1
			continue
		}
		reader, ok := s.log.Reader(segment)
		if !ok {
			return nil, spans, ErrTrimmed
		}
		spans = append(spans, span{reader: reader, segment: segment, offset: at.offset, length: int(at.length), slots: 1})
	}
	return slots, spans, nil
}

// takes says whether a record is near enough behind the span to be read with it.
func (sp *span) takes(segment uint64, at slot) bool {
	end := sp.offset + uint32(sp.length)
	return segment == sp.segment && at.offset >= end && at.offset-end <= gapBytes &&
		int(at.offset+at.length-sp.offset) <= spanBytes
}
