package embed

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/kvorum/kvorum/internal/backup"
	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/join"
	"github.com/kvorum/kvorum/internal/join/static"
	"github.com/kvorum/kvorum/internal/raft"
	statemember "github.com/kvorum/kvorum/internal/state/member"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/pebbledb"
	"github.com/kvorum/kvorum/internal/storage/etcddb"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// RestoreConfig says of what a data directory is made, and for whom.
type RestoreConfig struct {
	// Backup is read from its beginning to Bytes. Unless NoDigest is set the last 32 of
	// them are the digest of what is before, as Maintenance.Snapshot sends it.
	Backup   io.ReaderAt
	Bytes    int64
	NoDigest bool
	// DataDir must not exist or be empty; WALDir, when not empty, must not exist.
	DataDir, WALDir string
	// The rest is as for a member that forms a cluster: the flags of these names.
	Name, InitialCluster, InitialClusterToken, InitialAdvertisePeerURLs string
	// BumpRevision is added to the revision of the keys. MarkCompacted forbids reads and
	// watches below the revision that results.
	BumpRevision  uint64
	MarkCompacted bool
}

// restoring is the name that a directory has until it is whole.
const restoring = ".restoring"

// Restore makes the data directory of one member of a new cluster out of a backup;
// every member is made of the same one. The backup is checked as a whole before
// anything is made, and the directory gets its name once it is whole and durable.
// Errors: etcddb.ErrNoDigest; etcddb.ErrDamaged, backup.ErrDamaged and others of a
// damaged backup; what is wrong with the configuration; the file system's.
func Restore(cfg RestoreConfig, log *slog.Logger) error {
	world := osenv.New()
	defer world.Stop()
	cfg.DataDir = filepath.Clean(cfg.DataDir)
	if cfg.WALDir != "" {
		cfg.WALDir = filepath.Clean(cfg.WALDir)
	}
	r := restore{cfg: cfg, world: world, log: log}
	if err := r.plan(); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	err := r.make()
	if err == nil {
		err = r.name()
	}
	if err != nil {
		return errors.Join(err, r.clear())
	}
	log.Info("restored snapshot", "data-dir", cfg.DataDir, "wal-dir", cfg.WALDir, "member-id", r.who.Member.String(),
		"cluster-id", r.who.Cluster.String(), "revision", int64(r.made.Revision), "compact-revision", int64(r.made.Compacted),
		"versions", r.made.Versions, "leases", r.made.Leases, "users", r.made.Users)
	return nil
}

// restore is one run of Restore.
type restore struct {
	cfg   RestoreConfig
	world *osenv.World
	log   *slog.Logger

	who     join.Identity
	members []statemember.Facts
	conf    raft.Conf
	file    *etcddb.File
	facts   *etcddb.Facts
	begun   []string // directories that are ours to remove
	made    backup.Summary
}

// plan derives who the members are, as a member that forms a cluster does, and
// looks whether there is a place for the directory.
func (r *restore) plan() error {
	flags := []string{"--name", r.cfg.Name, "--data-dir", r.cfg.DataDir, "--initial-cluster", r.cfg.InitialCluster,
		"--initial-cluster-token", r.cfg.InitialClusterToken, "--initial-advertise-peer-urls", r.cfg.InitialAdvertisePeerURLs}
	cfg, _, err := config.Parse(flags, nil, nil)
	if err != nil {
		var refused *config.Error
		if errors.As(err, &refused) && refused.Stderr != "" {
			return errors.New(refused.Stderr)
		}
		return err
	}
	members, err := cfg.InitialMembers()
	if err != nil {
		return err
	}
	own, err := cfg.CheckInitialCluster(nil)
	if err != nil {
		return err
	}
	for _, m := range members {
		urls := m.PeerURLs.Strings()
		facts := statemember.Facts{ID: static.MemberID(urls, cfg.InitialClusterToken), Name: m.Name, PeerURLs: urls}
		r.members = append(r.members, facts)
	}
	slices.SortFunc(r.members, func(a, b statemember.Facts) int { return cmp.Compare(a.ID, b.ID) })
	for _, m := range r.members {
		r.conf.Voters = append(r.conf.Voters, m.ID)
	}
	r.who = join.Identity{Member: static.MemberID(own.Strings(), cfg.InitialClusterToken), Cluster: static.ClusterID(r.conf.Voters)}
	return r.vacant()
}

// vacant refuses a place where something is.
func (r *restore) vacant() error {
	fs := r.world.FS
	if names, err := fs.List(r.cfg.DataDir); exists(fs, r.cfg.DataDir) && (err != nil || len(names) > 0) {
		return fmt.Errorf("data-dir %q not empty or could not be read", r.cfg.DataDir)
	}
	if r.cfg.WALDir != "" && exists(fs, r.cfg.WALDir) {
		return fmt.Errorf("wal-dir %q exists", r.cfg.WALDir)
	}
	if r.cfg.WALDir != "" && within(r.cfg.DataDir, r.cfg.WALDir) != "" {
		return fmt.Errorf("wal-dir %q is data-dir %q, or has it inside", r.cfg.WALDir, r.cfg.DataDir)
	}
	for _, dir := range r.places() {
		if exists(fs, dir+restoring) {
			return fmt.Errorf("%q exists: remove what a restore that was cut off has left, if there is none under way", dir+restoring)
		}
	}
	return nil
}

func exists(fs env.FS, path string) bool {
	_, err := fs.Stat(path)
	return err == nil
}

// within is where in a directory another path lies, empty if it does not.
func within(path, dir string) string {
	one, err1 := filepath.Abs(dir)
	two, err2 := filepath.Abs(path)
	rel, err := filepath.Rel(one, two)
	if errors.Join(err1, err2, err) != nil || !filepath.IsLocal(rel) {
		return ""
	}
	return rel
}

// places are the directories that are made and named; a log that lies in the data's
// comes with that.
func (r *restore) places() []string {
	if r.cfg.WALDir == "" || within(r.cfg.WALDir, r.cfg.DataDir) != "" {
		return []string{r.cfg.DataDir}
	}
	return []string{r.cfg.DataDir, r.cfg.WALDir}
}

// check reads the backup as far as its digest and all that is not a key.
func (r *restore) check() (err error) {
	size := r.cfg.Bytes
	switch {
	case !r.cfg.NoDigest:
		if size, err = etcddb.CheckDigest(r.cfg.Backup, size); err != nil {
			return err
		}
	case etcddb.HasDigest(size):
		size -= etcddb.DigestBytes
	}
	if r.file, err = etcddb.Open(r.cfg.Backup, size); err != nil {
		return err
	}
	r.facts, err = r.file.ReadFacts()
	return err
}

// make fills the directories under their first names.
func (r *restore) make() (err error) {
	fs := r.world.FS
	data, wal := r.cfg.DataDir+restoring, ""
	for _, dir := range r.places() {
		r.begun = append(r.begun, dir+restoring)
	}
	if len(r.begun) == 2 {
		wal = r.begun[1]
	} else if r.cfg.WALDir != "" {
		wal = fs.PathJoin(data, within(r.cfg.WALDir, r.cfg.DataDir))
	}
	home, err := join.Open(fs, data, wal, func() (join.Identity, error) { return r.who, nil })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	at := backup.Position(r.facts)
	conf := raft.PlacedConf{Conf: r.conf, Index: at.Index}
	if err := r.makeStore(home, at, conf); err != nil {
		return err
	}
	return r.makeLog(home, at, conf)
}

func (r *restore) makeStore(home *join.Home, at raft.Position, conf raft.PlacedConf) error {
	db, err := pebbledb.Open(pebbledb.Options{FS: r.world.FS, Dir: home.Store})
	if err != nil {
		return err
	}
	run := backup.Restore{
		Group: id.DefaultGroup, FS: r.world.FS, Path: r.world.FS.PathJoin(r.cfg.DataDir+restoring, "sort"), At: at, Conf: conf, Members: r.members,
		Bump: r.cfg.BumpRevision, MarkCompacted: r.cfg.MarkCompacted,
	}
	r.made, err = run.Into(db, r.file)
	return errors.Join(err, db.Close())
}

// makeLog begins the log where the store's state is, as after a snapshot.
func (r *restore) makeLog(home *join.Home, at raft.Position, conf raft.PlacedConf) error {
	w := r.world
	log, err := raftlog.Open(raftlog.Options{FS: w.FS, Dir: home.Log, Rand: w.Rand, Tasks: w.Tasks, Clock: w.Clock})
	if err != nil {
		return err
	}
	log.Create(id.DefaultGroup, conf.Conf)
	log.Append(raftlog.Save{
		Group: id.DefaultGroup, Hard: raft.HardState{Term: at.Term, Commit: at.Index},
		Reset: &raftlog.Reset{At: at, Conf: conf.Conf, ConfIndex: conf.Index},
	})
	synced := make(chan error, 1)
	log.StartSync(true, func(err error) { synced <- err })
	return errors.Join(<-synced, log.Close())
}

// name gives the directories their names: the data's last, since a start looks for it.
func (r *restore) name() error {
	fs := r.world.FS
	for i, dir := range slices.Backward(r.places()) {
		if err := fs.Rename(dir+restoring, dir); err != nil {
			return err
		}
		r.begun[i] = dir
		if err := engine.SyncDir(fs, fs.PathDir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// clear removes what is not whole.
func (r *restore) clear() (err error) {
	for _, dir := range r.begun {
		err = errors.Join(err, r.world.FS.RemoveAll(dir))
	}
	return err
}
