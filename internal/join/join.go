// Package join is how a member comes to life in its data directory: fresh, or
// again. It owns the lock that keeps a second process out and the small file
// that says whose directory this is (docs/format/identity.md).
package join

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
)

// Identity is who a data directory belongs to.
type Identity struct {
	Member  id.Member
	Cluster id.Cluster
}

// Home is an opened data directory, locked for this process.
type Home struct {
	Identity
	// Fresh says that the directory was empty: a new member begins here.
	Fresh bool
	// Log and Store are the folders of the Raft log and of the engine; Saves is
	// for frozen states on their way to others, and empty after a start.
	Log, Store, Saves string
	// Strangers are entries beside "member" that nobody here made.
	Strangers []string
	// Damage is what is remembered of damage that is not repaired yet.
	Damage Damage

	mu     sync.Mutex // of the damage
	fs     env.FS
	member string
	lock   io.Closer
}

const (
	identityName = "identity"
	lockName     = "LOCK"
	logName      = "log"
	storeName    = "store"
	savesName    = "saves"
)

// ErrInUse: another process runs on the directory.
var ErrInUse = errors.New("is in use by another process")

// Open locks dir, making it if need be, and returns whose it is: when it is fresh
// who is asked, and nothing is written if it does not know. walDir, when not empty, is where the log lives instead. Errors: ErrInUse;
// a directory of etcd or of another program, a damaged identity, each named; the
// file system's. Nothing is changed in a directory that is refused.
func Open(fs env.FS, dir, walDir string, who func() (Identity, error)) (*Home, error) {
	member := fs.PathJoin(dir, "member")
	if err := refuseForeign(fs, dir, member); err != nil {
		return nil, err
	}
	if err := fs.MkdirAll(member, 0o700); err != nil {
		return nil, fmt.Errorf("cannot access data directory: %w", err)
	}
	lock, err := fs.Lock(fs.PathJoin(member, lockName))
	if err != nil {
		return nil, fmt.Errorf("data directory %s %w (%w)", dir, ErrInUse, err)
	}
	home := &Home{Log: fs.PathJoin(member, logName), Store: fs.PathJoin(member, storeName),
		Saves: fs.PathJoin(member, savesName), fs: fs, member: member, lock: lock}
	if walDir != "" {
		home.Log = walDir
	}
	if err := home.identify(fs, member, who); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := home.recall(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := fs.RemoveAll(home.Saves); err != nil { // what a crash left
		return nil, errors.Join(err, lock.Close())
	}
	if home.Strangers, err = strangers(fs, dir, home); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return home, nil
}

// Close gives the directory free.
func (h *Home) Close() error { return h.lock.Close() }

// refuseForeign looks before anything is made: an etcd's directory, or one that
// has our folders but no identity, is nobody's to write into.
func refuseForeign(fs env.FS, dir, member string) error {
	beside, err := list(fs, dir)
	if err != nil {
		return fmt.Errorf("cannot access data directory: %w", err)
	}
	if slices.Contains(beside, "proxy") {
		return fmt.Errorf("data directory %s is that of a proxy: v2 http proxy has already been deprecated in 3.6", dir)
	}
	names, err := list(fs, member)
	if err != nil {
		return fmt.Errorf("cannot access data directory: %w", err)
	}
	if slices.Contains(names, identityName) {
		return nil
	}
	for _, name := range names {
		switch name {
		case "snap", "wal":
			return fmt.Errorf("data directory %s holds data of etcd (%s): start with an empty directory", dir, fs.PathJoin(member, name))
		case logName, storeName:
			return fmt.Errorf("data directory %s has %s but no %s: it is damaged or another program's", dir, name, identityName)
		case lockName, savesName, identityName + ".new":
		default:
			return fmt.Errorf("data directory %s holds %s, which is not ours: start with an empty directory", dir, fs.PathJoin(member, name))
		}
	}
	return nil
}

// identify reads the identity, or writes one into a fresh directory.
func (h *Home) identify(fs env.FS, member string, who func() (Identity, error)) error {
	path := fs.PathJoin(member, identityName)
	file, err := fs.Open(path)
	if err == nil {
		text, err := io.ReadAll(file)
		if err = errors.Join(err, file.Close()); err != nil {
			return fmt.Errorf("cannot read %s: %w", path, err)
		}
		if h.Identity, err = parse(string(text)); err != nil {
			return fmt.Errorf("damaged file %s: %w", path, err)
		}
		return nil
	}
	if names, listErr := list(fs, member); listErr != nil || slices.Contains(names, identityName) {
		return fmt.Errorf("cannot read %s: %w", path, errors.Join(err, listErr))
	}
	if h.Identity, err = who(); err != nil {
		return err
	}
	h.Fresh = true
	err = write(fs, path, format(h.Identity))
	if err = errors.Join(err, syncUp(fs, member)); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

// write makes a file of its own name in one step: content first, then the name.
// The caller syncs the directory.
func write(fs env.FS, path, text string) error {
	file, err := fs.Create(path+".new", env.Other)
	if err != nil {
		return err
	}
	_, err = file.Write([]byte(text))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return fs.Rename(path+".new", path)
}

// syncUp syncs dir and the folders above it, which may be new too and must
// outlive a power loss. A folder that cannot be opened is not one that was made
// here: the climb ends there.
func syncUp(fs env.FS, dir string) error {
	for {
		folder, err := fs.OpenDir(dir)
		if err != nil {
			return nil
		}
		if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
			return err
		}
		above := fs.PathDir(dir)
		if above == dir {
			return nil
		}
		dir = above
	}
}

func body(who Identity) string {
	return fmt.Sprintf("kvorum member v1\nmember %s\ncluster %s\n", who.Member, who.Cluster)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func format(who Identity) string {
	text := body(who)
	return text + fmt.Sprintf("crc32c %08x\n", crc32.Checksum([]byte(text), castagnoli))
}

func parse(text string) (Identity, error) {
	var who Identity
	var m, c uint64
	if _, err := fmt.Sscanf(text, "kvorum member v1\nmember %x\ncluster %x\n", &m, &c); err != nil {
		if first, _, _ := strings.Cut(text, "\n"); strings.HasPrefix(first, "kvorum member v") && first != "kvorum member v1" {
			return who, fmt.Errorf("unknown format %q", first)
		}
		return who, errors.New("it is not an identity")
	}
	who = Identity{Member: id.Member(m), Cluster: id.Cluster(c)}
	if format(who) != text {
		return who, errors.New("its checksum does not match")
	}
	return who, nil
}

// strangers lists what lies beside our own folders.
func strangers(fs env.FS, dir string, home *Home) ([]string, error) {
	names, err := list(fs, dir)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return name == "member" || name == "fixtures" || fs.PathJoin(dir, name) == home.Log
	}), nil
}

// list lists a folder, sorted; one that does not exist is empty.
func list(fs env.FS, dir string) ([]string, error) {
	if _, err := fs.Stat(dir); err != nil {
		if parent, listErr := fs.List(fs.PathDir(dir)); listErr != nil || !slices.Contains(parent, fs.PathBase(dir)) {
			return nil, nil
		}
		return nil, err
	}
	names, err := fs.List(dir)
	slices.Sort(names)
	return names, err
}
