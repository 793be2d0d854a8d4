package mvcc

import (
	"bytes"

	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// rest counts the keys that the scan has not yielded yet, and ends the scan. What
// the fences know of the range is not walked.
func (s *scan) rest() (int64, error) {
	var walked *scan
	if invariant.Dear {
		walked = s.twin()
	}
	n, err := s.count()
	if walked != nil {
		walked.confirm(n, err)
	}
	return n, err
}

func (s *scan) count() (n int64, err error) {
	leap, ahead := s.leap()
	for {
		chains := s.chains
		key, v, err := s.next()
		if err != nil || v == nil {
			return n, err
		}
		if !ahead || string(key) < leap.low {
			n++
			continue
		}
		// This key is of the leaves that are leapt over, and counted there; or it lies
		// behind them, and is found again.
		n, s.chains = n+leap.live, chains
		if leap.toEnd {
			return n, nil
		}
		s.jump([]byte(leap.high))
		ahead = false
	}
}

// leap finds what of the rest of the scan need not be walked.
func (s *scan) leap() (leap, bool) {
	if s.counted == nil || s.one || s.done {
		return leap{}, false
	}
	end := s.end
	if fromKey(end) {
		end = nil
	}
	if len(s.user) > 0 {
		// Whatever was yielded is not behind the engine's last key.
		return s.counted.leap(s.user, true, end, s.rev)
	}
	return s.counted.leap(s.from, false, end, s.rev)
}

// jump goes on at a key that lies ahead.
func (s *scan) jump(key []byte) {
	s.have, s.user = false, s.user[:0]
	if len(s.chains) > 0 {
		s.chains = s.chains[s.over.place(s.chains, key):]
	}
	if !s.done {
		s.seek = keys.AppendUserKey(s.seek[:0], s.group, key)
		s.it.SeekGE(s.seek)
	}
}

// twin is a scan of what is left, for one who doubts the fences; nil if there is
// nothing to doubt.
func (s *scan) twin() *scan {
	if _, ok := s.leap(); !ok {
		return nil
	}
	key := bytes.Clone(s.from)
	if len(s.user) > 0 {
		key = bytes.Clone(s.user)
		if !s.have {
			key = append(key, 0)
		}
	}
	t := &scan{group: s.group, rev: s.rev, open: s.open, closed: s.closed, over: s.over, chains: s.chains}
	if t.start(key, s.end) != nil {
		return nil
	}
	return t
}

// confirm walks the scan and makes sure that it has n keys, if they could be
// counted and the walk is not overtaken.
func (s *scan) confirm(n int64, err error) {
	defer s.close()
	for walked := int64(0); err == nil; walked++ {
		_, v, err := s.next()
		if err != nil {
			return
		}
		if v == nil {
			invariant.Check(walked == n, "%d keys counted at revision %d from %q to %q, there are %d", n, s.rev, s.from, s.end, walked)
			return
		}
	}
}
