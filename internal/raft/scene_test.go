package raft

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
)

var rewrite = flag.Bool("rewrite", false, "write what the scenes print into their files")

// TestScenes plays the scenes of testdata/scenes. A scene is prose, commands and
// what they print:
//
//	# prose
//	command
//	command
//	----
//	what is printed
//
// The commands are the methods of stage below. With -rewrite the files are
// written anew; the difference is for the eye.
func TestScenes(t *testing.T) {
	files, err := filepath.Glob("testdata/scenes/*.txt")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d scenes, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(string(want))
			if got == string(want) {
				return
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("%s differs:\n%s", file, firstDifference(string(want), got))
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d: want %q\n         got %q", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("%d lines wanted, %d printed", len(w), len(g))
}

// play runs a scene and returns its text with what it printed.
func play(text string) string {
	s := &stage{}
	var b strings.Builder
	printing := false
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "":
			printing = false
			b.WriteString(line)
		case printing:
			// what it printed when it was written; replaced
		case strings.HasPrefix(trimmed, "#"):
			b.WriteString(line)
		case trimmed == "----":
			printing = true
			b.WriteString(line)
			for _, l := range s.printed {
				b.WriteString(l + "\n")
			}
			s.printed = nil
		default:
			b.WriteString(line)
			s.run(strings.Fields(trimmed))
		}
	}
	return b.String()
}

// stage plays commands on a world.
type stage struct {
	w       *world
	cut     map[[2]id.Member]bool
	printed []string
}

func (s *stage) print(format string, args ...any) {
	s.printed = append(s.printed, fmt.Sprintf(format, args...))
}

var commands = map[string]func(s *stage, a args){
	"cluster": (*stage).cluster, "spare": (*stage).spare, "campaign": (*stage).campaign, "tick": (*stage).tick, "pass": (*stage).pass,
	"settle": (*stage).settle, "deliver": (*stage).deliver, "drop": (*stage).drop, "again": (*stage).again,
	"persist": (*stage).persist, "cut": (*stage).cutLink, "isolate": (*stage).isolate, "heal": (*stage).heal,
	"propose": (*stage).propose, "conf": (*stage).conf, "transfer": (*stage).transfer, "read": (*stage).read,
	"crash": (*stage).crash, "restart": (*stage).restart, "lose": (*stage).lose, "unreachable": (*stage).unreachable,
	"peerlost": (*stage).peerLost, "trim": (*stage).trim, "load": (*stage).load, "save": (*stage).save,
	"net": (*stage).net, "log": (*stage).log, "status": (*stage).status, "quiet": (*stage).quiet, "loud": (*stage).loud,
	"flush": (*stage).flush, "inject": (*stage).inject,
}

// args are the words after a command; those with = are options.
type args []string

func (s *stage) run(words []string) {
	defer func() {
		if v := recover(); v != nil {
			violation, ok := v.(invariant.Violation)
			if !ok {
				panic(v)
			}
			s.print("VIOLATION: %s", violation.Message)
		}
	}()
	command, known := commands[words[0]]
	if !known {
		panic("no command " + words[0])
	}
	command(s, words[1:])
}

func (a args) number(i int) int {
	if i >= len(a) {
		panic(fmt.Sprintf("argument %d is missing in %v", i+1, a))
	}
	n, err := strconv.Atoi(a[i])
	if err != nil {
		panic(err)
	}
	return n
}

func (a args) duration(i int) time.Duration {
	d, err := time.ParseDuration(a[i])
	if err != nil {
		panic(err)
	}
	return d
}

func (a args) option(name string, otherwise int) int {
	for _, word := range a {
		if value, found := strings.CutPrefix(word, name+"="); found {
			return args{value}.number(0)
		}
	}
	return otherwise
}

func (s *stage) at(a args, i int) *replica { return s.w.replica(id.Member(a.number(i))) }

// cluster N [append=BYTES] [inflight=BYTES] [messages=N] [cache=BYTES] [prevote=0]: N voters
// that have just begun. Replica i draws a time-out of 1 s + (i-1) * 50 ms.
func (s *stage) cluster(a args) {
	s.w, s.cut = newWorld(a.number(0)), map[[2]id.Member]bool{}
	s.loud(nil)
	s.w.tune = func(c *Config) {
		c.MaxAppendBytes = a.option("append", c.MaxAppendBytes)
		c.MaxInflightBytes = a.option("inflight", c.MaxInflightBytes)
		c.MaxInflightMessages = a.option("messages", c.MaxInflightMessages)
		c.CacheBytes = a.option("cache", c.CacheBytes)
		c.NoPreVote = a.option("prevote", 1) == 0
		c.Draw = func(n int64) int64 { return int64(c.ID-1) * int64(50*time.Millisecond) % n }
	}
	for _, r := range s.w.replicas {
		r.start()
	}
}

// spare ID: a replica that is not a voter yet.
func (s *stage) spare(a args) { s.w.add(id.Member(a.number(0)), Conf{}).start() }

// quiet and loud: whether events, applies and reads are printed.
func (s *stage) quiet(args) { s.w.tell = nil }
func (s *stage) loud(args)  { s.w.tell = s.print }

// campaign ID: stand for election.
func (s *stage) campaign(a args) {
	r := s.at(a, 0)
	r.node.Campaign(s.w.now)
	r.pump()
}

// tick ID DURATION: time passes for one replica only.
func (s *stage) tick(a args) {
	r := s.at(a, 0)
	s.w.now = s.w.now.Add(a.duration(1))
	r.node.Tick(s.w.now)
	r.pump()
}

// pass DURATION: time passes for all, in steps of 100 ms, all at rest between.
func (s *stage) pass(a args) {
	for left := a.duration(0); left > 0; left -= 50 * time.Millisecond {
		s.w.pass(min(left, 50*time.Millisecond))
		s.settle(nil)
	}
}

// settle: persist, load, save and deliver until nothing is left to do.
func (s *stage) settle(args) {
	s.w.settle(func(from, to id.Member) bool { return !s.cut[[2]id.Member{from, to}] })
}

// deliver [FROM TO] [KIND]: hand over what is on the network now; not what that
// brings forth.
func (s *stage) deliver(a args) {
	now := s.w.net
	s.w.net = nil
	var kept []Message
	for _, m := range now {
		if !a.matches(m) {
			kept = append(kept, m)
		}
	}
	for _, m := range now {
		if a.matches(m) && !s.cut[[2]id.Member{m.From, m.To}] {
			s.w.receive(m)
		}
	}
	s.w.net = append(kept, s.w.net...)
}

// drop [FROM TO] [KIND]: lose what is on the network now.
func (s *stage) drop(a args) { s.w.net = slices.DeleteFunc(s.w.net, a.matches) }

// again [FROM TO] [KIND]: double what is on the network now.
func (s *stage) again(a args) {
	for _, m := range s.w.net {
		if a.matches(m) {
			s.w.net = append(s.w.net, m)
		}
	}
}

// matches: numbers name FROM and TO, 0 is anybody, a word the kind of message.
func (a args) matches(m Message) bool {
	ends := []id.Member{m.From, m.To}
	for _, word := range a {
		if n, err := strconv.Atoi(word); err == nil {
			if n != 0 && id.Member(n) != ends[0] {
				return false
			}
			ends = ends[1:]
		} else if !strings.HasPrefix(describeBody(m.Body), word) {
			return false
		}
	}
	return true
}

// persist ID [N]: the first N outputs on their way are on the disk; all if no N.
func (s *stage) persist(a args) {
	r := s.at(a, 0)
	count := len(r.flights)
	if len(a) > 1 {
		count = a.number(1)
	}
	r.persist(count)
}

// cut A B: nothing gets from A to B or back. isolate A: from A to nobody.
func (s *stage) cutLink(a args) {
	x, y := id.Member(a.number(0)), id.Member(a.number(1))
	s.cut[[2]id.Member{x, y}], s.cut[[2]id.Member{y, x}] = true, true
}

func (s *stage) isolate(a args) {
	for _, r := range s.w.replicas {
		s.cutLink(args{a[0], strconv.Itoa(int(r.id))})
	}
}

// heal: all links are up again.
func (s *stage) heal(args) { clear(s.cut) }

func (s *stage) refused(err error) {
	if err != nil {
		s.print("%v", err)
	}
}

// propose ID DATA...: each word is an entry, in one turn.
func (s *stage) propose(a args) {
	r := s.at(a, 0)
	for _, data := range a[1:] {
		_, err := r.node.Propose(s.w.now, r.node.Status().Hard.Term, []byte(data))
		s.refused(err)
	}
	r.pump()
}

// conf ID VOTER... [learners LEARNER...] [after=INDEX] [context=WORD]: propose a
// configuration; it was checked against the one in effect if after does not say
// otherwise.
func (s *stage) conf(a args) {
	r := s.at(a, 0)
	var c Conf
	var context []byte
	list := &c.Voters
	for i, w := range a[1:] {
		if word, found := strings.CutPrefix(w, "context="); found {
			context = []byte(word)
		} else if w == "learners" {
			list = &c.Learners
		} else if !strings.Contains(w, "=") {
			*list = append(*list, id.Member(a.number(i+1)))
		}
	}
	_, err := r.node.ProposeConf(s.w.now, id.Index(a.option("after", int(r.node.effective().Index))), c, context)
	s.refused(err)
	r.pump()
}

// transfer ID TO: hand leadership over; TO 0 is the best.
func (s *stage) transfer(a args) {
	r := s.at(a, 0)
	s.refused(r.node.Transfer(s.w.now, id.Member(a.number(1))))
	r.pump()
}

// read ID: begin a linearizable read.
func (s *stage) read(a args) {
	_, err := s.at(a, 0).read()
	s.refused(err)
}

// crash ID; restart ID; lose ID INDEX: come back damaged, without the entries
// from INDEX on. flush ID: the store will still have what is applied now.
func (s *stage) crash(a args)   { s.at(a, 0).crash() }
func (s *stage) restart(a args) { s.at(a, 0).start() }
func (s *stage) flush(a args)   { s.at(a, 0).flushed = s.at(a, 0).applied }
func (s *stage) lose(a args) {
	r := s.at(a, 0)
	r.crash()
	r.disk.entries = r.disk.entries[:id.Index(a.number(1))-r.disk.base.Index-1]
	r.damaged = true
	r.start()
}

// unreachable ID: it lost its connections to the leader. peerlost ID OTHER: the
// leader lost those to a follower.
func (s *stage) unreachable(a args) {
	r := s.at(a, 0)
	r.node.LeaderUnreachable(s.w.now)
	r.pump()
}

func (s *stage) peerLost(a args) {
	r := s.at(a, 0)
	r.node.PeerUnreachable(id.Member(a.number(1)))
	r.pump()
}

// trim ID INDEX: drop the log up to INDEX. load ID: answer the oldest Load.
// save ID [fail]: answer the oldest wish for a snapshot.
func (s *stage) trim(a args) { s.at(a, 0).trim(id.Index(a.number(1))) }
func (s *stage) load(a args) {
	r := s.at(a, 0)
	for _, l := range r.loads {
		s.print("loads %d to %d for %v", l.Low, l.High, l.To)
	}
	r.load()
}
func (s *stage) save(a args) { s.at(a, 0).save(len(a) > 1) }

// net: what is on the network.
func (s *stage) net(args) {
	for _, m := range s.w.net {
		s.print("%v -> %v term %d: %s", m.From, m.To, m.Term, describeBody(m.Body))
	}
}

// log ID: what is in memory, and how much of it is durable.
func (s *stage) log(a args) {
	l := &s.at(a, 0).node.log
	var terms []string
	for _, r := range l.runs {
		terms = append(terms, fmt.Sprintf("term %d from %d", r.Term, r.First))
	}
	s.print("%d: after %d up to %d (%s), in memory from %d, durable to %d",
		a.number(0), l.base.Index, l.last, strings.Join(terms, ", "), l.first(), l.durable)
}

// status [ID]: roles, terms, marks, and what a leader knows of its followers.
func (s *stage) status(a args) {
	for _, r := range s.w.replicas {
		if len(a) > 0 && r != s.at(a, 0) {
			continue
		}
		if !r.up() {
			s.print("%v: down", r.id)
			continue
		}
		st := r.node.Status()
		role := [...]string{"follower", "pre-candidate", "candidate", "leader"}[st.Role]
		if st.Damaged {
			role = "damaged " + role
		}
		s.print("%v: %s, term %d, leader %v, last %d/%d, durable %d, commit %d, applied %d, %s",
			r.id, role, st.Hard.Term, st.Leader, st.Last.Index, st.Last.Term, st.Durable, st.Hard.Commit, st.Applied, describeConf(st.Conf))
		for _, p := range st.Progress {
			if p.Member != r.id {
				f := r.node.follower(p.Member)
				s.print("   %v: %v, match %d, next %d, %d bytes in flight%s%s", p.Member, f.State(), p.Match, p.Next, p.Inflight,
					word(p.Learner, ", learner", ""), word(p.Leaving, ", leaving", ""))
			}
		}
	}
}

// inject FROM TO TERM INDEX LASTTERM: a request to vote in TERM, out of the blue.
func (s *stage) inject(a args) {
	s.w.post(Message{From: id.Member(a.number(0)), To: id.Member(a.number(1)), Term: id.Term(a.number(2)),
		Body: &VoteRequest{Last: Position{id.Index(a.number(3)), id.Term(a.number(4))}}})
}

func describeBody(body Body) string {
	switch b := body.(type) {
	case *VoteRequest:
		return fmt.Sprintf("%s, last %d/%d%s", word(b.Pre, "prevote?", "vote?"), b.Last.Index, b.Last.Term, word(b.Transfer, ", transfer", ""))
	case *VoteReply:
		return fmt.Sprintf("%s%s", word(b.Pre, "prevote ", "vote "), word(b.Granted, "granted", "refused"))
	case *Append:
		var entries []string
		for _, e := range b.Entries {
			entries = append(entries, describe(e))
		}
		return fmt.Sprintf("append after %d/%d, commit %d, round %d [%s]", b.Previous.Index, b.Previous.Term, b.Commit, b.Round, strings.Join(entries, "; "))
	case *AppendReply:
		if b.Reject {
			return fmt.Sprintf("rejected after %d, hint %d/%d", b.Previous, b.Hint.Index, b.Hint.Term)
		}
		return fmt.Sprintf("matched %d", b.Match)
	case *Heartbeat:
		return fmt.Sprintf("heartbeat, commit %d, round %d", b.Commit, b.Round)
	case *RoundReply:
		return fmt.Sprintf("heard round %d", b.Round)
	case *Snapshot:
		return fmt.Sprintf("snapshot at %d/%d, %s from %d", b.At.Index, b.At.Term, describeConf(b.Conf), b.ConfIndex)
	case *TimeoutNow:
		return "timeout-now"
	case *ReadRequest:
		return fmt.Sprintf("read? %d", b.ID.Seq)
	case *ReadReply:
		return fmt.Sprintf("read %d index %d%s", b.ID.Seq, b.Index, word(b.Refused, ", refused", ""))
	}
	return "nothing"
}

func word(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}
