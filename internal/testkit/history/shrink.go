package history

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kvorum/kvorum/internal/state/command"
)

// How long a story may be made shorter, and how often that is tried.
const (
	shrinkFor   = 15 * time.Second
	shrinkTries = 600
)

// shrink leaves out of a history what it does not need to go wrong and tells what
// is left. A history that does not go wrong a second time is told whole.
func (p *Player) shrink(seed uint64, fresh bool, first *mismatch) error {
	best, again, tries := first, false, 0
	until := time.Now().Add(shrinkFor)
	try := func(steps []Step, fresh bool) bool {
		if tries++; tries > shrinkTries || time.Now().After(until) {
			return false
		}
		var wrong *mismatch
		if errors.As(p.replay(steps, fresh), &wrong) {
			best, again = wrong, true
		}
		return best == wrong
	}
	if !try(first.steps, true) && !fresh {
		try(first.steps, false)
	} else {
		fresh = true
	}
	shorten := func(size int) {
		for ; again && size > 0; size /= 2 {
			for at := 0; at+size <= len(best.steps); {
				if !try(slices.Delete(slices.Clone(best.steps), at, at+size), fresh) {
					at += size
				}
			}
		}
	}
	shorten(len(best.steps) / 2)
	for at := 0; again && at < len(best.steps); at++ {
		for progress := true; progress; {
			progress = false
			for _, smaller := range smallerThan(best.steps[at]) {
				steps := slices.Clone(best.steps)
				steps[at] = smaller
				if progress = try(steps, fresh) && at < len(best.steps); progress {
					break
				}
			}
		}
	}
	shorten(1) // a step that names no revision needs fewer before it
	return best.tell(seed, fresh, again)
}

// replay plays steps that are known.
func (p *Player) replay(steps []Step, fresh bool) error {
	r, err := p.begin(fresh)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if err := r.play(step); err != nil {
			return err
		}
	}
	return r.end()
}

// smallerThan lists a step's txn with one part of it left out, or its range at the
// newest revision.
func smallerThan(step Step) []Step {
	if r, ok := step.Request.(*command.RangeRequest); ok && r.Revision != 0 {
		newest := *r
		newest.Revision = 0
		step.Request = &newest
		return []Step{step}
	}
	t, ok := step.Request.(*command.TxnRequest)
	if !ok {
		return nil
	}
	var all []Step
	add := func(smaller command.TxnRequest) {
		s := step
		s.Request = &smaller
		all = append(all, s)
	}
	for i := range t.Compares {
		add(command.TxnRequest{Compares: slices.Delete(slices.Clone(t.Compares), i, i+1), Success: t.Success, Failure: t.Failure})
	}
	for i := range t.Success {
		add(command.TxnRequest{Compares: t.Compares, Success: slices.Delete(slices.Clone(t.Success), i, i+1), Failure: t.Failure})
	}
	for i := range t.Failure {
		add(command.TxnRequest{Compares: t.Compares, Success: t.Success, Failure: slices.Delete(slices.Clone(t.Failure), i, i+1)})
	}
	return all
}

// tell tells the story.
func (m *mismatch) tell(seed uint64, fresh, again bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, on a server that is ", seed)
	if fresh {
		b.WriteString("fresh")
	} else {
		b.WriteString("not fresh")
	}
	if !again {
		b.WriteString("; it went wrong only once")
	}
	fmt.Fprintf(&b, "; revisions as if the history began at 1, here it did at %d:\n", m.offset+1)
	for i, step := range m.steps {
		fmt.Fprintf(&b, "%3d. %v\n", i+1, step)
	}
	return fmt.Errorf("%s%w", b.String(), m)
}
