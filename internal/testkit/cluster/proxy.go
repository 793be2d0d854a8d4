package cluster

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// A Rule says what happens to what one member sends to another. The zero Rule
// lets everything through at once.
type Rule struct {
	// Delay is how much later everything arrives.
	Delay time.Duration
	// Blackhole keeps everything back, the end of connections too, until the rule
	// is lifted: as a network that drops packets, which TCP sends again.
	Blackhole bool
	// Cut breaks the connections that the one dialled to the other and refuses new
	// ones.
	Cut bool
}

// link is a direction: what goes from one member to another.
type link struct{ from, to string }

// network is all that lies between the members: before each member's peer port
// stands a listener of its own, whose address the member advertises.
type network struct {
	mu        sync.Mutex
	changed   chan struct{} // closed and replaced whenever a rule changes
	rules     map[link]Rule
	ids       map[uint64]string // who is who in a greeting
	conns     []*relay
	listeners []net.Listener
	closed    bool
}

func newNetwork() *network {
	return &network{changed: make(chan struct{}), rules: map[link]Rule{}, ids: map[uint64]string{}}
}

// know tells whose member id that is.
func (n *network) know(id uint64, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ids[id] = name
}

// set puts a rule in place; see Cluster.Link.
func (n *network) set(from, to string, r Rule) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rules[link{from, to}] = r
	close(n.changed)
	n.changed = make(chan struct{})
	if r.Cut {
		for _, c := range n.conns {
			if c.there == (link{from, to}) {
				c.close()
			}
		}
	}
}

// rule is that of a direction, with what tells when it may be another.
func (n *network) rule(l link) (Rule, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rules[l], n.changed
}

// stand opens the port that a member advertises; what comes goes to its own one.
func (n *network) stand(to, advertised, listens string) error {
	l, err := net.Listen("tcp", advertised)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.listeners = append(n.listeners, l)
	n.mu.Unlock()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go n.carry(conn, to, listens)
		}
	}()
	return nil
}

// The beginning of a connection between members (docs/format/peer.md): the magic,
// a frame's head, and in the greeting 11 bytes before the sender's id.
const (
	magic    = "\xCBKvorum\n"
	senderAt = len(magic) + 9 + 11
	opening  = senderAt + 8
)

// carry relays one connection. Those that are not of a member that is known, as a
// question over HTTP, follow the rules of a sender called "".
func (n *network) carry(from net.Conn, to, listens string) {
	head := make([]byte, opening)
	got, err := io.ReadFull(from, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		reset(from)
		return
	}
	c := &relay{n: n, done: make(chan struct{}), ends: []net.Conn{from}, there: link{"", to}}
	if got == opening && string(head[:len(magic)]) == magic {
		n.mu.Lock()
		c.there.from = n.ids[binary.LittleEndian.Uint64(head[senderAt:])]
		n.mu.Unlock()
	}
	if r, _ := n.rule(c.there); r.Cut {
		reset(from)
		return
	}
	into, err := net.Dial("tcp", listens)
	if err != nil {
		reset(from)
		return
	}
	c.ends = append(c.ends, into)
	n.mu.Lock()
	closed := n.closed
	n.conns = append(n.conns, c)
	n.mu.Unlock()
	if closed {
		c.close()
	}
	go c.flow(into, from, link{to, c.there.from}, nil)
	c.flow(from, into, c.there, head[:got])
	n.mu.Lock()
	n.conns = slices.DeleteFunc(n.conns, func(other *relay) bool { return other == c })
	n.mu.Unlock()
}

// close ends everything.
func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, l := range n.listeners {
		l.Close()
	}
	for _, c := range n.conns {
		c.close()
	}
}

// relay is one connection: there is the direction of who dialled.
type relay struct {
	n     *network
	there link
	ends  []net.Conn
	once  sync.Once
	done  chan struct{}
}

func (c *relay) close() {
	c.once.Do(func() {
		close(c.done)
		for _, end := range c.ends {
			reset(end)
		}
	})
}

// reset closes a connection as the end of its process does: at once.
func reset(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// parcel is what arrived in one piece, or the end.
type parcel struct {
	data []byte
	came time.Time
}

// flow carries one direction until it ends; first is what was read before.
func (c *relay) flow(from, to net.Conn, l link, first []byte) {
	parcels := make(chan parcel, 256)
	go func() {
		defer close(parcels)
		if len(first) > 0 {
			parcels <- parcel{first, time.Now()}
		}
		for {
			buf := make([]byte, 32<<10)
			size, err := from.Read(buf)
			select {
			case parcels <- parcel{buf[:size], time.Now()}: // of no bytes: the end
			case <-c.done:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range parcels {
		if !c.hold(l, p.came) {
			return
		}
		if len(p.data) == 0 {
			break
		}
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	c.close()
}

// hold waits until what came at a time may go on; false if the connection is
// over.
func (c *relay) hold(l link, came time.Time) bool {
	for {
		rule, changed := c.n.rule(l)
		var due <-chan time.Time
		if !rule.Blackhole {
			wait := time.Until(came.Add(rule.Delay))
			if rule.Delay == 0 || wait <= 0 {
				return true
			}
			due = time.After(wait)
		}
		select {
		case <-due:
			return true
		case <-changed:
		case <-c.done:
			return false
		}
	}
}
