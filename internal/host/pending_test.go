package host

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

const (
	me     = id.Member(7)
	myBoot = id.Boot(70)
)

func newPendings() *pendings {
	p := &pendings{}
	p.init()
	return p
}

func (p *pendings) take(tag uint64, class command.Class, now, deadline env.Instant) {
	p.add(&proposal{call: Call{Tag: tag, Deadline: deadline}, cmd: put("k", "v"), class: class}, now)
}

// sendAll proposes in term everything that waits and returns the sequences.
func (p *pendings) sendAll(term id.Term, now env.Instant) (seqs []id.Seq) {
	all := p.gather(nil, term)
	for _, c := range all {
		seqs = append(seqs, c.origin.Seq)
	}
	p.proposed(all, term, now, now.Add(time.Second))
	return seqs
}

func outcome(seq id.Seq, term id.Term, index id.Index) command.Outcome {
	return command.Outcome{Origin: command.Origin{Member: me, Boot: myBoot, Seq: seq}, Term: term, Index: index}
}

// A proposal whose entry sits in an old leader's log is not proposed again before
// an entry of a later term was applied here.
func TestFateIsWaitedFor(t *testing.T) {
	p := newPendings()
	p.take(1, command.Client, 0, 0)
	p.sendAll(3, 0)
	if again := p.gather(nil, 4); len(again) != 0 {
		t.Fatal("a proposal of term 3 was offered to term 4 while its fate was open")
	}
	// Entries of term 3 keep coming: nothing is decided.
	if _, count, _, again := p.lose(nil, 3); count != 0 || again {
		t.Fatal("an entry of its own term made a proposal lost")
	}
	results, count, bytes := p.settle(nil, []command.Outcome{outcome(1, 3, 9)}, me, myBoot)
	if count != 1 || bytes != len(put("k", "v")) || len(results) != 1 || results[0].result.Index != 9 {
		t.Fatalf("its own entry ended %d calls of %d bytes", count, bytes)
	}
}

func TestLostProposalsWaitAgainAndDutiesEnd(t *testing.T) {
	p := newPendings()
	p.take(1, command.Client, 0, 0)
	p.take(2, command.Duty, 0, 0)
	p.take(3, command.Client, 0, 0)
	p.sendAll(3, 0)
	p.settle(nil, []command.Outcome{outcome(1, 3, 9)}, me, myBoot)
	results, count, _, again := p.lose(nil, 4)
	if count != 1 || !again || !errors.Is(errOf(t, results, 2), ErrLeaderChanged) {
		t.Fatalf("a lost duty must end, a lost proposal wait: %v, again %v", results, again)
	}
	all := p.gather(nil, 4)
	if len(all) != 1 || all[0].origin.Seq != 3 || !all[0].shared {
		t.Fatalf("gathered %+v, want proposal 3, to be copied", all)
	}
}

func TestOutcomesOfOthersEndNothing(t *testing.T) {
	p := newPendings()
	p.take(1, command.Client, 0, 0)
	p.sendAll(3, 0)
	alien := outcome(1, 3, 9)
	alien.Origin.Member++
	former := outcome(1, 3, 9)
	former.Origin.Boot++
	if _, count, _ := p.settle(nil, []command.Outcome{alien, former, outcome(44, 3, 9)}, me, myBoot); count != 0 {
		t.Fatal("the outcome of another member, boot or sequence ended a call")
	}
}

// A refusal lets a proposal that was sent once be proposed under the next leader,
// but not under the one that refused; one sent twice stays where it is.
func TestRefusalProvesOnlyWhatWasSentOnce(t *testing.T) {
	p := newPendings()
	p.take(1, command.Client, 0, 0)
	p.take(2, command.Duty, 0, 0)
	seqs := p.sendAll(3, 0)
	if _, count, _ := p.refuse(nil, 2, seqs); count != 0 || len(p.gather(nil, 9)) != 0 {
		t.Fatal("the refusal of another term was believed")
	}
	results, count, _ := p.refuse(nil, 3, seqs)
	if count != 1 || !errors.Is(errOf(t, results, 2), ErrLeaderChanged) {
		t.Fatal("a refused duty must end")
	}
	if len(p.gather(nil, 3)) != 0 {
		t.Fatal("a proposal went back to the leader that refused it")
	}
	if len(p.gather(nil, 4)) != 1 {
		t.Fatal("a refused proposal was not offered to the next leader")
	}
	p.sendAll(4, 0)
	again := p.gatherResend(nil, 4, env.Instant(time.Second), time.Second)
	if len(again) != 1 {
		t.Fatal("a forwarded proposal was not sent again in time")
	}
	if p.refuse(nil, 4, []id.Seq{1}); len(p.gather(nil, 5)) != 0 {
		t.Fatal("a refusal was believed although the proposal was sent twice")
	}
}

func TestResendPausesGrow(t *testing.T) {
	p := newPendings()
	p.take(1, command.Client, 0, 0)
	p.sendAll(3, 0)
	var times []env.Instant
	for now := env.Instant(0); now <= env.Instant(20*time.Second); now += env.Instant(time.Second / 2) {
		if p.resendIsDue(now) && len(p.gatherResend(nil, 3, now, time.Second)) > 0 {
			times = append(times, now/env.Instant(time.Second))
		}
	}
	if len(times) != 5 || times[0] != 1 || times[1] != 3 || times[2] != 6 || times[3] != 10 || times[4] != 15 {
		t.Fatalf("sent again at seconds %v", times)
	}
}

func TestSnapshotEndsWhatNobodyCanTell(t *testing.T) {
	p := newPendings()
	p.take(1, command.Client, 0, 0)
	p.sendAll(3, 0)
	p.take(2, command.Client, 0, 0)
	p.sendAll(5, 0)
	p.take(3, command.Client, 0, 0)
	results, count, _ := p.jump(nil, 4)
	if count != 1 || !errors.Is(errOf(t, results, 1), ErrTimeoutLeader) {
		t.Fatalf("a snapshot of term 4 ended %v", results)
	}
}

func TestDeadlinesSayWhatIsKnown(t *testing.T) {
	second := env.Instant(time.Second)
	p := newPendings()
	p.take(1, command.Client, 0, 5*second) // sent before the leader changed
	p.take(2, command.Client, 0, 5*second)
	p.sendAll(3, 0)
	p.settle(nil, []command.Outcome{outcome(2, 3, 9)}, me, myBoot)
	p.take(3, command.Client, 3*second, 5*second) // begun after it
	p.sendAll(4, 0)
	p.take(4, command.Client, 4*second, 5*second) // never sent
	p.take(5, command.Client, 4*second, 0)        // without a deadline
	p.take(6, command.Client, 4*second, 6*second) // not yet due
	if p.wake() > 5*second {
		t.Fatalf("wakes at %d", p.wake())
	}
	if _, count, _ := p.expire(nil, 5*second-1, 2*second, 2*time.Second); count != 0 {
		t.Fatal("a call ended before its deadline")
	}
	results, count, _ := p.expire(nil, 5*second, 2*second, 2*time.Second)
	if count != 3 {
		t.Fatalf("%d calls ended", count)
	}
	for tag, want := range map[uint64]error{1: ErrTimeoutLeader, 3: ErrTimeout, 4: ErrNoLeader} {
		if got := errOf(t, results, tag); !errors.Is(got, want) {
			t.Errorf("call %d ended with %v, want %v", tag, got, want)
		}
	}
	if _, count, _ := p.expire(nil, 6*second, 2*second, 2*time.Second); count != 1 {
		t.Fatal("the later deadline was forgotten")
	}
	if p.wake() != env.Never && p.live == 0 {
		t.Fatal("an empty table has a deadline")
	}
}

// Random use of the table against a map: nothing is lost, nothing is sent twice
// in one term, the ring grows and is given back.
func TestPendingsAgainstAMap(t *testing.T) {
	for seed := range uint64(100) {
		draw := rand.New(rand.NewPCG(seed, 2))
		p := newPendings()
		sent := map[id.Seq]id.Term{} // 0: waits
		tagOf := map[id.Seq]uint64{}
		next, term := id.Seq(1), id.Term(1)
		for step := range 400 {
			switch draw.IntN(6) {
			case 0, 1:
				for range 1 + draw.IntN(20) {
					p.take(uint64(next)*10, command.Client, 0, 0)
					sent[next], tagOf[next] = 0, uint64(next)*10
					next++
				}
			case 2:
				for _, seq := range p.sendAll(term, 0) {
					if was, live := sent[seq]; !live || was != 0 {
						t.Fatalf("seed %d step %d: %d was sent in term %d again", seed, step, seq, term)
					}
					sent[seq] = term
				}
				for seq, was := range sent {
					if was == 0 {
						t.Fatalf("seed %d step %d: %d still waits", seed, step, seq)
					}
				}
			case 3, 4:
				for seq, was := range sent {
					if was == 0 || draw.IntN(2) == 0 {
						continue
					}
					results, count, _ := p.settle(nil, []command.Outcome{outcome(seq, was, 1)}, me, myBoot)
					if count != 1 || results[0].result.Tag != tagOf[seq] {
						t.Fatalf("seed %d step %d: settling %d gave %v", seed, step, seq, results)
					}
					delete(sent, seq)
				}
			case 5:
				term++
				p.lose(nil, term)
				for seq, was := range sent {
					if was < term {
						sent[seq] = 0
					}
				}
			}
			if p.live != len(sent) {
				t.Fatalf("seed %d step %d: %d live, want %d", seed, step, p.live, len(sent))
			}
		}
		if _, count, _ := p.endAll(nil, ErrStopped); count != len(sent) || p.live != 0 {
			t.Fatalf("seed %d: %d calls ended, %d were there", seed, count, len(sent))
		}
	}
}

func TestARingThatGrewIsGivenBack(t *testing.T) {
	p := newPendings()
	for i := range uint64(keptItems + 1) {
		p.take(i, command.Client, 0, 0)
	}
	p.endAll(nil, ErrStopped)
	if p.ring != nil {
		t.Fatalf("an empty table keeps %d slots", len(p.ring))
	}
	p.take(1, command.Client, 0, 0)
	if len(p.sendAll(1, 0)) != 1 {
		t.Fatal("the table does not work any more")
	}
}
