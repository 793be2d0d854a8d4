package member_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// A cluster goes down a version, its members follow, and it comes up again.
func TestADowngrade(t *testing.T) {
	l := newLife(t)
	to := func(v command.Version, want error) {
		t.Helper()
		l.do(&command.DowngradeEnable{Target: v}, want)
	}
	to(minor(6), command.ErrNoClusterVersion)
	l.do(&command.MemberGenesis{Members: []command.GenesisMember{{Member: 1, PeerURLs: []string{"http://a"}}, {Member: 2, PeerURLs: []string{"http://b"}}}}, nil)
	l.set(command.FirstVersion, nil)
	to(minor(255), command.ErrDowngradeTarget) // nothing is before 3.0
	l.tell(1, minor(7), nil)
	l.tell(2, minor(7), nil)
	l.set(minor(7), nil)
	for _, v := range []command.Version{minor(7), minor(5), minor(8), {Major: 2, Minor: 6}, {Major: 4, Minor: 6}, {}} {
		to(v, command.ErrDowngradeTarget)
	}
	l.do(&command.DowngradeCancel{}, nil) // there is none
	l.do(&command.DowngradeEnd{}, command.ErrDowngradeNotOver)

	to(minor(6), nil)
	to(minor(6), command.ErrDowngrading)
	l.tell(2, minor(6), command.ErrLowerVersion) // as long as it is agreed on
	l.do(&command.DowngradeEnd{}, command.ErrDowngradeNotOver)
	l.due(minor(6), true)
	l.set(minor(7), command.ErrVersionNotDue)
	l.set(minor(6), nil)
	l.due(command.Version{}, false) // all members know more
	l.set(minor(7), command.ErrVersionNotDue)
	to(minor(6), command.ErrDowngradeTarget)
	to(minor(5), command.ErrDowngrading)

	l.tell(1, minor(6), nil)
	l.tell(1, minor(5), command.ErrLowerVersion)
	l.do(&command.DowngradeEnd{}, command.ErrDowngradeNotOver) // the other is still to come
	l.do(change(command.AddLearner, 3, "http://c"), nil)
	l.tell(2, minor(6), nil)
	l.do(&command.DowngradeEnd{}, command.ErrDowngradeNotOver) // nobody knows what the third will be
	l.due(command.Version{}, false)
	l.tell(3, minor(6), nil)
	l.due(command.Version{}, false)
	l.do(&command.DowngradeEnd{}, nil)
	l.do(&command.DowngradeEnd{}, command.ErrDowngradeNotOver)
	l.due(command.Version{}, false)

	l.tell(3, minor(7), nil)
	l.due(command.Version{}, false)
	l.do(change(command.RemoveMember, 1), nil)
	l.tell(2, minor(7), nil)
	l.due(minor(7), true)
	l.set(minor(7), nil)

	to(minor(6), nil)
	l.do(&command.DowngradeCancel{}, nil) // before anything came of it
	l.due(command.Version{}, false)
	to(minor(6), nil)
	l.set(minor(6), nil)
	l.do(&command.DowngradeCancel{}, nil)
	l.due(minor(7), true)
	l.set(minor(6), command.ErrVersionNotDue)
	l.set(minor(7), nil)
	if got := l.table.Downgrade(); got != (command.Version{}) {
		t.Fatalf("in the end there is a downgrade to %v", got)
	}
}

// agreement is what the members are to agree on, told in another way: minor versions,
// -1 for what there is not.
type agreement struct {
	version, target int
	members         map[id.Member]int
}

// next is the version that is due.
func (a *agreement) next() (due int, ok bool) {
	lowest := 99
	for _, v := range a.members {
		lowest = min(lowest, max(v, 0))
	}
	switch {
	case len(a.members) == 0:
		return 0, false
	case a.target >= 0 && a.version > a.target:
		return a.target, true
	case a.target >= 0:
		lowest = min(lowest, a.target)
	}
	return lowest, lowest > a.version
}

// do says what becomes of a command.
func (a *agreement) do(what any) error {
	switch w := what.(type) {
	case *command.MemberPublish:
		if v := int(w.Version.Minor); v < a.version {
			return command.ErrLowerVersion
		}
		a.members[w.Member] = int(w.Version.Minor)
	case *command.MemberChange:
		if w.Change == command.RemoveMember {
			delete(a.members, w.Member)
		} else {
			a.members[w.Member] = -1
		}
	case *command.ClusterVersion:
		due, ok := a.next()
		if !ok || w.Version != minor(due) {
			return command.ErrVersionNotDue
		}
		a.version = due
	case *command.DowngradeEnable:
		switch {
		case a.version < 0:
			return command.ErrNoClusterVersion
		case w.Target.Major != 3 || int(w.Target.Minor) != a.version-1:
			return command.ErrDowngradeTarget
		case a.target >= 0:
			return command.ErrDowngrading
		}
		a.target = int(w.Target.Minor)
	case *command.DowngradeCancel:
		a.target = -1
	case *command.DowngradeEnd:
		for _, v := range a.members {
			if v != a.target {
				return command.ErrDowngradeNotOver
			}
		}
		if a.target < 0 || a.version != a.target {
			return command.ErrDowngradeNotOver
		}
		a.target = -1
	}
	return nil
}

// Members come, go and change their programs while downgrades begin and end: what is
// agreed on is what another way of telling it says, no member that is there knows less,
// and a downgrade is never further than one version away.
func TestAgreementsAsTheOracleHasThem(t *testing.T) {
	ended, lowered := 0, 0
	for seed := range uint64(40) {
		l, rnd := newLife(t), rand.New(rand.NewPCG(seed, 37))
		a := &agreement{version: -1, target: -1, members: map[id.Member]int{}}
		added := id.Member(0)
		for step := range 80 {
			what := l.something(rnd, a, &added)
			was := *a
			want := a.do(what)
			l.do(what, want)
			if _, end := what.(*command.DowngradeEnd); end && want == nil {
				ended++
			}
			if a.version < was.version {
				lowered++
			}
			version, target := -1, -1
			if v := l.table.Version(); v != (command.Version{}) {
				version = int(v.Minor)
			}
			if v := l.table.Downgrade(); v != (command.Version{}) {
				target = int(v.Minor)
			}
			due, ok := l.table.VersionDue()
			if wantDue, wantOK := a.next(); version != a.version || target != a.target || ok != wantOK || ok && due != minor(wantDue) {
				t.Fatalf("seed %d, step %d, %T: version %d, target %d, due %v %v; the oracle has %+v", seed, step, what, version, target, due, ok, *a)
			}
			if target >= 0 && version != target && version != target+1 {
				t.Fatalf("seed %d, step %d: the version is %d, and goes down to %d", seed, step, version, target)
			}
			for _, f := range l.table.All() {
				if f.Version != (command.Version{}) && f.Version.Before(l.table.Version()) {
					t.Fatalf("seed %d, step %d: %+v is in a cluster of %v", seed, step, f, l.table.Version())
				}
			}
		}
	}
	if ended < 10 || lowered < 40 {
		t.Errorf("only %d downgrades were over, and %d lowered anything", ended, lowered)
	}
}

// something is a command that may come next.
func (l *life) something(rnd *rand.Rand, a *agreement, added *id.Member) any {
	who := func() id.Member {
		all := l.table.All()
		return all[rnd.IntN(len(all))].ID
	}
	switch n := rnd.IntN(12); {
	case len(a.members) == 0, n == 0 && len(a.members) < 4:
		*added++
		return change(command.AddMember, *added, fmt.Sprintf("http://%d", *added))
	case n == 1 && len(a.members) > 1:
		return change(command.RemoveMember, who())
	case n <= 5:
		v := max(a.version, 0) + rnd.IntN(3)
		if a.target >= 0 && rnd.IntN(3) > 0 {
			v = a.target
		}
		return &command.MemberPublish{Member: who(), Name: "n", Version: minor(v)}
	case n <= 8:
		if due, ok := a.next(); ok && rnd.IntN(8) > 0 {
			return &command.ClusterVersion{Version: minor(due)}
		}
		return &command.ClusterVersion{Version: minor(rnd.IntN(5))}
	case n == 9:
		return &command.DowngradeEnable{Target: minor(max(a.version-1-rnd.IntN(5)/4, 0))}
	case n == 10 && rnd.IntN(3) == 0:
		return &command.DowngradeCancel{}
	}
	return &command.DowngradeEnd{}
}
