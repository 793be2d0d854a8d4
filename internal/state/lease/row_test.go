package lease

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
)

// The bytes are durable: a change of this test is a change of the format.
func TestBytesOfTheRows(t *testing.T) {
	for _, c := range []struct {
		row  []byte
		want string
	}{
		{appendFacts(nil, facts{birth: 3, ttl: 300, remaining: 17}), "01" + "03" + "ac02" + "11"},
		{appendBirths(nil, 300), "01" + "ac02"},
	} {
		if got := hex.EncodeToString(c.row); got != c.want {
			t.Errorf("row %s, want %s", got, c.want)
		}
	}
}

// FuzzRows gives the decoders any bytes: they accept exactly what the encoders write.
func FuzzRows(f *testing.F) {
	for _, row := range [][]byte{
		nil, {rowFormat}, {2, 1, 1, 1}, {rowFormat, 0, 1, 0}, {rowFormat, 1, 0, 0}, {rowFormat, 1, 5, 6}, {rowFormat, 0x80, 0, 1, 0},
		appendFacts(nil, facts{birth: 3, ttl: 300, remaining: 17}), appendBirths(nil, 9),
	} {
		f.Add(row)
	}
	f.Fuzz(func(t *testing.T, row []byte) {
		if got, err := decodeFacts(row); err == nil && !bytes.Equal(appendFacts(nil, got), row) {
			t.Fatalf("%x decodes as %+v", row, got)
		}
		if got, err := decodeBirths(row); err == nil && !bytes.Equal(appendBirths(nil, got), row) {
			t.Fatalf("%x decodes as %d births", row, got)
		}
	})
}

// A row that this package does not write is damage, and named.
func TestDamagedRowsAreRefused(t *testing.T) {
	birth := keys.AppendMeta(nil, 1, rowBirths)
	lease := keys.AppendLease(nil, 1, 5)
	whole := appendFacts(nil, facts{birth: 1, ttl: 60})
	for name, rows := range map[string]map[string][]byte{
		"whole":                   {string(birth): appendBirths(nil, 1), string(lease): whole},
		"a number of another":     {string(birth): appendBirths(nil, 1), string(lease): appendFacts(nil, facts{birth: 2, ttl: 60})},
		"no count":                {string(lease): whole},
		"a damaged count":         {string(birth): {9}, string(lease): whole},
		"a damaged lease":         {string(birth): appendBirths(nil, 1), string(lease): {rowFormat}},
		"no such key of a lease ": {string(birth): appendBirths(nil, 1), string(keys.AppendLeases(nil, 1)): whole},
		"no lease of such a key":  {string(birth): appendBirths(nil, 1), string(lease): whole, string(keys.AppendAllAttached(nil, 1)): nil},
	} {
		db, err := memdb.Open(memdb.Options{FS: simenv.NewDisk(1, simenv.DiskOptions{}).Mount(), Dir: "db"})
		if err != nil {
			t.Fatal(err)
		}
		batch := db.NewBatch()
		for key, row := range rows {
			batch.Set([]byte(key), row)
		}
		if err := db.Commit(batch); err != nil {
			t.Fatal(err)
		}
		table, err := Open(1, db)
		if want := name == "whole"; want != (err == nil) || !want && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && !table.Is(command.LeaseName{ID: 5, Birth: 1}) {
			t.Errorf("%s: no lease", name)
		}
	}
}

// A feed tells every change once, in order, however far its reader is behind.
func TestAFeedTellsEveryChangeOnce(t *testing.T) {
	db, err := memdb.Open(memdb.Options{FS: simenv.NewDisk(1, simenv.DiskOptions{}).Mount(), Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	table, err := Open(1, db)
	if err != nil {
		t.Fatal(err)
	}
	batch := db.NewBatch()
	grant := func(lease id.Lease) {
		table.Begin(batch)
		if err := table.Grant(&command.LeaseGrant{ID: lease, TTL: 5}); err != nil {
			t.Fatal(err)
		}
		if err := table.Finish(); err != nil {
			t.Fatal(err)
		}
		if err := db.Commit(batch); err != nil {
			t.Fatal(err)
		}
	}
	feed := table.Follow()
	next := func(want int, anew bool) {
		t.Helper()
		changes, got, ok := feed.Next()
		if !ok || got != anew || len(changes) != want {
			t.Fatalf("got %v, anew %v, %v", changes, got, ok)
		}
	}
	next(0, true) // what there was at first
	grant(1)
	if feed.More() {
		t.Fatal("a change was told before it was published")
	}
	grant(2)
	table.Publish()
	table.Publish()
	grant(3)
	table.Publish()
	next(2, false)
	if err := table.Reload(); err != nil {
		t.Fatal(err)
	}
	next(1, false)
	next(3, true)
	if _, _, ok := feed.Next(); ok || feed.More() {
		t.Fatal("more than there was")
	}
}

// Keys are read in pieces, so that no iterator is open for long.
func TestKeysOfALargeLease(t *testing.T) {
	db, err := memdb.Open(memdb.Options{FS: simenv.NewDisk(1, simenv.DiskOptions{}).Mount(), Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	batch := db.NewBatch()
	const count = 2*keysAtOnce + 1
	for i := range count {
		batch.Set(keys.AppendAttached(nil, 1, -1, []byte{'k', byte(i >> 8), byte(i)}), nil)
		batch.Set(keys.AppendAttached(nil, 1, -2, []byte{'k', byte(i >> 8), byte(i)}), nil)
	}
	if err := db.Commit(batch); err != nil {
		t.Fatal(err)
	}
	for most, want := range map[int]int{0: 0, 1: 1, keysAtOnce: keysAtOnce, keysAtOnce + 1: keysAtOnce + 1, count: count, 1 << 20: count} {
		list, err := ReadKeys(1, db, -2, most)
		if err != nil || len(list) != want {
			t.Fatalf("%d keys of at most %d: %v", len(list), most, err)
		}
		for i, key := range list {
			if !bytes.Equal(key, []byte{'k', byte(i >> 8), byte(i)}) {
				t.Fatalf("key %d is %x", i, key)
			}
		}
	}
}
