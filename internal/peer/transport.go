package peer

import (
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/measure"
)

// Lane is one of the ways to another member: messages of one lane arrive in the
// order in which they were sent, or not at all.
type Lane uint8

// The lanes. The numbers are those of the protocol.
const (
	// Control has what is small and urgent, and the questions of Ask.
	Control Lane = iota
	Appends
	Snapshots
	lanes
)

// String names a lane in logs.
func (l Lane) String() string {
	switch l {
	case Control:
		return "control"
	case Appends:
		return "appends"
	case Snapshots:
		return "snapshots"
	}
	return "unknown"
}

// Message is what is sent. AppendTo is called once, some time after Send, on the
// goroutine that writes to the connection: what it reads must not change. Size is
// about how many bytes the message holds until then and takes on the wire.
type Message interface {
	AppendTo(buf []byte) []byte
	Size() int
}

// Address says where a member listens for its peers: URLs with the scheme http,
// https, unix or unixs.
type Address struct {
	ID   id.Member
	URLs []string
}

// Options are what a Transport is made of.
type Options struct {
	Member  id.Member
	Cluster id.Cluster
	// Version is that of this program; the others show it.
	Version string
	// ClientTLS makes the configuration for one connection to an https or unixs URL;
	// without it they are errors. The server's name is that of the URL's host unless
	// it is set.
	ClientTLS func() *tls.Config
	// From is the address that connections are made from; nil is the system's choice.
	From  net.IP
	Log   *slog.Logger // nil is none
	Clock env.Clock
	// Receive is handed what arrives, on the goroutine that reads the connection; it
	// should not wait, as nothing more of that lane is read meanwhile. data is its to
	// keep, read-only and sharing a block of at most 256 KB with its neighbours.
	Receive func(from id.Member, lane Lane, data []byte)
	// Answer answers the Asks of others, each on a goroutine of its own. ctx ends
	// with the asker's deadline or its connection. nil refuses all.
	Answer func(ctx context.Context, from id.Member, kind uint8, body []byte) ([]byte, error)
	// IsRemoved, when set, says whether a member was removed from the cluster: it is
	// refused for good. It is asked by every greeting and by SetMembers, must not wait,
	// and must not call the Transport.
	IsRemoved func(id.Member) bool
	// Lost, when set, is told once when a connection to or from a member is lost that
	// messages may have been lost with. It must not wait.
	Lost func(id.Member)
	// Removed, when set, is told once when another member says that this one was
	// removed from the cluster for good. It must not wait.
	Removed func(by id.Member)
	Limits  Limits
}

// Limits bound queues and time; zero values are the defaults.
type Limits struct {
	// ControlBytes, AppendBytes and SnapshotBytes bound what waits for one member on
	// one lane (2 MB, 16 MB, 8 MB). A single message always fits into an empty queue.
	ControlBytes, AppendBytes, SnapshotBytes int
	// Silence is how long a connection may be silent before it is given up (1 s, at
	// least 20 ms), Ping how often a sign of life is asked for (a quarter of that). The
	// other end is told both, and holds to at most a minute of silence.
	Silence, Ping time.Duration
	// Stall is how long a connection that we made may take nothing of 128 KB that are
	// written to it (Silence).
	Stall time.Duration
	// Handshake bounds dialling, TLS and greetings (Silence, but at least 1 s).
	Handshake time.Duration
	// Backoff is the first pause between attempts to connect, MaxBackoff the longest
	// (50 ms and 1 s; each is drawn between half of it and the whole). After the loss
	// of a connection that had lasted the first attempt is made at once.
	Backoff, MaxBackoff time.Duration
	// Asks bounds the questions that are open on one connection (1024), in either
	// direction.
	Asks int
}

func orDefault[T int | time.Duration](value, standard T) T {
	if value <= 0 {
		return standard
	}
	return value
}

func (l Limits) withDefaults() Limits {
	l.ControlBytes = orDefault(l.ControlBytes, 2<<20)
	l.AppendBytes = orDefault(l.AppendBytes, 16<<20)
	l.SnapshotBytes = orDefault(l.SnapshotBytes, 8<<20)
	l.Silence = max(orDefault(l.Silence, time.Second), 20*time.Millisecond)
	l.Ping = orDefault(l.Ping, l.Silence/4)
	l.Stall = orDefault(l.Stall, l.Silence)
	l.Handshake = orDefault(l.Handshake, max(l.Silence, time.Second))
	l.Backoff = orDefault(l.Backoff, 50*time.Millisecond)
	l.MaxBackoff = max(orDefault(l.MaxBackoff, time.Second), l.Backoff)
	l.Asks = orDefault(l.Asks, 1024)
	return l
}

func (l *Limits) queue(lane Lane) int {
	return [lanes]int{l.ControlBytes, l.AppendBytes, l.SnapshotBytes}[lane]
}

// Transport is one member's end of all its connections with the others.
type Transport struct {
	opts Options
	log  *slog.Logger
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
	told sync.Once // Removed
	news news      // refusals that we gave

	refusals atomic.Uint64

	// peers is replaced as a whole, under mu.
	peers atomic.Pointer[map[id.Member]*peer]

	mu     sync.Mutex
	closed bool
	urls   []string          // where this member listens
	open   map[net.Conn]bool // connections made to us
	// incoming are those that were welcomed.
	incoming map[inKey]*incoming
}

// New returns a Transport that knows no other member yet.
func New(o Options) *Transport {
	o.Limits = o.Limits.withDefaults()
	t := &Transport{opts: o, log: o.Log, open: map[net.Conn]bool{},
		incoming: map[inKey]*incoming{}}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.peers.Store(&map[id.Member]*peer{})
	return t
}

// SetMembers says who the members are: connections to new ones are begun, those
// with changed URLs are moved when the URL in use is gone, and those of members
// that the list no longer has are ended. Such a one is refused for good only if
// Options.IsRemoved says so: a list may be behind. This member's own URLs are told to
// the others: one that is behind can so answer a member that it does not know yet.
func (t *Transport) SetMembers(members []Address) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	next := maps.Clone(*t.peers.Load())
	listed := map[id.Member]bool{}
	for _, m := range members {
		listed[m.ID] = true
	}
	var gone []*peer
	for who, p := range next {
		if !listed[who] && (!p.guest || t.isRemoved(who)) {
			gone = append(gone, p)
			delete(next, who)
		}
	}
	for _, m := range members {
		switch p := next[m.ID]; {
		case m.ID == t.opts.Member:
			t.urls = slices.Clone(m.URLs)
		case p != nil:
			p.guest = false
			p.move(m.URLs)
		default:
			next[m.ID] = t.start(m.ID, m.URLs, nil)
		}
	}
	t.peers.Store(&next)
	ended := t.incomingOf(gone)
	t.mu.Unlock()
	for _, p := range gone {
		p.stop()
	}
	for _, in := range ended {
		cut(in.conn)
	}
}

func (t *Transport) isRemoved(m id.Member) bool {
	return t.opts.IsRemoved != nil && t.opts.IsRemoved(m)
}

// incomingOf lists the connections that come from some members; t.mu is held.
func (t *Transport) incomingOf(from []*peer) (list []*incoming) {
	for key, in := range t.incoming {
		if slices.ContainsFunc(from, func(p *peer) bool { return p.id == key.from }) {
			list = append(list, in)
		}
	}
	return list
}

func (t *Transport) peer(m id.Member) *peer { return (*t.peers.Load())[m] }

// Send sends a message and never waits. It says whether the message was queued:
// false when the member is unknown or not connected, or the lane's queue is full.
// What was queued may still be lost.
func (t *Transport) Send(to id.Member, lane Lane, m Message) bool {
	p := t.peer(to)
	return p != nil && p.lanes[lane].send(item{kind: frameMessage, message: m, size: m.Size()})
}

// Room is how many bytes may still be queued for a member on a lane; 0 when it is
// not connected.
func (t *Transport) Room(to id.Member, lane Lane) int {
	p := t.peer(to)
	if p == nil {
		return 0
	}
	return p.lanes[lane].room()
}

// ConnectedSince says since when the control connection to a member stands, and
// whether it does: it answers signs of life, so both directions work.
func (t *Transport) ConnectedSince(m id.Member) (env.Instant, bool) {
	p := t.peer(m)
	if p == nil {
		return 0, false
	}
	return p.connectedSince()
}

// Status is a look at the connections to one member.
type Status struct {
	Member id.Member
	// Connected says which lanes stand, URL where the control one leads.
	Connected [lanes]bool
	URL       string
	// Version is that of the other program; RoundTrip the time of the last sign of
	// life on the control lane.
	Version   string
	RoundTrip time.Duration
	// Queued bytes wait on each lane; Sent and Dropped count messages since start.
	Queued        [lanes]int
	Sent, Dropped [lanes]uint64
	// RoundTrips are all of them since the member is known; SentBytes went on our
	// connections to it, ReceivedBytes came on its connections to us, of which Cuts were
	// lost. Losses are our control connections to it that were.
	RoundTrips               measure.Distribution
	SentBytes, ReceivedBytes uint64
	Cuts, Losses             uint64
}

// Peers lists the other members, ascending.
func (t *Transport) Peers() []Status {
	var list []Status
	for _, p := range *t.peers.Load() {
		list = append(list, p.status())
	}
	slices.SortFunc(list, func(a, b Status) int {
		if a.Member < b.Member {
			return -1
		}
		return 1
	})
	return list
}

// Refusals counts the connections made to us that were not welcomed.
func (t *Transport) Refusals() uint64 { return t.refusals.Load() }

// Close ends all connections, those that Serve has too, and waits until nothing
// runs any more. No callback is called after it.
func (t *Transport) Close() {
	t.mu.Lock()
	t.closed = true
	t.stop()
	for conn := range t.open {
		cut(conn)
	}
	t.mu.Unlock()
	t.wg.Wait()
}
