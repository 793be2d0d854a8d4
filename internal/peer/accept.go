package peer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/id"
)

var errTimeout = os.ErrDeadlineExceeded

// inKey names a connection made to us: a newer one takes the place of an older.
type inKey struct {
	from id.Member
	lane Lane
}

// incoming is a connection that was made to us and welcomed: messages come in on
// it, signs of life and answers go back.
type incoming struct {
	t    *Transport
	p    *peer
	conn net.Conn
	inKey
	ctx  context.Context
	stop context.CancelFunc
	open atomic.Int64  // questions that are being answered
	done chan struct{} // closed once nothing of it is received any more
	// replaced says that a newer connection takes its place. Guarded by t.mu.
	replaced bool

	mu      sync.Mutex // of writing
	buf     []byte
	silence time.Duration
	unsaid  int // bytes that came since the last sign of life
}

// Serve takes over a connection that another member made, and returns when it has
// ended. What it says begins with the magic; see Divert.
func (t *Transport) Serve(conn net.Conn) {
	defer cut(conn)
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	t.open[conn] = true
	t.wg.Add(1)
	t.mu.Unlock()
	defer t.wg.Done()
	defer func() {
		t.mu.Lock()
		delete(t.open, conn)
		t.mu.Unlock()
	}()
	frames := &frameReader{from: &patient{conn: conn}, limit: maxGreeting, fresh: 4 << 10}
	in, err := t.receive(conn, frames)
	if err != nil {
		t.refusedTo(conn, err)
		return
	}
	t.departed(in, in.serve(frames))
}

// receive takes a greeting and answers it.
func (t *Transport) receive(conn net.Conn, frames *frameReader) (*incoming, error) {
	if err := conn.SetDeadline(time.Now().Add(t.opts.Limits.Handshake)); err != nil {
		return nil, err
	}
	if err := readMagic(conn); err != nil {
		return nil, err
	}
	kind, body, err := frames.next()
	if err != nil {
		return nil, err
	}
	if kind != frameHello {
		return nil, errStrange
	}
	in, h, no := t.consider(conn, body)
	answer := reply{version: min(h.highest, highestVersion), cluster: t.opts.Cluster, member: t.opts.Member, server: t.opts.Version}
	if no != nil {
		answer.code, answer.version, answer.text = no.code, 0, no.text
	}
	buf, err := appendFrame(nil, frameReply, &answer)
	if err == nil {
		_, err = conn.Write(buf)
	}
	if no != nil {
		return nil, fmt.Errorf("member %v: %w", h.from, no)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		t.departed(in, err)
		return nil, err
	}
	return in, nil
}

// consider decides about a greeting. A connection that is welcomed is noted, in
// the place of an older one, which has ended by then.
func (t *Transport) consider(conn net.Conn, body []byte) (*incoming, hello, *refused) {
	h, no := decodeHello(body)
	if no == nil {
		no = t.check(&h)
	}
	if no != nil {
		return nil, h, no
	}
	patience := time.NewTimer(t.opts.Limits.Handshake / 2) // so that a refusal still arrives
	defer patience.Stop()
	for {
		in, older, no := t.register(conn, &h)
		if older == nil || no != nil {
			return in, h, no
		}
		// The order of a lane holds across its connections.
		cut(older.conn)
		select {
		case <-older.done:
		case <-patience.C:
			return nil, h, refuse(refusedBusy, "what came on an older connection is still being taken in")
		}
	}
}

// register notes a connection, or says which older one has to end first.
func (t *Transport) register(conn net.Conn, h *hello) (in, older *incoming, no *refused) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := inKey{h.from, h.lane}
	if older = t.incoming[key]; older != nil {
		older.replaced = true
		return nil, older, nil
	}
	p := t.peer(h.from)
	switch {
	case t.isRemoved(h.from):
		return nil, nil, refuse(refusedRemoved, "the member has been permanently removed from the cluster")
	case t.closed:
		return nil, nil, refuse(refusedBusy, "member %v stops", t.opts.Member)
	case p == nil:
		if p, no = t.admit(h); no != nil {
			return nil, nil, no
		}
	default:
		p.heard(h.urls)
	}
	in = &incoming{t: t, p: p, conn: conn, inKey: key, done: make(chan struct{}),
		silence: min(max(h.silence, 20*time.Millisecond), time.Minute)}
	in.ctx, in.stop = context.WithCancel(p.ctx)
	t.incoming[key] = in
	if h.lane == Control {
		p.connected(Control, "", h.server)
		for _, l := range p.lanes {
			l.knock(l.kick) // it is there: dial it at once
		}
	}
	return in, nil, nil
}

// check compares a greeting with who we are.
func (t *Transport) check(h *hello) *refused {
	switch {
	case h.cluster != t.opts.Cluster:
		return refuse(refusedCluster, "cluster ID mismatch: %v was meant, this is a member of %v", h.cluster, t.opts.Cluster)
	case h.from == t.opts.Member:
		return refuse(refusedMember, "member ID mismatch: both sides are member %v", h.from)
	case h.to != t.opts.Member:
		return refuse(refusedMember, "member ID mismatch: %v was meant, this is member %v", h.to, t.opts.Member)
	case h.from == 0:
		return refuse(refusedHello, "malformed greeting")
	}
	return nil
}

// maxGuests bounds the members that we do not know and talk to.
const maxGuests = 16

// admit makes a guest of a member that no list has: we may be the one who has
// fallen behind, and it the leader that brings us on. t.mu is held.
func (t *Transport) admit(h *hello) (*peer, *refused) {
	guests := 0
	for _, p := range *t.peers.Load() {
		if p.guest {
			guests++
		}
	}
	if guests >= maxGuests {
		return nil, refuse(refusedUnknown, "member %v is not known here, as are too many others", h.from)
	}
	p := t.start(h.from, nil, h.urls)
	p.guest = true
	next := maps.Clone(*t.peers.Load())
	next[h.from] = p
	t.peers.Store(&next)
	t.log.Info("a member that is not known here yet has connected", "peer-id", h.from.String(), "urls", h.urls)
	return p, nil
}

// departed forgets a connection that has ended.
func (t *Transport) departed(in *incoming, why error) {
	in.stop()
	t.mu.Lock()
	delete(t.incoming, in.inKey)
	p := in.p
	if p.guest && len(t.incomingOf([]*peer{p})) == 0 {
		next := maps.Clone(*t.peers.Load())
		delete(next, in.from)
		t.peers.Store(&next)
		p.stop()
	}
	replaced := in.replaced
	t.mu.Unlock()
	if !replaced && in.lane == Control {
		p.lost(Control, false, why)
	}
	close(in.done)
}

// refusedTo tells of a connection that was not welcomed, once in a while.
func (t *Transport) refusedTo(conn net.Conn, why error) {
	t.refusals.Add(1)
	host := conn.RemoteAddr().String()
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if text := plain(why); t.ctx.Err() == nil && t.news.is(host+" "+text) {
		t.log.Warn("refused a peer's connection", "remote-addr", conn.RemoteAddr().String(), "error", text)
	}
}

// serve takes what comes in until the connection is lost.
func (in *incoming) serve(frames *frameReader) error {
	frames.from = &patient{conn: in.conn, silence: in.silence, read: in.heard}
	frames.limit = maxBody
	if in.lane == Appends {
		frames.fresh = 64 << 10
	}
	for {
		kind, body, err := frames.next()
		if err != nil {
			return err
		}
		switch kind {
		case frameMessage:
			in.t.opts.Receive(in.from, in.lane, body)
		case framePing:
			err = in.write(framePong, raw(body))
		case frameAsk:
			q, ok := decodeQuestion(body)
			if !ok {
				return errStrange
			}
			in.answer(q)
		default:
			err = errStrange
		}
		if err != nil {
			return err
		}
	}
}

// heard gives a sign of life for every so many bytes that came: behind a long
// queue a ping alone would come too late.
func (in *incoming) heard(n int) error {
	in.p.received.Add(uint64(n))
	if in.unsaid += n; in.unsaid < gather {
		return nil
	}
	return in.write(framePong, raw(nil))
}

// write sends a frame back.
func (in *incoming) write(kind byte, body appender) (err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if kind == framePong {
		in.unsaid = 0
	}
	if in.buf, err = appendFrame(in.buf[:0], kind, body); err != nil {
		return err
	}
	for rest := in.buf; len(rest) > 0; {
		n := min(len(rest), piece)
		if err := in.conn.SetWriteDeadline(time.Now().Add(in.silence)); err != nil {
			return err
		}
		if _, err := in.conn.Write(rest[:n]); err != nil {
			cut(in.conn)
			return err
		}
		rest = rest[n:]
	}
	if cap(in.buf) > 4<<10 {
		in.buf = nil
	}
	return nil
}

// readMagic reads what every connection of ours begins with.
func readMagic(conn net.Conn) error {
	var head [len(magic)]byte
	for n := 0; n < len(head); {
		k, err := conn.Read(head[n:])
		if err != nil {
			return err
		}
		n += k
	}
	if string(head[:]) != magic {
		return errors.New("it does not speak this protocol")
	}
	return nil
}
