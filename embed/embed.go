// Package embed is the one place where a real member is assembled: the clock,
// the disk and the network of this machine, Pebble, and everything above them.
// The program etcd is a few lines around it; another Go program may start a
// member the same way.
package embed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/api/gateway"
	"github.com/kvorum/kvorum/internal/api/ops"
	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/join"
	"github.com/kvorum/kvorum/internal/peer"
	"github.com/kvorum/kvorum/internal/rpc"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/pebbledb"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
	"github.com/kvorum/kvorum/internal/tracing"
)

// Config is what a member is told; see package config for its fields.
type Config = config.Config

// drain is how long open calls may take to end when a member stops (rule 15).
const drain = time.Second

// tipBytes is the applier's table of the newest versions of keys: those of the last
// 90,000 to 180,000 keys of up to 32 bytes that were put.
const tipBytes = 16 << 20

// rowBytes is the cache of rows that were read one by one: 100,000 keys of 16 bytes
// with values of 256.
const rowBytes = 32 << 20

// leafRows is how many keys a count walks over at each end of its range: a leaf of
// them takes 20 us, and those of a million keys less than a megabyte.
const leafRows = 128

// Server is a running member.
type Server struct {
	cfg Config
	log *slog.Logger
	// version is that of the program.
	version string

	world *osenv.World
	home  *join.Home
	db    engine.DB
	state *state.Machine
	// raftLog belongs to the host, which closes it.
	raftLog *raftlog.Store
	host    *host.Host
	group   *host.Group
	member  *server.Member
	peers   *peer.Transport
	// peerTLS makes what https peers are connected to with; nil if there are none.
	peerTLS func() *tls.Config
	// auth is how callers are known.
	auth server.AuthOptions
	// peered says that there are others to be repaired from.
	peered bool
	// serving says that damage to the store is found by somebody who reads it.
	serving atomic.Bool
	// founding is nil on a member that has been here before, unless it knows nothing yet.
	founding *founding

	listeners *listeners
	grpc      rpc.Body
	https     []*http.Server
	ops       *ops.Door
	gateway   *gateway.Gateway // nil without --enable-grpc-gateway
	tallies   tallies
	slow      slowness
	tracer    *tracing.Tracer // nil without --enable-distributed-tracing
	lately    *ops.Lately     // nil without --log-level debug

	stopHost context.CancelFunc
	duties   sync.WaitGroup  // read the store until stopHost
	reclaims chan chan error // answers of giveBack that are waited for
	hostDone chan error      // what host.Run ended with
	failed   chan error      // the first failure while running
}

// Start brings a member to life and returns once it serves clients. The ports
// are bound first, so that a port in use changes nothing on disk. On error
// everything that was begun is undone.
func Start(cfg Config, log *slog.Logger) (*Server, error) {
	return start(cfg, log, config.ServerVersion)
}

func start(cfg Config, log *slog.Logger, version string) (*Server, error) {
	return startIn(osenv.New(), cfg, log, version)
}

// startIn starts a member in a world, which ends with it.
func startIn(world *osenv.World, cfg Config, log *slog.Logger, version string) (_ *Server, err error) {
	s := &Server{cfg: cfg, log: log, version: version, world: world, failed: make(chan error, 8), reclaims: make(chan chan error)}
	s.slow.lines = make(chan slowLine, slowKept)
	s.tallies.rewrites = newRewrites()
	s.keepLately()
	defer func() {
		if err != nil {
			err = errors.Join(err, s.undo())
		}
	}()
	if cfg.UnsafeNoSync {
		log.Warn("nothing is synced to disk: a crash of the machine loses what was acknowledged", "flag", "--unsafe-no-fsync")
		world.FS = osenv.WithoutSync(world.FS)
	}
	if s.listeners, err = listen(&cfg); err != nil {
		return nil, err
	}
	if err := s.secure(); err != nil {
		return nil, err
	}
	if s.auth, err = s.authOptions(); err != nil {
		return nil, err
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	s.run()
	s.servePeers()
	if err := s.checkFirst(); err != nil {
		return nil, err
	}
	if err := s.publish(); err != nil {
		return nil, err
	}
	if err := s.serve(); err != nil {
		return nil, err
	}
	return s, nil
}

// open opens the directory, the store and the log, and reconciles them.
func (s *Server) open() (err error) {
	fs := s.world.FS
	s.home, err = join.Open(fs, s.cfg.DataDir, s.cfg.WALDir, func() (join.Identity, error) {
		f, err := s.found()
		if err != nil {
			return join.Identity{}, err
		}
		s.founding = f
		return f.who, nil
	})
	if err != nil {
		return err
	}
	s.warnOfPermissions()
	for _, name := range s.home.Strangers {
		s.log.Warn("found invalid file under data directory", "filename", name, "data-dir", s.cfg.DataDir)
	}
	s.log.Info("opened data directory", "data-dir", s.cfg.DataDir, "member-id", s.home.Member.String(),
		"cluster-id", s.home.Cluster.String(), "fresh", s.home.Fresh)
	raftLog, err := raftlog.Open(raftlog.Options{
		FS: fs, Dir: s.home.Log, Rand: s.world.Rand, Tasks: s.world.Tasks, Clock: s.world.Clock,
	})
	if err != nil {
		return fmt.Errorf("cannot open the log %s: %w", s.home.Log, err)
	}
	if err := s.openState(hasPeers(raftLog, &s.cfg)); err != nil {
		return errors.Join(err, raftLog.Close())
	}
	s.raftLog = raftLog
	if err := s.refuseDowngrade(); err != nil {
		return errors.Join(err, raftLog.Close())
	}
	s.defragmentFirst()
	s.state.PaceRemoval(s.cfg.CompactionBatchLimit, s.removalRest())
	s.state.KeepTips(tipBytes)
	s.state.KeepRows(rowBytes)
	s.state.KeepCounts(leafRows)
	if err := s.startTracing(); err != nil {
		return errors.Join(err, raftLog.Close())
	}
	s.host = host.New(host.Options{
		Member: s.home.Member, Clock: s.world.Clock, Rand: s.world.Rand, Tasks: s.world.Tasks,
		Log: raftLog, Transport: transport{s}, Election: s.cfg.ElectionTimeout, Heartbeat: s.cfg.HeartbeatInterval,
		NoPreVote: !s.cfg.PreVote, LoneWaits: !s.cfg.InitialElectionTickAdvance,
		Events: s.tell, Trouble: s.trouble, Stalled: s.stalled, Snapshots: s.tellSnapshot, Limits: s.limits(),
		SlowApply: s.cfg.WarningApplyDuration, Slow: s.slowApply, Applied: s.applied(),
		Peers: s.peered, Damaged: s.home.Damage.Reason != "", FoundDamage: s.foundDamage,
	})
	if s.founding == nil && s.state.Mark().Index == 0 && raftLog.Damage() == nil && s.home.Damage.Reason == "" {
		if len(raftLog.Groups()) > 0 {
			s.founding = s.foundAgain()
		} else if s.founding, err = s.found(); err != nil { // the first start ended before the log knew of the group
			return err
		}
	}
	s.startPeers()
	return s.openGroup(raftLog)
}

// openStore opens Pebble. On a disk that refuses its first write Pebble never
// comes back, so it is not waited for then: the process is about to end.
func (s *Server) openStore() error {
	type opened struct {
		db  *pebbledb.DB
		err error
	}
	done, failed := make(chan opened, 1), make(chan error, 1)
	opts := pebbledb.Options{
		Pause: time.Sleep, Clock: s.world.Clock,
		FS: s.world.FS, Dir: s.home.Store,
		Trouble: func(text string) { s.log.Debug("trouble in the store", "text", text) },
		Failed:  func(err error) { failed <- err },
		Damaged: func(damage *engine.CorruptionError) { go s.storeDamaged(damage) },
	}
	go func() {
		db, err := pebbledb.Open(opts)
		done <- opened{db, err}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return o.err
		}
		s.db = o.db
		return nil
	case err := <-failed:
		return err
	}
}

// run starts the host's stages and the services on top of them.
func (s *Server) run() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stopHost, s.hostDone = cancel, make(chan error, 1)
	s.serving.Store(true)
	defer func() {
		if s.state.View().Removed(s.home.Member) {
			s.removed() // it has read that itself, and knows nobody who would tell it again
		}
		go s.followMembers(ctx, s.firstAddresses())
		if s.group.Status().Damaged {
			go s.heal(ctx)
		}
	}()
	go func() {
		err := s.host.Run(ctx)
		if err != nil {
			s.fail(err)
		}
		s.hostDone <- err
	}()
	s.member = server.New(server.Options{
		Member: s.home.Member, Cluster: s.home.Cluster, Group: s.group, State: s.state, Clock: s.world.Clock, Tasks: s.world.Tasks,
		FS: s.world.FS, Saves: s.home.Saves, Rest: time.Sleep, HistoryNews: s.tellHistory,
		ProgressInterval: s.cfg.WatchProgressInterval,
		Timeout:          5*time.Second + 2*s.cfg.ElectionTimeout,
		MaxRequestBytes:  int(s.cfg.MaxRequestBytes), MaxTxnOps: int(s.cfg.MaxTxnOps), Quota: quota(s.cfg.QuotaBackendBytes),
		BackPressure: s.cfg.Gates.SpaceBackPressure, Disk: s.disk, Reclaim: s.reclaim, SpaceNews: s.tellSpace, Compaction: s.compaction(), CompactionNews: s.tellCompaction,
		Auth:  s.auth,
		Peers: connections{s}, StrictReconfig: s.cfg.StrictReconfigCheck, MaxLearners: s.cfg.MaxLearners,
		Rand: s.world.Rand, MinLeaseTTL: minLeaseTTL(&s.cfg), LeaseGrace: s.cfg.ElectionTimeout, LeaseCheckpoint: leaseCheckpoint(&s.cfg),
	})
	s.duties.Go(func() { s.often(ctx, s.member.Expire) })
	s.duties.Go(func() { s.often(ctx, s.member.KeepSpace) })
	s.duties.Go(func() { s.giveBack(ctx) })
	s.duties.Go(func() { s.often(ctx, s.member.AutoCompact) })
	s.duties.Go(func() { s.slow.write(ctx, s.log) })
	s.lookForCorruption(ctx)
	s.endDowngrades(ctx)
}

// Failed delivers what ends the member while it runs: a failed sync, a damaged
// store, a listener that broke.
func (s *Server) Failed() <-chan error { return s.failed }

func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default: // it is already ending for a reason
	}
}

// Close ends the member cleanly: leadership goes to another voter if there is
// one, open calls may end for a second, then everything is flushed and closed.
func (s *Server) Close() error {
	s.log.Info("stopping")
	s.handOver()
	err := s.undo()
	s.log.Info("stopped")
	return err
}

// handOver gives the leadership away and waits until this member follows another,
// for at most as long as open calls may take to end: clients are served meanwhile,
// and what they ask afterwards goes to the next leader at once (rule 15).
func (s *Server) handOver() {
	if s.group.Leader() != s.home.Member {
		return
	}
	if err := s.group.Transfer(0); err != nil {
		s.log.Debug("leadership stays here", "reason", err.Error())
		return
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for begun := time.Now(); time.Since(begun) < drain; <-look.C {
		if leader := s.group.Leader(); leader != 0 && leader != s.home.Member {
			s.log.Info("handed leadership over", "to", leader.String(), "took", time.Since(begun).String())
			return
		}
	}
	s.log.Warn("leadership could not be handed over in time", "waited", drain.String())
}

// undo closes whatever is open, in the reverse order of its beginning.
func (s *Server) undo() error {
	var errs []error
	s.stopServing()
	s.stopTracing()
	if s.member != nil {
		errs = append(errs, s.member.EndBackups())
	}
	if s.stopHost != nil {
		s.stopHost()
		s.duties.Wait()
		errs = append(errs, <-s.hostDone)
	}
	if s.host != nil {
		errs = append(errs, s.host.Close())
	}
	if s.peers != nil {
		s.peers.Close()
	}
	s.world.Stop()
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.home != nil {
		errs = append(errs, s.home.Close())
	}
	if s.listeners != nil {
		s.listeners.close()
	}
	return errors.Join(errs...)
}
