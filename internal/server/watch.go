package server

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/watch"
)

// historyAtOnce is how many watches read history from disk at a time; the others
// wait. Readers and writers of now come first.
const historyAtOnce = 2

// mostRest is how long a reader of history rests at most after a slice, which takes
// about as long; less where the slice took less: together they leave one processor to
// others.
const mostRest = time.Millisecond

// fragmentOverhead is what a response may be larger than the largest command before
// it is sent in pieces (spec 3.4).
const fragmentOverhead = 512 << 10

// newHub makes the hub of this member's watches and has it told of what happens. room,
// if the disks are looked at, is what they have to spare.
func newHub(opts *Options, room *atomic.Int64) *watch.Hub {
	turn := make(chan struct{}, historyAtOnce)
	var spare func() int64
	if opts.Disk != nil {
		spare = room.Load
	}
	hub := watch.New(watch.Options{
		View: opts.State.KV, Rights: func() any { return opts.State.View().Auth() }, Tasks: opts.Tasks, FragmentBytes: opts.MaxRequestBytes + fragmentOverhead,
		Pause: runtime.Gosched, FS: opts.FS, Dir: opts.Saves, Room: spare, Far: opts.FarBehind, Unturned: opts.HistoryNews,
		Slowly: func(read func()) {
			turn <- struct{}{}
			defer func() { <-turn }()
			if opts.Rest == nil {
				read()
				return
			}
			begin := opts.Clock.Now()
			read()
			opts.Rest(min(opts.Clock.Now().Sub(begin), mostRest))
		},
	})
	rights := opts.State.View().Auth()
	opts.State.OnPublish(func() { // in the applier's turn, and so by one at a time
		hub.Published()
		if now := opts.State.View().Auth(); now != rights {
			rights = now
			hub.RightsChanged()
		}
	})
	return hub
}

// MayWatch judges a range that the caller wants to watch, as of now. Errors: those of
// the judgement.
func (s Session) MayWatch(key, end []byte) error {
	check := s.m.opts.State.View().Check(s.who)
	return check.Range(key, end)
}

// Watch opens a stream of watches on what this member applies. wake is called,
// without waiting and without a call back, when the stream has something to send;
// the caller closes it.
func (m *Member) Watch(wake func()) *watch.Stream { return m.hub.Open(wake) }

// EndWatches ends all streams of watches: the member stops, and clients go on
// elsewhere from where they are.
func (m *Member) EndWatches() { m.hub.Close() }

// leastProgress is the shortest time between bookmarks.
const leastProgress = 100 * time.Millisecond

// ProgressInterval is the time between bookmarks for idle watches.
func (m *Member) ProgressInterval() time.Duration {
	return max(m.opts.ProgressInterval, leastProgress)
}
