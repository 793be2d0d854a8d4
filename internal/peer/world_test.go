package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/id"
)

// clock counts from its own beginning.
type clock struct{ began time.Time }

func (c clock) Now() env.Instant { return env.Instant(time.Since(c.began)) }
func (c clock) Wall() time.Time  { return time.Now() }

// blob is a message that begins with its number.
type blob struct {
	number uint64
	length int
}

func (b blob) Size() int { return max(b.length, 8) }

func (b blob) AppendTo(buf []byte) []byte {
	buf = binary.LittleEndian.AppendUint64(buf, b.number)
	return append(buf, make([]byte, b.Size()-8)...)
}

func numberOf(data []byte) uint64 { return binary.LittleEndian.Uint64(data) }

// got is a message that arrived.
type got struct {
	from id.Member
	lane Lane
	data []byte
}

// lines is a log that tests look into.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range strings.Split(l.text.String(), "\n") {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// node is a member on a port of this machine.
type node struct {
	*Transport
	t       *testing.T
	url     string
	log     *lines
	inbox   chan got
	lost    chan id.Member
	removed chan id.Member
	http    net.Listener
}

const cluster = id.Cluster(0xc1)

// quick are limits for tests: connections are made again at once, but no slowness
// of the machine ends one.
var quick = Limits{Silence: 30 * time.Second, Backoff: 5 * time.Millisecond, MaxBackoff: 20 * time.Millisecond, Handshake: 5 * time.Second}

// impatient is for tests of silence.
func impatient(o *Options) { o.Limits.Silence = 300 * time.Millisecond }

// newNode starts a member; change may alter its options first.
func newNode(t *testing.T, member id.Member, change func(*Options)) *node {
	t.Helper()
	n := &node{t: t, log: &lines{}, inbox: make(chan got, 1<<17), lost: make(chan id.Member, 1<<12), removed: make(chan id.Member, 16)}
	o := Options{Member: member, Cluster: cluster, Version: "3.7.1", Clock: clock{time.Now()}, Limits: quick,
		Log:     slog.New(slog.NewTextHandler(n.log, nil)),
		Receive: func(from id.Member, lane Lane, data []byte) { n.inbox <- got{from, lane, data} },
		Lost:    func(m id.Member) { n.lost <- m },
		Removed: func(m id.Member) { n.removed <- m },
	}
	if change != nil {
		change(&o)
	}
	n.Transport = New(o)
	bound, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.url = "http://" + bound.Addr().String()
	n.http = n.Divert(bound)
	t.Cleanup(func() {
		n.http.Close()
		n.Close()
	})
	return n
}

func (n *node) address() Address { return Address{n.opts.Member, []string{n.url}} }

// meet makes members of nodes.
func meet(nodes ...*node) {
	var all []Address
	for _, n := range nodes {
		all = append(all, n.address())
	}
	for _, n := range nodes {
		n.SetMembers(all)
	}
}

// await waits for a condition that no event tells of.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// receive waits for the next message, or something else on a channel.
func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

func (n *node) connectedTo(m id.Member) bool {
	for _, s := range n.Peers() {
		if s.Member == m {
			return s.Connected == [lanes]bool{true, true, true}
		}
	}
	return false
}

func (n *node) awaitConnected(to ...*node) {
	n.t.Helper()
	for _, o := range to {
		await(n.t, "a connection", func() bool { return n.connectedTo(o.opts.Member) })
	}
}

func (n *node) awaitLine(part string) {
	n.t.Helper()
	await(n.t, "a line in the log with "+part, func() bool { return n.log.count(part) > 0 })
}

// proxy stands between two members and can cut, delay and blackhole.
type proxy struct {
	url    string
	target string
	l      net.Listener

	mu    sync.Mutex
	gate  chan struct{} // closed while bytes pass
	conns map[net.Conn]bool
	delay atomic.Int64
	flip  atomic.Bool // damage the next bytes that pass towards the target
	taken atomic.Int64
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	bound, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{url: "http://" + bound.Addr().String(), target: strings.TrimPrefix(target, "http://"), l: bound,
		gate: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(p.gate)
	go p.serve()
	t.Cleanup(func() {
		bound.Close()
		p.pass()
		p.cut()
	})
	return p
}

func (p *proxy) serve() {
	for {
		in, err := p.l.Accept()
		if err != nil {
			return
		}
		p.taken.Add(1)
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		p.conns[in], p.conns[out] = true, true
		p.mu.Unlock()
		go p.copy(out, in, true)
		go p.copy(in, out, false)
	}
}

func (p *proxy) copy(to, from net.Conn, damage bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		gate := p.gate
		p.mu.Unlock()
		<-gate
		time.Sleep(time.Duration(p.delay.Load()))
		if n > 0 && damage && p.flip.CompareAndSwap(true, false) {
			buf[n-1] ^= 1
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			break
		}
	}
	p.mu.Lock()
	delete(p.conns, to)
	delete(p.conns, from)
	p.mu.Unlock()
	to.Close()
	from.Close()
}

// cut ends all connections, which may be made again at once.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
	}
}

// hole lets nothing pass, without a word to anybody.
func (p *proxy) hole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
}

// pass ends a hole.
func (p *proxy) pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

// pair is two members that see each other through proxies: toB stands before b.
func pair(t *testing.T, change func(*Options)) (a, b *node, toA, toB *proxy) {
	t.Helper()
	a, b = newNode(t, 1, change), newNode(t, 2, change)
	toA, toB = newProxy(t, a.url), newProxy(t, b.url)
	all := []Address{{1, []string{toA.url}}, {2, []string{toB.url}}}
	a.SetMembers(all)
	b.SetMembers(all)
	a.awaitConnected(b)
	b.awaitConnected(a)
	return a, b, toA, toB
}

// fake is somebody who is made by hand: what it accepts, it answers as the test says.
func fake(t *testing.T, serve func(net.Conn)) (url string) {
	t.Helper()
	bound, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			conn, err := bound.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		stop()
		bound.Close()
		wg.Wait()
	})
	return "http://" + bound.Addr().String()
}

// takeHello reads a greeting by hand.
func takeHello(conn net.Conn) (hello, *frameReader, error) {
	if err := readMagic(conn); err != nil {
		return hello{}, nil, err
	}
	f := &frameReader{from: conn, limit: maxBody, fresh: 512}
	_, body, err := f.next()
	if err != nil {
		return hello{}, nil, err
	}
	h, no := decodeHello(body)
	if no != nil {
		return h, f, no
	}
	return h, f, nil
}

func mustFrame(kind byte, body appender) []byte {
	buf, err := appendFrame(nil, kind, body)
	if err != nil {
		panic(err)
	}
	return buf
}

// swallow reads until the other side is gone.
func swallow(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
