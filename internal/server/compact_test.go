package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// compacted plays the scripts of testdata/compact: lines after "> " are what happens,
// the others what the compactor does meanwhile. The clock is the script's, a turn is
// taken every minute, and one revision is written before each, but while it rests.
type compacted struct {
	t        *testing.T
	c        *compactor
	start    env.Instant
	now      env.Instant
	revision id.Revision
	leads    bool
	answer   string
	hangs    id.Revision
	did      []string
}

func (p *compacted) do(line string) {
	p.t.Helper()
	words := strings.Fields(line)
	switch words[0] {
	case "keep":
		if len(words) == 3 {
			n, err := strconv.ParseInt(words[1], 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			p.c = newCompactor(Compaction{Revisions: n}, p.now)
		} else {
			p.c = newCompactor(Compaction{Period: p.duration(words[1])}, p.now)
		}
		p.turn()
	case "lead", "follow":
		p.leads = words[0] == "lead"
	case "fail", "succeed", "overtaken", "hang":
		p.answer = words[0]
	case "answer":
		p.c.ended(p.now, p.hangs, nil)
	case "run", "rest":
		for end := p.now.Add(p.duration(words[1])); p.now < end; {
			p.now = p.now.Add(time.Minute)
			if words[0] == "run" {
				p.revision++
			}
			p.turn()
		}
	default:
		p.t.Fatalf("%q?", line)
	}
}

func (p *compacted) duration(word string) time.Duration {
	d, err := time.ParseDuration(word)
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

func (p *compacted) turn() {
	to := p.c.turn(p.now, p.revision, p.leads)
	if to == 0 {
		return
	}
	done := fmt.Sprintf("%v: compact to %d", p.now.Sub(p.start), to)
	switch p.answer {
	case "fail":
		p.c.ended(p.now, to, errors.New("no"))
		done += ", fails"
	case "overtaken":
		p.c.ended(p.now, to, command.ErrCompacted)
		done += ", done by others"
	case "hang":
		p.hangs = to
		done += ", hangs"
	default:
		p.c.ended(p.now, to, nil)
	}
	p.did = append(p.did, done)
}

func TestAutomaticCompaction(t *testing.T) {
	scripts, err := filepath.Glob("testdata/compact/*.txt")
	if err != nil || len(scripts) < 8 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	for _, name := range scripts {
		t.Run(filepath.Base(name), func(t *testing.T) {
			script, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			const start = env.Instant(77 * time.Second)
			p := &compacted{t: t, start: start, now: start, revision: 1}
			var got []string
			for line := range strings.Lines(string(script)) {
				line = strings.TrimSpace(line)
				if what, happens := strings.CutPrefix(line, "> "); happens {
					p.did = nil
					p.do(what)
					got = append(append(got, line), p.did...)
				} else if strings.HasPrefix(line, "#") {
					got = append(got, line)
				}
			}
			if played := strings.Join(got, "\n") + "\n"; played != string(script) {
				t.Errorf("it went like this:\n%s", played)
			}
		})
	}
}

// A compactor that runs for years keeps notes of one period only.
func TestNotesOfOnePeriod(t *testing.T) {
	c := newCompactor(Compaction{Period: 24 * time.Hour}, 0)
	for now := env.Instant(0); now < env.Instant(1000*time.Hour); now = now.Add(6 * time.Minute) {
		c.turn(now, id.Revision(now), false)
	}
	if n := len(c.notes); n < 240 || n > 242 {
		t.Errorf("%d notes", n)
	}
}

// What is set to less than a clock can tell does not turn without a pause.
func TestShortestLook(t *testing.T) {
	c := newCompactor(Compaction{Period: 1}, 0)
	if c.look() < leastLook {
		t.Errorf("looks every %v", c.look())
	}
}
