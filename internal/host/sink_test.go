package host

import (
	"sync"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state/command"
)

// sink keeps the results of calls, each of which may end only once.
type sink struct {
	mu      sync.Mutex
	results map[uint64]Result
	twice   []uint64
	order   []uint64
	pushed  func(Result)
}

func newSink() *sink { return &sink{results: map[uint64]Result{}} }

func (s *sink) Push(r Result) {
	s.mu.Lock()
	if _, ended := s.results[r.Tag]; ended {
		s.twice = append(s.twice, r.Tag)
	}
	s.results[r.Tag] = r
	s.order = append(s.order, r.Tag)
	s.mu.Unlock()
	if s.pushed != nil {
		s.pushed(r)
	}
}

func (s *sink) get(tag uint64) (Result, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.results[tag]
	return r, ok
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.results)
}

// put is a command that sets key to value.
func put(key, value string) []byte {
	return command.Encode(nil, command.Header{}, &command.PutRequest{Key: []byte(key), Value: []byte(value)})
}

// duty is a command that only the leader of term may propose.
func duty(key, value string, term id.Term) []byte {
	return command.Encode(nil, command.Header{Class: command.Duty, Term: term}, &command.PutRequest{Key: []byte(key), Value: []byte(value)})
}

// errOf is the error that a call ended with.
func errOf(t *testing.T, all []ended, tag uint64) error {
	t.Helper()
	for _, e := range all {
		if e.result.Tag == tag {
			return e.result.Err
		}
	}
	t.Fatalf("call %d did not end", tag)
	return nil
}

func entriesOf(term id.Term, first id.Index, count int) []raft.Entry {
	entries := make([]raft.Entry, count)
	for i := range entries {
		entries[i] = raft.Entry{Term: term, Index: first + id.Index(i), Kind: raft.Batch}
	}
	return entries
}
