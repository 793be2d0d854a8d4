package server

import (
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/auth"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
)

// A command says whom the latest view has judged, whatever it said when it waited: nobody
// while permissions are not checked, its caller once they are.
func TestWhomAViewHasJudged(t *testing.T) {
	disk := simenv.NewDisk(1, simenv.DiskOptions{})
	db, err := memdb.Open(memdb.Options{FS: disk.Mount(), Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	machine, err := state.Open(id.DefaultGroup, db, "saves")
	if err != nil {
		t.Fatal(err)
	}
	index := id.Index(0)
	do := func(who command.Header, body command.Body) {
		t.Helper()
		index++
		batch := command.AppendToBatch(nil, command.Encode(nil, who, body))
		outcomes, err := machine.Apply([]raft.Entry{{Term: 1, Index: index, Kind: raft.Batch, Data: batch}})
		if err != nil || outcomes[0].Err != nil {
			t.Fatalf("%T: %v, %v", body, err, outcomes)
		}
	}
	root := Session{who: auth.Caller{User: "root"}}
	waited := command.Header{Wall: 7, User: "ann", AuthRevision: 3}
	judged := func(user string, revision uint64) {
		t.Helper()
		want := command.Header{Wall: 7, User: user, AuthRevision: revision}
		for _, from := range []command.Header{waited, {Wall: 7}} {
			if got := root.judgedBy(machine.View(), from); got != want {
				t.Errorf("from %+v comes %+v, want %+v", from, got, want)
			}
		}
	}
	do(command.Header{}, &command.UserAdd{Name: "root", NoPassword: true})
	do(command.Header{}, &command.RoleAdd{Name: "root"})
	do(command.Header{}, &command.UserGrantRole{User: "root", Role: "root"})
	if machine.View().Auth().Revision() == 0 {
		t.Error("there is no auth revision yet: none could be told")
	}
	judged("", 0)
	do(command.Header{}, &command.AuthEnable{})
	judged("root", machine.View().Auth().Revision())
	do(root.judgedBy(machine.View(), command.Header{}), &command.AuthDisable{})
	judged("", 0)
}
