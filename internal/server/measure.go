package server

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/measure"
	"github.com/kvorum/kvorum/internal/watch"
)

// Measured is what a member counts from its beginning on. Any goroutine may read it.
type Measured struct {
	// Renewed leases, here where this member led, or asked of the leader for others.
	Renewed atomic.Uint64
	// Hashes are how long sums of everything took, RevisionHashes those up to a revision.
	Hashes, RevisionHashes *measure.Histogram
	// Promoted learners; refusals of others are counted by their text.
	Promoted atomic.Uint64

	// clients is replaced as a whole, under mu.
	clients atomic.Pointer[map[Client]*atomic.Uint64]

	mu      sync.Mutex
	refused map[string]uint64
}

// Client is what is counted of a caller: the version of the API that it names, and
// whether it opened a stream.
type Client struct {
	Version string
	Stream  bool
}

// mostClients bounds the versions that are counted apart: a caller may name any.
// What is beyond, or longer than mostVersion, is counted as OtherClient.
const (
	mostClients = 64
	mostVersion = 32
	OtherClient = "other"
	// NoClient counts those that name none.
	NoClient = "unknown"
)

// CountClient counts a call; once a version was seen it costs a look into a map and
// an addition.
func (m *Member) CountClient(version string, stream bool) {
	if version == "" {
		version = NoClient
	}
	c := Client{Version: version, Stream: stream}
	if n := (*m.measured.clients.Load())[c]; n != nil {
		n.Add(1)
		return
	}
	m.measured.newClient(c).Add(1)
}

func (m *Measured) newClient(c Client) *atomic.Uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := *m.clients.Load()
	if len(known) >= mostClients || len(c.Version) > mostVersion {
		c.Version = OtherClient
	}
	if n := known[c]; n != nil {
		return n
	}
	next, n := maps.Clone(known), new(atomic.Uint64)
	c.Version = strings.Clone(c.Version)
	next[c] = n
	m.clients.Store(&next)
	return n
}

// Clients are the counts by client. The order of what is returned means nothing.
func (m *Measured) Clients() map[Client]uint64 {
	counts := map[Client]uint64{}
	for c, n := range *m.clients.Load() {
		counts[c] = n.Load()
	}
	return counts
}

func (m *Measured) init() {
	m.Hashes, m.RevisionHashes = measure.NewDurations(10*time.Millisecond, 15), measure.NewDurations(10*time.Millisecond, 15)
	m.refused = map[string]uint64{}
	m.clients.Store(&map[Client]*atomic.Uint64{})
}

// promoted counts what came of a promotion.
func (m *Measured) promoted(err error) {
	if err == nil {
		m.Promoted.Add(1)
		return
	}
	m.mu.Lock()
	m.refused[err.Error()]++
	m.mu.Unlock()
}

// NotPromoted counts the promotions of learners that were refused, by the reason.
func (m *Measured) NotPromoted() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.refused)
}

// Measured is what the member has counted so far; it goes on counting.
func (m *Member) Measured() *Measured { return &m.measured }

// Watches tells of the watches of this member's clients.
func (m *Member) Watches() watch.Tally { return m.hub.Tally() }

// hashed counts how long a hash took.
func (m *Member) hashed(rev id.Revision, took time.Duration) {
	if rev == 0 {
		m.measured.Hashes.Took(took)
	} else {
		m.measured.RevisionHashes.Took(took)
	}
}
