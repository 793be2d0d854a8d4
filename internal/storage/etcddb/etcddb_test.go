package etcddb

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/bbolt"
)

// row is a row of a bucket.
type row struct{ key, value string }

// buckets are rows by bucket, ascending.
type buckets map[string][]row

// some makes buckets of every shape: empty, small, of several levels, with values
// that need several pages.
func some(draw *rand.Rand) buckets {
	all := buckets{"empty": nil, "one": {{"key", "value"}}}
	for name, count := range map[string]int{"few": 20, "many": 5000} {
		keys := map[string]bool{}
		for len(keys) < count {
			key := make([]byte, 1+draw.IntN(60))
			for i := range key {
				key[i] = byte(draw.Uint32())
			}
			keys[string(key)] = true
		}
		var rows []row
		for key := range keys {
			size := draw.IntN(200)
			if draw.IntN(50) == 0 {
				size = draw.IntN(20_000)
			}
			rows = append(rows, row{key, string(bytes.Repeat([]byte{byte(len(key))}, size))})
		}
		slices.SortFunc(rows, func(a, b row) int { return bytes.Compare([]byte(a.key), []byte(b.key)) })
		all[name] = rows
	}
	return all
}

func writeAll(t *testing.T, path string, all buckets) {
	t.Helper()
	w, err := Create(vfs.Default, path)
	if err != nil {
		t.Fatal(err)
	}
	for name, rows := range all {
		w.Begin(name)
		for _, r := range rows {
			if err := w.Put([]byte(r.key), []byte(r.value)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.End(); err != nil {
			t.Fatal(err)
		}
	}
	size, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != size {
		t.Fatalf("the file has %v bytes (%v), want %d", info.Size(), err, size)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) buckets {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all, err := readAll(data)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func readAll(data []byte) (buckets, error) {
	f, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	list, err := f.Buckets()
	if err != nil {
		return nil, err
	}
	all := buckets{}
	for _, b := range list {
		var rows []row
		err := b.Walk(func(key, value []byte) error {
			rows = append(rows, row{string(key), string(value)})
			return nil
		})
		if err != nil {
			return nil, err
		}
		last, value, err := b.Last()
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 && (rows[len(rows)-1] != row{string(last), string(value)}) {
			return nil, fmt.Errorf("the last row of %q is %q", b.Name(), last)
		}
		all[b.Name()] = rows
	}
	return all, nil
}

func same(t *testing.T, got, want buckets) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d buckets, want %d", len(got), len(want))
	}
	for name, rows := range want {
		if !slices.Equal(got[name], rows) {
			t.Fatalf("bucket %q has %d rows, want %d, or they differ", name, len(got[name]), len(rows))
		}
	}
}

// open opens a file with the library that etcd uses.
func open(t *testing.T, path string) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// The library that etcd uses takes what is written here for its own: it reads all of
// it, finds it sound, and goes on writing to it.
func TestBoltTakesOurFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	all := some(rand.New(rand.NewPCG(1, 1)))
	writeAll(t, path, all)
	same(t, read(t, path), all)

	db := open(t, path)
	err := db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		for name, rows := range all {
			i := 0
			err := tx.Bucket([]byte(name)).ForEach(func(key, value []byte) error {
				if i >= len(rows) || (rows[i] != row{string(key), string(value)}) {
					return fmt.Errorf("row %d of %q is %q", i, name, key)
				}
				i++
				return nil
			})
			if err != nil || i != len(rows) {
				t.Errorf("%d of %d rows of %q: %v", i, len(rows), name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for name, rows := range all {
			b := tx.Bucket([]byte(name))
			for i, r := range rows {
				if i%3 == 0 {
					if err := b.Delete([]byte(r.key)); err != nil {
						return err
					}
				}
			}
			all[name] = slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return name != "many" && slices.Index(rows, r)%3 == 0 })
			if err := b.Put([]byte("\xff\xff new"), []byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What the library has written, page by page in no order, with small buckets in their
// places and the free space of what was deleted, is read as it is.
func TestFilesOfBoltAreRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	all := some(rand.New(rand.NewPCG(2, 2)))
	db := open(t, path)
	for round := range 3 {
		err := db.Update(func(tx *bbolt.Tx) error {
			for name, rows := range all {
				b, err := tx.CreateBucketIfNotExists([]byte(name))
				if err != nil {
					return err
				}
				for i := range rows {
					if i%3 != round {
						continue
					}
					if err := errors.Join(b.Put([]byte(rows[i].key+"x"), []byte("goes")), b.Put([]byte(rows[i].key), []byte(rows[i].value)), b.Delete([]byte(rows[i].key+"x"))); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, read(t, path), all)
}

// facts are those of a cluster with a little of everything.
func facts() *Facts {
	return &Facts{
		Index: 300, Term: 7, StorageVersion: "3.6.0", Scheduled: 12, Finished: 12,
		Leases:      []Lease{{ID: 5, TTL: 60, Remaining: 30}, {ID: -3, TTL: 9}},
		Alarms:      []Alarm{{Member: 9, Type: 1}},
		AuthEnabled: true, AuthRevision: 17,
		Users:   []User{{Name: "al", Hash: []byte("$2a$"), Roles: []string{"r", "root"}}, {Name: "root", NoPassword: true}},
		Roles:   []Role{{Name: "r", Permissions: []Permission{{Type: 0, Key: []byte("a"), End: []byte("b")}, {Type: 2, Key: []byte("k")}}}, {Name: "root"}},
		Members: []Member{{ID: 9, Name: "m", PeerURLs: []string{"http://a:1"}, ClientURLs: []string{"http://a:2"}}, {ID: 255, PeerURLs: []string{"http://b:1"}, Learner: true}},
		Removed: []uint64{77}, ClusterVersion: "3.7.0",
	}
}

// small is a whole database file with facts and three versions.
func small(t testing.TB) []byte {
	t.Helper()
	disk := vfs.NewMem()
	w, err := Create(disk, "db")
	if err != nil {
		t.Fatal(err)
	}
	w.BeginKeys()
	for _, r := range []struct {
		at   Revision
		pair string
	}{
		{Revision{Main: 12}, "0a016110021802200 12a0178"}, {Revision{Main: 13}, "0a0162100d180d20012a0179"}, {Revision{Main: 13, Sub: 1, Dead: true}, "0a0161"},
	} {
		pair, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(r.pair), []byte(" "), nil)))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Put(AppendRevision(nil, r.at), pair); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.End(), w.WriteFacts(facts())); err != nil {
		t.Fatal(err)
	}
	size, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, size)
	if _, err := w.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return data
}

// The bytes are what etcd reads: a change of this test is a change of the format.
func TestBytesOfTheFile(t *testing.T) {
	sum := sha256.Sum256(small(t))
	if got, want := hex.EncodeToString(sum[:8]), "5b5ac5a84b50c0b2"; got != want {
		t.Errorf("the file's digest begins with %s, want %s", got, want)
	}
}

func TestFactsComeBack(t *testing.T) {
	data := small(t)
	f, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.ReadFacts()
	if err != nil {
		t.Fatal(err)
	}
	// Leases lie in the order of their numbers without sign, as in facts.
	if want := facts(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if last, err := f.LastRevision(); err != nil || last != 13 {
		t.Errorf("the last revision is %d, %v", last, err)
	}
}

// backup is a database with its digest behind it.
func backup(t testing.TB) []byte {
	data := small(t)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

// A backup of which a byte is another, or that is cut off, is refused.
func TestAlteredBackupsAreRefused(t *testing.T) {
	whole := backup(t)
	check := func(data []byte) error {
		_, err := CheckDigest(bytes.NewReader(data), int64(len(data)))
		return err
	}
	if err := check(whole); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(whole); at += 61 {
		altered := bytes.Clone(whole)
		altered[at] ^= 0x10
		if err := check(altered); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d flipped: %v", at, err)
		}
	}
	for _, size := range []int{0, 1, 31, 32, 512, 544, len(whole) - 33, len(whole) - 32, len(whole) - 1} {
		if err := check(whole[:size]); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNoDigest) {
			t.Errorf("cut at %d: %v", size, err)
		}
	}
}

// Without a digest a byte that is another may go unnoticed, in a value say, but never
// ends in anything worse than a refusal or other rows.
func TestNoByteOfAFileIsTrusted(t *testing.T) {
	whole := small(t)
	refused := 0
	for at := range whole {
		if at%PageBytes > 100 && at%37 != 0 { // heads and elements are at the beginnings
			continue
		}
		altered := bytes.Clone(whole)
		altered[at] ^= 1 << (at % 8)
		if everything(altered) != nil {
			refused++
		}
	}
	if refused < 50 {
		t.Errorf("only %d flips are refused", refused)
	}
}

// everything reads all that there is.
func everything(data []byte) error {
	f, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	if _, err = f.Status(); err != nil {
		return err
	}
	if _, err = f.LastRevision(); err != nil {
		return err
	}
	if _, err = f.HashKV(0); err != nil {
		return err
	}
	return f.Versions(func(r Revision, pair []byte) error {
		if _, ok := ParsePair(pair); !ok {
			return ErrDamaged
		}
		return nil
	})
}

func FuzzFile(f *testing.F) {
	whole := small(f)
	f.Add(whole)
	f.Add(whole[:3*PageBytes])
	for _, at := range []int{16, 24, 32, 48, 2*PageBytes + 8, 2*PageBytes + 16, 2*PageBytes + 20} {
		altered := bytes.Clone(whole)
		altered[at]++
		f.Add(altered)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// The sums of the metas would keep most of what is drawn out: they are made good.
		for _, at := range []int{0, PageBytes} {
			if len(data) >= at+pageHead+metaBytes {
				body := data[at+pageHead:]
				sum := metaSum(body)
				for i := range 8 {
					body[56+i] = byte(sum >> (8 * i))
				}
			}
		}
		_ = everything(data)
	})
}

func FuzzRows(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(AppendRevision(nil, Revision{Main: 5, Sub: 1, Dead: true}), []byte{0x0a, 1, 'k', 0x10, 2})
	f.Fuzz(func(t *testing.T, key, pair []byte) {
		if r, ok := ParseRevision(key); ok && !bytes.Equal(AppendRevision(nil, r), key) {
			t.Fatalf("%x is read as %+v", key, r)
		}
		p, ok := ParsePair(pair)
		if ok && len(p.Key) > len(pair) {
			t.Fatal("a key out of nowhere")
		}
	})
}
