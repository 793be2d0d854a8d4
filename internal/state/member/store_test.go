package member_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/state/member"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
)

// A table published row by row is the table that is loaded, sorted by ID, the
// latest facts of each; earlier tables stay as they were.
func TestPublishedFactsAreLoaded(t *testing.T) {
	db, err := memdb.Open(memdb.Options{FS: simenv.NewDisk(1, simenv.DiskOptions{}).Mount(), Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	batch := db.NewBatch()
	var table member.Table
	var tables []member.Table
	publish := func(group id.Group, table member.Table, p command.MemberPublish) member.Table {
		next, err := table.Publish(group, batch, &p)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	for _, p := range []command.MemberPublish{
		{Member: 1 << 63, Name: "big"}, {Member: 16, Name: "sixteen"}, {Member: 2, Name: "two", ClientURLs: []string{"http://c"}}, {Member: 16, Name: "again"},
	} {
		table = publish(7, table, p)
		tables = append(tables, table)
	}
	publish(8, tables[0], command.MemberPublish{Member: 3, Name: "of another group"})
	if err := db.Commit(batch); err != nil {
		t.Fatal(err)
	}
	want := []member.Facts{{ID: 2, Name: "two", ClientURLs: []string{"http://c"}}, {ID: 16, Name: "again"}, {ID: 1 << 63, Name: "big"}}
	loaded, err := member.Load(7, db)
	if err != nil || !reflect.DeepEqual(loaded.All(), want) || !reflect.DeepEqual(table.All(), want) {
		t.Fatalf("loaded %+v, %v; published %+v", loaded.All(), err, table.All())
	}
	if string(loaded.AppendTo(nil)) != string(table.AppendTo(nil)) || string(tables[2].AppendTo(nil)) == string(table.AppendTo(nil)) {
		t.Fatal("the form for hashes does not tell tables apart as it must")
	}
	if len(tables[0].All()) != 1 || tables[2].All()[1].Name != "sixteen" {
		t.Fatal("an earlier table has changed")
	}

	// A row under another member's name is damage.
	row, err := db.Get(keys.AppendMeta(nil, 7, "member/0000000000000002"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{row[:len(row)-1], append([]byte{9}, row[1:]...), nil} {
		batch.Set(keys.AppendMeta(nil, 9, "member/0000000000000002"), bad)
		if err := db.Commit(batch); err != nil {
			t.Fatal(err)
		}
		if _, err := member.Load(9, db); !errors.Is(err, member.ErrDamaged) {
			t.Fatalf("% x: %v", bad, err)
		}
	}
	batch.Set(keys.AppendMeta(nil, id.Group(9), "member/0000000000000003"), row)
	batch.Delete(keys.AppendMeta(nil, 9, "member/0000000000000002"))
	if err := db.Commit(batch); err != nil {
		t.Fatal(err)
	}
	if _, err := member.Load(9, db); !errors.Is(err, member.ErrDamaged) {
		t.Fatalf("a row under another name: %v", err)
	}
}
