package join

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvorum/kvorum/internal/env"
)

var me = Identity{Member: 0x8e9e05c52164694d, Cluster: 0xcdf818194e3a8c32}

func create(t *testing.T, fs env.FS, path, text string) {
	t.Helper()
	if err := fs.MkdirAll(fs.PathDir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create(path, env.Other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, fs env.FS, path string) string {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAMemberKeepsItsIdentity(t *testing.T) {
	fs := vfs.NewMem()
	first, err := Open(fs, "/data", "", is(me))
	if err != nil || !first.Fresh || first.Identity != me {
		t.Fatalf("first start: %+v, %v", first, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(fs, "/data", "", is(Identity{Member: 1, Cluster: 2}))
	if err != nil || again.Fresh || again.Identity != me {
		t.Fatalf("second start: %+v, %v: the directory decides, not the flags", again, err)
	}
	defer again.Close()
	if _, err := Open(fs, "/data", "", is(me)); !errors.Is(err, ErrInUse) {
		t.Errorf("a second process was let in: %v", err)
	}
}

func TestAPowerLossLeavesAllOfTheIdentityOrNothing(t *testing.T) {
	fs := vfs.NewCrashableMem()
	home, err := Open(fs, "/data/deep", "", is(me))
	if err != nil {
		t.Fatal(err)
	}
	after := fs.CrashClone(vfs.CrashCloneCfg{}) // nothing that was not synced
	if got := read(t, after, "/data/deep/member/identity"); got != format(me) {
		t.Errorf("after a power loss the identity is %q", got)
	}
	if err := home.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestEveryFlippedBitOfTheIdentityIsFound(t *testing.T) {
	text := format(me)
	for i := range text {
		for bit := range 8 {
			bad := []byte(text)
			bad[i] ^= 1 << bit
			if who, err := parse(string(bad)); err == nil {
				t.Fatalf("byte %d bit %d: taken for %+v", i, bit, who)
			}
		}
	}
	if _, err := parse(strings.Replace(text, "v1", "v2", 1)); err == nil || !strings.Contains(err.Error(), "unknown format") {
		t.Errorf("a later format: %v", err)
	}
}

func TestForeignDirectoriesAreRefusedAndLeftAlone(t *testing.T) {
	for _, c := range []struct{ file, says string }{
		{"/data/member/snap/db", "holds data of etcd"},
		{"/data/member/wal/0-0.wal", "holds data of etcd"},
		{"/data/member/log/1", "no identity"},
		{"/data/member/letters", "which is not ours"},
	} {
		fs := vfs.NewMem()
		create(t, fs, c.file, "precious")
		_, err := Open(fs, "/data", "", is(me))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.file, err, c.says)
		}
		if names, _ := fs.List("/data/member"); len(names) != 1 || read(t, fs, c.file) != "precious" {
			t.Errorf("%s: the directory was changed: %v", c.file, names)
		}
	}
}

func TestADamagedIdentityIsNamed(t *testing.T) {
	fs := vfs.NewMem()
	create(t, fs, "/data/member/identity", strings.Replace(format(me), "8e9e", "8e9f", 1))
	_, err := Open(fs, "/data", "", is(me))
	if err == nil || !strings.Contains(err.Error(), "/data/member/identity") {
		t.Errorf("got %v, want the file's name", err)
	}
}

func TestStrangersAreOnlyTold(t *testing.T) {
	fs := vfs.NewMem()
	create(t, fs, "/data/notes.txt", "hello")
	home, err := Open(fs, "/data", "/elsewhere", is(me))
	if err != nil || len(home.Strangers) != 1 || home.Strangers[0] != "notes.txt" || home.Log != "/elsewhere" {
		t.Fatalf("%+v, %v", home, err)
	}
	if err := home.Close(); err != nil {
		t.Fatal(err)
	}
}

// is knows who a fresh member is.
func is(who Identity) func() (Identity, error) { return func() (Identity, error) { return who, nil } }

func TestTheDirectoryOfAProxyIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	create(t, fs, "/data/proxy/cluster", "precious")
	_, err := Open(fs, "/data", "", is(me))
	if err == nil || !strings.Contains(err.Error(), "v2 http proxy has already been deprecated in 3.6") {
		t.Error(err)
	}
	if names, err := fs.List("/data"); err != nil || len(names) != 1 {
		t.Errorf("the directory was changed: %v, %v", names, err)
	}
}
