package embed

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/kvorum/kvorum/internal/backup"
	"github.com/kvorum/kvorum/internal/storage/etcddb"
)

// damage is what may have happened to a backup on its way.
type damage struct {
	what string
	data []byte
	// skip takes it without a look at the digest.
	skip bool
	want error
}

// damages of a backup: bytes flipped here and there, ends that are missing, and digests
// that are missing or another's.
func damages(data []byte) (list []damage) {
	database := data[:len(data)-etcddb.DigestBytes]
	flip := func(at int) []byte {
		other := bytes.Clone(data)
		other[at] ^= 0x10
		return other
	}
	places := map[string]int{
		"the first byte": 0, "the sum of a meta page": 16 + 56, "the second meta page": etcddb.PageBytes + 20, "the head of the first leaf": etcddb.HeadBytes + 10,
		"a key": etcddb.HeadBytes + 200, "the middle": len(database) / 2, "the last byte of the database": len(database) - 1,
		"the first byte of the digest": len(database), "the last byte of the digest": len(data) - 1,
	}
	for what, at := range places {
		list = append(list, damage{"flipped: " + what, flip(at), false, etcddb.ErrDamaged})
	}
	for _, most := range []int{0, 1, 31, 32, 33, 512, etcddb.PageBytes, etcddb.HeadBytes, len(database) / 2, len(database) - etcddb.PageBytes, len(database) - 1,
		len(database), len(database) + 1, len(data) - 1} {
		want := etcddb.ErrNoDigest
		if etcddb.HasDigest(int64(most)) {
			want = etcddb.ErrDamaged
		}
		list = append(list, damage{"cut", data[:most], false, want})
	}
	for _, most := range []int{0, 1, 31, 32, 512, etcddb.PageBytes, etcddb.HeadBytes, len(database) / 2, len(database) - etcddb.PageBytes, len(database) - 1} {
		list = append(list, damage{"cut, and taken without a digest", database[:most], true, etcddb.ErrDamaged})
	}
	other := sha256.Sum256(nil)
	return append(list,
		damage{"longer by a byte", append(bytes.Clone(data), 0), false, etcddb.ErrNoDigest},
		damage{"longer by a page", slices.Concat(database, make([]byte, etcddb.PageBytes), data[len(database):]), false, etcddb.ErrDamaged},
		damage{"cut in the middle, with the digest of the whole", slices.Concat(database[:len(database)/2/512*512], data[len(database):]), false, etcddb.ErrDamaged},
		damage{"the digest of something else", append(bytes.Clone(database), other[:]...), false, etcddb.ErrDamaged},
		damage{"no digest", database, false, etcddb.ErrNoDigest},
		damage{"the head of a leaf flipped, and taken without a digest", flip(etcddb.HeadBytes + 8)[:len(database)], true, etcddb.ErrDamaged},
		damage{"a revision flipped, and taken without a digest", flip(bytes.Index(data, []byte("_\x00\x00\x00\x00\x00\x00\x00\x00")) - 1)[:len(database)], true, backup.ErrDamaged},
	)
}

// A backup that is not what a member sent is refused, and nothing is left that was not
// there; what is taken without its digest must at least be whole as a file.
func TestADamagedBackupTouchesNothing(t *testing.T) {
	m := startMember(t, t.TempDir())
	fillWith(t, m, 40, 1000)
	data, _ := askBackup(t, m, etcddb.HaveNothing, -1)
	m.stop()
	place := t.TempDir()
	restoreIn := func(dir, wal string, data []byte, skip bool) error {
		return Restore(RestoreConfig{
			Backup: bytes.NewReader(data), Bytes: int64(len(data)), NoDigest: skip,
			DataDir: filepath.Join(place, dir), WALDir: filepath.Join(place, wal),
			Name: "default", InitialCluster: "default=http://localhost:2380", InitialClusterToken: "t", InitialAdvertisePeerURLs: "http://localhost:2380",
		}, slog.New(slog.DiscardHandler))
	}
	restore := func(data []byte, skip bool) error { return restoreIn("data", "wal", data, skip) }
	there := func() (names []string) {
		entries, err := os.ReadDir(place)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	for _, d := range damages(data) {
		if err := restore(d.data, d.skip); !errors.Is(err, d.want) {
			t.Errorf("%s (%d bytes of %d): %v", d.what, len(d.data), len(data), err)
		}
		if names := there(); len(names) > 0 {
			t.Fatalf("%s (%d bytes of %d): there is %v", d.what, len(d.data), len(data), names)
		}
	}
	// The same without a digest, and with another's, is taken where that is said.
	for _, whole := range [][]byte{data[:len(data)-etcddb.DigestBytes], append(bytes.Clone(data[:len(data)-1]), data[len(data)-1]^1)} {
		if err := restore(whole, true); err != nil || !slices.Equal(there(), []string{"data", "wal"}) {
			t.Fatalf("%d bytes: %v, and there is %v", len(whole), err, there())
		}
		if err := restore(whole, true); err == nil {
			t.Error("what is there is made again")
		}
		for _, name := range there() {
			if err := os.RemoveAll(filepath.Join(place, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The log may lie inside the data directory, but not the other way.
	for _, wal := range []string{"data", ".", "data/.."} {
		if err := restoreIn("data", wal, data, false); err == nil || len(there()) > 0 {
			t.Errorf("the data in the log's directory %s: %v, and there is %v", wal, err, there())
		}
	}
	if err := restoreIn("data", "data/log", data, false); err != nil || !slices.Equal(there(), []string{"data"}) {
		t.Errorf("the log in the data directory: %v, and there is %v", err, there())
	}
	if names, err := os.ReadDir(filepath.Join(place, "data", "log")); err != nil || len(names) == 0 {
		t.Errorf("there is no log: %v", err)
	}
}
