package member_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/member"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
)

// life is the table of a group and the store that its rows go to.
type life struct {
	t     *testing.T
	db    engine.DB
	batch engine.Batch
	table member.Table
}

func newLife(t *testing.T) *life {
	db, err := memdb.Open(memdb.Options{FS: simenv.NewDisk(1, simenv.DiskOptions{}).Mount(), Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	return &life{t: t, db: db, batch: db.NewBatch()}
}

// do applies one command or change; what is stored is then what is known.
func (l *life) do(what any, want error) {
	l.t.Helper()
	before := string(l.table.AppendTo(nil))
	var err error
	switch w := what.(type) {
	case *command.MemberGenesis:
		l.table = l.table.Genesis(1, l.batch, w)
	case *command.MemberPublish:
		l.table, err = l.table.Publish(1, l.batch, w)
	case *command.MemberUpdate:
		l.table, err = l.table.Update(1, l.batch, w)
	case *command.ClusterVersion:
		l.table, err = l.table.SetVersion(1, l.batch, w)
	case *command.DowngradeEnable:
		l.table, err = l.table.EnableDowngrade(1, l.batch, w.Target)
	case *command.DowngradeCancel:
		l.table = l.table.CancelDowngrade(1, l.batch)
	case *command.DowngradeEnd:
		l.table, err = l.table.EndDowngrade(1, l.batch)
	case *command.MemberChange:
		if err = l.table.Judge(w, 1); err == nil {
			l.table = l.table.Change(1, l.batch, w)
		}
	}
	if !errors.Is(err, want) {
		l.t.Fatalf("%+v: %v, want %v", what, err, want)
	}
	if err != nil && string(l.table.AppendTo(nil)) != before {
		l.t.Fatalf("%+v was refused and changed the table", what)
	}
	if err := l.db.Commit(l.batch); err != nil {
		l.t.Fatal(err)
	}
	loaded, err := member.Load(1, l.db)
	if err != nil || string(loaded.AppendTo(nil)) != string(l.table.AppendTo(nil)) || !reflect.DeepEqual(loaded.All(), l.table.All()) && len(loaded.All()) > 0 {
		l.t.Fatalf("after %+v: stored %+v, known %+v, %v", what, loaded, l.table, err)
	}
}

func change(kind command.ChangeKind, m id.Member, urls ...string) *command.MemberChange {
	return &command.MemberChange{Change: kind, Member: m, PeerURLs: urls}
}

func TestTheLifeOfACluster(t *testing.T) {
	l := newLife(t)
	first := &command.MemberGenesis{Members: []command.GenesisMember{{Member: 3, PeerURLs: []string{"http://c"}}, {Member: 1, PeerURLs: []string{"http://a", "http://a2"}}}}
	l.do(first, nil)
	l.do(&command.MemberGenesis{Members: []command.GenesisMember{{Member: 9}}}, nil) // comes too late
	if all := l.table.All(); len(all) != 2 || all[0].ID != 1 || all[0].Name != "" || all[1].PeerURLs[0] != "http://c" {
		t.Fatalf("founded: %+v", all)
	}
	l.do(&command.MemberPublish{Member: 1, Name: "one", PeerURLs: []string{"http://elsewhere"}, ClientURLs: []string{"http://x"}}, nil)
	if f, _ := l.table.Get(1); f.Name != "one" || len(f.PeerURLs) != 2 || f.ClientURLs[0] != "http://x" {
		t.Fatalf("published: %+v", f)
	}

	l.do(change(command.AddMember, 1, "http://d"), command.ErrMemberExists)
	l.do(change(command.AddMember, 4, "http://a2"), command.ErrPeerURLExists)
	l.do(change(command.AddLearner, 4, "http://d"), nil)
	l.do(change(command.AddLearner, 5, "http://e"), command.ErrTooManyLearners)
	l.do(change(command.AddMember, 5, "http://d"), command.ErrPeerURLExists)
	l.do(change(command.PromoteMember, 1), command.ErrNotLearner)
	l.do(change(command.PromoteMember, 77), command.ErrMemberNotFound)
	l.do(&command.MemberPublish{Member: 4, Name: "four"}, nil)
	if f, _ := l.table.Get(4); !f.Learner || f.Name != "four" {
		t.Fatalf("a learner: %+v", f)
	}
	l.do(change(command.PromoteMember, 4), nil)
	if f, _ := l.table.Get(4); f.Learner || f.Name != "four" {
		t.Fatalf("promoted: %+v", f)
	}
	l.do(change(command.PromoteMember, 4), command.ErrNotLearner)

	l.do(&command.MemberUpdate{Member: 4, PeerURLs: []string{"http://a"}}, command.ErrPeerURLExists)
	l.do(&command.MemberUpdate{Member: 4, PeerURLs: []string{"http://d", "http://d2"}}, nil)
	l.do(&command.MemberUpdate{Member: 5, PeerURLs: []string{"http://e"}}, command.ErrMemberNotFound)

	l.do(change(command.RemoveMember, 5), command.ErrMemberNotFound)
	l.do(change(command.RemoveMember, 3), nil)
	l.do(change(command.RemoveMember, 3), command.ErrMemberNotFound)
	l.do(change(command.AddMember, 3, "http://c"), command.ErrMemberNotFound) // an id never comes back
	l.do(&command.MemberPublish{Member: 3, Name: "three"}, command.ErrMemberNotFound)
	l.do(change(command.AddMember, 6, "http://c"), nil) // its URLs may
	if !l.table.Removed(3) || l.table.Removed(6) || len(l.table.All()) != 3 {
		t.Fatalf("in the end: %+v", l.table)
	}
}
