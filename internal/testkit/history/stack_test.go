package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"

	v3 "github.com/kvorum/kvorum/internal/api/v3"
	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/env/osenv"
	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state"
	"github.com/kvorum/kvorum/internal/state/command"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/memdb"
	"github.com/kvorum/kvorum/internal/storage/raftlog"
)

// stack is the product from the services of gRPC down to the disk, in this
// process: host's stages on their goroutines, the log, the engine in memory, and
// a disk that loses what was not synced.
type stack struct {
	seed  uint64
	disks int
	disk  *simenv.Disk

	world    *osenv.World
	host     *host.Host
	db       engine.DB
	pipe     *Pipe
	stop     context.CancelFunc
	ended    chan error
	planned  func() *simenv.Disk
	restarts int
	// spoil, when set, changes what the services answer.
	spoil func(request, response any, err error) (any, error)
}

// syncing is a disk whose syncs end where they begin: its files are no
// env.Syncer.
type syncing struct{ env.FS }

type syncingFile struct{ env.File }

func (s syncing) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return hide(s.FS.Create(name, c))
}

func (s syncing) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return hide(s.FS.OpenReadWrite(name, c, opts...))
}

func (s syncing) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return hide(s.FS.ReuseForWrite(from, to, c))
}

func hide(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return syncingFile{f}, nil
}

func (s *stack) Conn() grpc.ClientConnInterface { return s.pipe }

// Renew is Server's.
func (s *stack) Renew() error {
	if err := s.close(); err != nil {
		return err
	}
	s.disks++
	s.disk = simenv.NewDisk(s.seed+uint64(s.disks)<<32, simenv.DiskOptions{})
	return s.open()
}

// Restart is Server's. After a crash the next run has the disk as it was at that
// moment; what the run before still does is for nobody.
func (s *stack) Restart(how Restart) error {
	next := s.disk
	if how != Clean {
		if s.planned != nil {
			next = s.planned()
		}
		if next == s.disk || next == nil {
			next = s.disk.CrashClone(crashes[how], s.name())
		}
	}
	if err := s.close(); err != nil {
		return err
	}
	s.disk = next
	return s.open()
}

var crashes = map[Restart]simenv.Crash{Kill: simenv.ProcessCrash, PowerLoss: simenv.PowerCrash}

func (s *stack) name() string {
	s.restarts++
	return fmt.Sprint("crash ", s.restarts)
}

// CrashAfter is Crasher's.
func (s *stack) CrashAfter(how Restart, operations int) (struck func() bool) {
	s.planned = s.disk.CrashCloneAt(uint64(operations), crashes[how], s.name())
	return func() bool { return s.planned() != nil }
}

// nobody is the transport of a member that stands alone.
type nobody struct{}

func (nobody) Send([]host.Envelope) {}

const theMember = id.Member(0x11)

// open assembles a member, as embed does, and waits until it serves.
func (s *stack) open() error {
	s.planned, s.world = nil, osenv.New()
	fs := syncing{s.disk.Mount()}
	db, err := memdb.Open(memdb.Options{FS: fs, Dir: "store", FlushBytes: 64 << 10})
	if err != nil {
		return err
	}
	machine, err := state.Open(id.DefaultGroup, db, "store/saves")
	if err != nil {
		return err
	}
	machine.KeepTips([]int{0, 1000, 1 << 20}[(s.seed+uint64(s.restarts))%3])
	machine.KeepCounts([]int{1, 0, 2, 128}[(s.seed+uint64(s.restarts))%4])
	log, err := raftlog.Open(raftlog.Options{
		FS: fs, Dir: "log", Rand: s.world.Rand, Tasks: s.world.Tasks, Clock: s.world.Clock,
		FirstSegmentBytes: 64 << 10, MaxSegmentBytes: 256 << 10,
	})
	if err != nil {
		return err
	}
	h := host.New(host.Options{
		Member: theMember, Clock: s.world.Clock, Rand: s.world.Rand, Tasks: s.world.Tasks, Log: log,
		Transport: nobody{}, Election: 300 * time.Millisecond, Heartbeat: 30 * time.Millisecond,
		Limits: host.Limits{FlushBytes: 128 << 10},
	})
	group, err := h.Open(id.DefaultGroup, machine, raft.Conf{Voters: []id.Member{theMember}})
	if err != nil {
		return err
	}
	s.host, s.db = h, db
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	s.ended = make(chan error, 1)
	go func(ended chan<- error) { ended <- h.Run(ctx) }(s.ended)
	member := server.New(server.Options{
		Member: theMember, Cluster: 0x22, Group: group, State: machine, Clock: s.world.Clock, Tasks: s.world.Tasks,
		Timeout: patience, MaxRequestBytes: 1536 << 10, MaxTxnOps: 128, Quota: 2 << 30,
	})
	s.pipe = &Pipe{Unary: s.spoiled(v3.CheckUnary(member))}
	v3.Register(s.pipe, member)
	return s.publish(member)
}

func (s *stack) spoiled(checks grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	if s.spoil == nil {
		return checks
	}
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		response, err := checks(ctx, request, info, next)
		return s.spoil(request, response, err)
	}
}

// publish waits for all that was acknowledged before and makes the member known.
func (s *stack) publish(member *server.Member) error {
	result := make(waiter, 1)
	member.Barrier(host.Call{To: result, Deadline: member.Deadline()})
	if r := <-result; r.Err != nil {
		return r.Err
	}
	facts := command.MemberPublish{Name: "alone", Version: command.Version{Major: 3, Minor: 7}}
	if !member.Publish(host.Call{To: result, Deadline: member.Deadline()}, facts) {
		if r := <-result; r.Err != nil {
			return r.Err
		}
	}
	for member.Upgrade() { // the cluster's version
		time.Sleep(time.Millisecond)
	}
	return nil
}

type waiter chan host.Result

func (w waiter) Push(r host.Result) { w <- r }

func (s *stack) close() error {
	if s.host == nil {
		return nil
	}
	s.stop()
	err := errors.Join(<-s.ended, s.host.Close())
	s.world.Stop()
	err = errors.Join(err, s.db.Close())
	s.host = nil
	return err
}
