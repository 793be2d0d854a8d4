package peer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/id"
)

func TestMessagesArriveInOrderOnEveryLane(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	meet(a, b)
	a.awaitConnected(b)
	b.awaitConnected(a)
	const each = 2000
	size := func(i int) int { return []int{8, 300, 4000, 70000, 100}[i%5] }
	var wg sync.WaitGroup
	for _, side := range []struct{ from, to *node }{{a, b}, {b, a}} {
		for lane := range lanes {
			wg.Go(func() {
				for i := range each {
					m := blob{uint64(i), size(i)}
					for !side.from.Send(side.to.opts.Member, lane, m) { // the queue is full
						runtime.Gosched()
					}
				}
			})
		}
	}
	for _, n := range []*node{a, b} {
		var next [lanes]int
		for range each * int(lanes) {
			g := receive(t, "a message", n.inbox)
			if g.from == n.opts.Member || numberOf(g.data) != uint64(next[g.lane]) || len(g.data) != size(next[g.lane]) {
				t.Fatalf("from %v on %v: number %d of %d bytes, want %d", g.from, g.lane, numberOf(g.data), len(g.data), next[g.lane])
			}
			next[g.lane]++
		}
	}
	wg.Wait()
	if since, ok := a.ConnectedSince(2); !ok || since > a.opts.Clock.Now() {
		t.Errorf("connected since %v: %v", since, ok)
	}
	for _, s := range a.Peers() {
		if s.Version != "3.7.1" || s.URL != b.url || s.Sent[Appends] < each || s.Queued != [lanes]int{} {
			t.Errorf("status: %+v", s)
		}
	}
	if a.Send(9, Control, blob{}) || a.Send(1, Control, blob{}) {
		t.Error("a message to nobody was taken")
	}
}

// TestWhoIsRefusedIsToldWhy: both sides say so, once, however often it is tried.
func TestWhoIsRefusedIsToldWhy(t *testing.T) {
	for _, c := range []struct {
		what         string
		dialler      func(*Options)
		meant        id.Member // whom the dialler means by the URL
		dials, tells string
	}{
		{"another cluster", func(o *Options) { o.Cluster = 0xc2 }, 2, "cluster ID mismatch: c2 was meant, this is a member of c1", "member 1: cluster ID mismatch"},
		{"another member", nil, 3, "member ID mismatch: 3 was meant, this is member 2", "member 1: member ID mismatch"},
		{"the same member twice", func(o *Options) { o.Member = 2 }, 4, "member ID mismatch: both sides are member 2", "member 2: member ID mismatch"},
		{"a removed member", func(o *Options) { o.Member = 7 }, 2, "the member has been permanently removed from the cluster",
			"member 7: the member has been permanently removed from the cluster"},
	} {
		t.Run(c.what, func(t *testing.T) {
			a := newNode(t, 1, c.dialler)
			b := newNode(t, 2, func(o *Options) { o.IsRemoved = func(m id.Member) bool { return m == 7 } })
			b.SetMembers([]Address{b.address()})
			a.SetMembers([]Address{{c.meant, []string{b.url}}})
			a.awaitLine(c.dials)
			b.awaitLine(c.tells)
			if c.what == "a removed member" {
				if by := receive(t, "being told of the removal", a.removed); by != 2 {
					t.Errorf("told by %v", by)
				}
			}
			refusals := func() int { return int(b.Refusals()) }
			more := refusals() + 10
			await(t, "more attempts", func() bool { return refusals() >= more })
			if n := a.log.count("cannot connect to peer"); n != 1 {
				t.Errorf("the one who dials said it %d times:\n%s", n, a.log)
			}
			if n := b.log.count("refused a peer's connection"); n != 1 {
				t.Errorf("the other said it %d times:\n%s", n, b.log)
			}
			if len(a.removed) > 0 || len(b.inbox) > 0 || len(b.Peers()) > 0 {
				t.Errorf("%d more removals, %d messages, %v", len(a.removed), len(b.inbox), b.Peers())
			}
			if _, ok := a.ConnectedSince(c.meant); ok || a.Send(c.meant, Control, blob{}) {
				t.Error("a refused member counts as connected")
			}
		})
	}
}

func TestAnotherVersionIsRefused(t *testing.T) {
	b := newNode(t, 2, nil)
	conn, err := net.Dial("tcp", b.url[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h := hello{lowest: 2, highest: 5, cluster: cluster, from: 1, to: 2}
	if _, err := conn.Write(append([]byte(magic), mustFrame(frameHello, &h)...)); err != nil {
		t.Fatal(err)
	}
	f := &frameReader{from: conn, limit: maxBody, fresh: 512}
	_, body, err := f.next()
	r, err2 := decodeReply(body)
	want := "incompatible peer protocol: versions 2 to 5 were offered, this member speaks 1 to 1"
	if err != nil || err2 != nil || r.code != refusedVersion || r.text != want {
		t.Errorf("%+v, %v, %v", r, err, err2)
	}
	if _, _, err := f.next(); err != io.EOF {
		t.Errorf("after the refusal: %v", err)
	}
	b.awaitLine(want)

	// And the other way round: an acceptor that knows later versions only.
	a := newNode(t, 1, nil)
	place := fake(t, func(conn net.Conn) {
		if _, _, err := takeHello(conn); err == nil {
			conn.Write(mustFrame(frameReply, &reply{code: refusedVersion, text: "incompatible peer protocol: from the future"}))
		}
	})
	a.SetMembers([]Address{{3, []string{place}}})
	a.awaitLine("from the future")
}

// TestNoPeerOfOurs: whatever listens there, the line in the log says what it is.
func TestNoPeerOfOurs(t *testing.T) {
	web := fake(t, func(conn net.Conn) {
		fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
		swallow(conn)
	})
	other := fake(t, func(conn net.Conn) {
		if _, _, err := takeHello(conn); err == nil {
			conn.Write(mustFrame(frameReply, &reply{code: welcome, version: 1, cluster: cluster, member: 77}))
			swallow(conn)
		}
	})
	a := newNode(t, 1, nil)
	a.SetMembers([]Address{{2, []string{web}}, {3, []string{other}}, {4, []string{"https://127.0.0.1:1"}}, {5, []string{"ftp://127.0.0.1:1"}}, {6, nil}})
	a.awaitLine("answers in HTTP")
	a.awaitLine("member 4d of cluster c1 answered for member 3 of c1")
	a.awaitLine("no TLS configuration")
	a.awaitLine("unknown scheme")
	a.awaitLine("no URL of it is known")
}

func TestAfterACutBothSidesKnowAndMeetAgain(t *testing.T) {
	a, b, toA, toB := pair(t, nil)
	for round := range 5 {
		toA.cut()
		toB.cut()
		if receive(t, "the loss", a.lost) != 2 || receive(t, "the loss", b.lost) != 1 {
			t.Fatal("somebody else was lost")
		}
		await(t, "a message to get through", func() bool {
			a.Send(2, Control, blob{number: uint64(round)})
			for len(b.inbox) > 0 {
				if numberOf((<-b.inbox).data) == uint64(round) {
					return true
				}
			}
			return false
		})
		a.awaitConnected(b)
		b.awaitConnected(a)
		for len(a.lost)+len(b.lost) > 0 { // each connection that was cut may have told
			select {
			case <-a.lost:
			case <-b.lost:
			}
		}
	}
}

// TestAHalfOpenConnectionIsFoundOut: nothing passes and nobody closes. An idle lane
// and one that is stuffed are found out alike.
func TestAHalfOpenConnectionIsFoundOut(t *testing.T) {
	for _, stuffed := range []bool{false, true} {
		a, b, toA, toB := pair(t, impatient)
		toA.hole()
		toB.hole()
		began := time.Now()
		for i := 0; stuffed && i < 1000; i++ {
			a.Send(2, Appends, blob{length: 64 << 10})
		}
		receive(t, "the loss", a.lost)
		receive(t, "the loss", b.lost)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("stuffed %v: found out after %v", stuffed, took)
		}
		await(t, "no lane to be connected, and nothing to be kept", func() bool {
			s := a.Peers()[0]
			return s.Connected == [lanes]bool{} && s.Queued == [lanes]int{}
		})
		a.awaitLine("peer became inactive")
		toA.pass()
		toB.pass()
		a.awaitConnected(b)
		b.awaitConnected(a)
	}
}

// TestASlowLinkIsNotADeadOne: signs of life are behind megabytes in the sockets'
// buffers for longer than the silence that is endured; what gets through counts.
func TestASlowLinkIsNotADeadOne(t *testing.T) {
	a, b, _, toB := pair(t, func(o *Options) { o.Limits.Silence = 700 * time.Millisecond })
	toB.delay.Store(int64(5 * time.Millisecond)) // for every 32 KB
	began := time.Now()
	const count, size = 100, 160 << 10
	for i := range count {
		if !a.Send(2, Appends, blob{uint64(i), size}) {
			t.Fatal("no room")
		}
	}
	for i := range count {
		if g := receive(t, "a message", b.inbox); numberOf(g.data) != uint64(i) {
			t.Fatalf("%d instead of %d", numberOf(g.data), i)
		}
	}
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("the link was not slow: %v", took)
	}
	if len(a.lost)+len(b.lost) > 0 {
		t.Errorf("a slow link was taken for a dead one:\n%s", a.log)
	}
}

// TestAStuffedLaneDelaysNoHeartbeat: 100 MB are thrown at a member that takes no
// appends; control passes, memory is bounded, and the order holds.
func TestAStuffedLaneDelaysNoHeartbeat(t *testing.T) {
	held := make(chan struct{})
	var b *node
	a := newNode(t, 1, nil)
	b = newNode(t, 2, func(o *Options) {
		take := o.Receive
		o.Receive = func(from id.Member, lane Lane, data []byte) {
			if lane == Appends {
				<-held
			}
			take(from, lane, data)
		}
	})
	release := sync.OnceFunc(func() { close(held) })
	t.Cleanup(release)
	meet(a, b)
	a.awaitConnected(b)
	b.awaitConnected(a)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const size = 64 << 10
	taken := 0
	for i := range 100 << 20 / size {
		if a.Send(2, Appends, blob{uint64(i), size}) {
			taken++
		}
		if i%16 == 0 {
			a.Send(2, Control, blob{number: uint64(i)})
			if g := receive(t, "a heartbeat", b.inbox); g.lane != Control || numberOf(g.data) != uint64(i) {
				t.Fatalf("%v %d arrived", g.lane, numberOf(g.data))
			}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	s := a.Peers()[0]
	if s.Queued[Appends] > 16<<20 || s.Dropped[Appends] == 0 || int(s.Dropped[Appends])+taken != 100<<20/size {
		t.Errorf("%d taken: %+v", taken, s)
	}
	if room := a.Room(2, Appends); room > 8<<20 || a.Room(2, Control) == 0 || a.Room(9, Control) != 0 {
		t.Errorf("room for %d bytes", room)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 24<<20 {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
	release()
	for last := -1; taken > 0; taken-- {
		g := receive(t, "what was taken", b.inbox)
		if n := int(numberOf(g.data)); n <= last || len(g.data) != size {
			t.Fatalf("%d came after %d", n, last)
		} else {
			last = n
		}
	}
}

// sleeper is a member that greets and then neither reads nor says anything.
func sleeper(t *testing.T) (place string) {
	asleep := make(chan struct{})
	place = fake(t, func(conn net.Conn) {
		if _, _, err := takeHello(conn); err == nil {
			conn.Write(mustFrame(frameReply, &reply{code: welcome, version: 1, cluster: cluster, member: 2}))
			<-asleep
		}
	})
	t.Cleanup(func() { close(asleep) }) // before those who sleep are waited for
	return place
}

// TestAStuckConnectionMayEndBeforeASilentOne: what takes nothing is given up after its own
// time, long before the silence on it has lasted too long.
func TestAStuckConnectionMayEndBeforeASilentOne(t *testing.T) {
	place := sleeper(t)
	a := newNode(t, 1, func(o *Options) { o.Limits.Stall = 100 * time.Millisecond })
	a.SetMembers([]Address{{2, []string{place}}})
	a.awaitConnected(&node{Transport: New(Options{Member: 2})})
	for range 200 {
		a.Send(2, Appends, blob{length: 64 << 10})
	}
	receive(t, "the loss", a.lost)
}

// TestSomebodyWhoReadsNothing: Send goes on, and the connection is given up.
func TestSomebodyWhoReadsNothing(t *testing.T) {
	place := sleeper(t)
	a := newNode(t, 1, impatient)
	a.SetMembers([]Address{{2, []string{place}}})
	a.awaitConnected(&node{Transport: New(Options{Member: 2})})
	sent := 0
	for range 1600 {
		if a.Send(2, Snapshots, blob{length: 64 << 10}) {
			sent++
		}
	}
	if sent == 1600 {
		t.Error("100 MB were taken for somebody who reads nothing")
	}
	receive(t, "the loss of the other lanes", a.lost)
	await(t, "nothing to be kept", func() bool { return a.Peers()[0].Queued[Snapshots] == 0 })
}

func TestAMemberThatIsNotThereCostsNothing(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	a := newNode(t, 1, nil)
	a.SetMembers([]Address{{2, []string{"http://" + nobody.Addr().String()}}})
	for range 1000 {
		a.Send(2, Appends, blob{length: 100 << 10})
		a.Send(2, Control, blob{length: 100})
	}
	if s := a.Peers()[0]; s.Queued[Appends]+s.Queued[Control] > 2*keptWhileTrying {
		t.Errorf("kept for nobody: %+v", s)
	}
	a.awaitLine("connection refused")
	if a.Send(2, Control, blob{}) || a.Peers()[0].Queued != [lanes]int{} {
		t.Errorf("kept for nobody: %+v", a.Peers()[0])
	}
	if len(a.lost) > 0 {
		t.Error("what was never there was lost")
	}
}

// TestWhatIsSentBeforeTheFirstConnectionIsKept: the first votes of a cluster that
// starts are not lost.
func TestWhatIsSentBeforeTheFirstConnectionIsKept(t *testing.T) {
	b := newNode(t, 2, nil)
	p := newProxy(t, b.url)
	p.hole()
	a := newNode(t, 1, nil)
	a.SetMembers([]Address{{2, []string{p.url}}})
	for i := range 10 {
		if !a.Send(2, Control, blob{number: uint64(i)}) {
			t.Fatal("not taken")
		}
	}
	p.pass()
	for i := range 10 {
		if g := receive(t, "what was sent early", b.inbox); numberOf(g.data) != uint64(i) {
			t.Errorf("%d instead of %d", numberOf(g.data), i)
		}
	}
}

// TestDamageOnTheWayIsNotHandedOver: the connection ends instead.
func TestDamageOnTheWayIsNotHandedOver(t *testing.T) {
	a, b, _, toB := pair(t, nil)
	for i := range 200 {
		if i%10 == 0 {
			toB.flip.Store(true)
		}
		m := blob{uint64(i), 5000}
		await(t, "room", func() bool { return a.Send(2, Appends, m) })
	}
	await(t, "the last one to arrive", func() bool {
		a.Send(2, Appends, blob{1000, 5000})
		for len(b.inbox) > 0 {
			g := <-b.inbox
			if !bytes.Equal(g.data, blob{numberOf(g.data), 5000}.AppendTo(nil)) {
				t.Fatal("damaged data was handed over")
			}
			if numberOf(g.data) == 1000 {
				return true
			}
		}
		return false
	})
	if len(a.lost) == 0 && len(b.lost) == 0 {
		t.Error("nothing was noticed")
	}
}

func TestUnixSockets(t *testing.T) {
	name := t.TempDir() + "/peer"
	bound, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	rest := b.Divert(bound)
	defer rest.Close()
	a.SetMembers([]Address{{2, []string{"unix://" + name}}})
	a.awaitConnected(b)
}

func TestHTTPSharesThePort(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "path "+r.URL.Path) })}
	go web.Serve(b.http)
	t.Cleanup(func() { web.Close() })
	meet(a, b)
	a.awaitConnected(b)
	resp, err := http.Get(b.url + "/version")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "path /version" {
		t.Errorf("%q, %v", text, err)
	}
	if err := b.http.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.http.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepting after the end: %v", err)
	}
	if !a.connectedTo(2) {
		t.Error("the end of the listener ended what was served")
	}
}

func openFiles(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(list)
}

// TestAThousandReconnectsLeaveNothingBehind: no goroutine, no file, no memory of
// connections.
func TestAThousandReconnectsLeaveNothingBehind(t *testing.T) {
	a, b, toA, toB := pair(t, func(o *Options) {
		o.Limits = Limits{Silence: 10 * time.Second, Backoff: time.Microsecond, MaxBackoff: time.Microsecond}
	})
	files, routines, same := 0, 0, 0
	await(t, "the connections to be served", func() bool { // a connection is told of before all that serves it runs
		f, r := openFiles(t), runtime.NumGoroutine()
		if same++; f != files || r != routines {
			files, routines, same = f, r, 0
		}
		return same == 50
	})
	goal := toA.taken.Load() + toB.taken.Load() + 1000
	for toA.taken.Load()+toB.taken.Load() < goal {
		toA.cut()
		toB.cut()
		a.awaitConnected(b)
		b.awaitConnected(a)
	}
	await(t, "everything of before to be gone", func() bool {
		return openFiles(t) <= files && runtime.NumGoroutine() <= routines && a.connectedTo(2) && b.connectedTo(1)
	})
	for _, n := range []*node{a, b} {
		n.mu.Lock()
		if len(n.incoming) != int(lanes) || len(n.open) != int(lanes) {
			t.Errorf("%d incoming connections, %d open", len(n.incoming), len(n.open))
		}
		n.mu.Unlock()
	}
}

// TestAfterCloseNothingIsCalled: and nothing is left running.
func TestAfterCloseNothingIsCalled(t *testing.T) {
	routines := runtime.NumGoroutine()
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	meet(a, b)
	a.awaitConnected(b)
	b.awaitConnected(a)
	a.Close()
	if a.Send(2, Control, blob{}) {
		t.Error("a message was taken after the end")
	}
	a.SetMembers([]Address{b.address()})
	if receive(t, "the loss", b.lost) != 1 || len(a.lost) > 0 {
		t.Error("who closes has lost nothing, the other has")
	}
	ours, theirs := net.Pipe()
	a.Serve(theirs)
	if _, err := ours.Write([]byte{1}); err == nil {
		t.Error("a connection was served after the end")
	}
	a.http.Close()
	b.Close()
	b.http.Close()
	await(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= routines })
}

func TestANewerConnectionTakesThePlaceOfAnOlder(t *testing.T) {
	b := newNode(t, 2, nil)
	b.SetMembers([]Address{{1, nil}, b.address()})
	greet := func() (net.Conn, *frameReader) {
		conn, f, r := greetByHand(t, b)
		if r.code != welcome {
			t.Fatalf("%+v", r)
		}
		return conn, f
	}
	older, of := greet()
	older.Write(mustFrame(frameMessage, blob{number: 1}))
	receive(t, "the first message", b.inbox)
	newer, nf := greet()
	if _, _, err := of.next(); err == nil {
		t.Error("the older one still stands")
	}
	newer.Write(mustFrame(frameMessage, blob{number: 2}))
	if g := receive(t, "the second message", b.inbox); numberOf(g.data) != 2 {
		t.Errorf("%d arrived", numberOf(g.data))
	}
	if len(b.lost) > 0 {
		t.Error("a connection that was replaced is no loss")
	}
	newer.Write(mustFrame(frameReply, raw(nil)))
	if _, _, err := nf.next(); err == nil {
		t.Error("a frame that has no place was taken")
	}
	receive(t, "the loss", b.lost)
}

// greetByHand dials n as member 1 and returns its answer.
func greetByHand(t *testing.T, n *node) (net.Conn, *frameReader, reply) {
	t.Helper()
	conn, err := net.Dial("tcp", n.url[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	h := hello{lowest: 1, highest: 1, lane: Control, cluster: cluster, from: 1, to: 2, silence: time.Minute}
	if _, err := conn.Write(append([]byte(magic), mustFrame(frameHello, &h)...)); err != nil {
		t.Fatal(err)
	}
	f := &frameReader{from: conn, limit: maxBody, fresh: 512}
	_, body, err := f.next()
	if err != nil {
		t.Fatal(err)
	}
	r, err := decodeReply(body)
	if err != nil {
		t.Fatal(err)
	}
	return conn, f, r
}

// TestNothingOvertakesAcrossConnections: what came on an older connection is taken
// in before anything of a newer one.
func TestNothingOvertakesAcrossConnections(t *testing.T) {
	entered, held := make(chan struct{}, 1), make(chan struct{})
	b := newNode(t, 2, func(o *Options) {
		o.Limits.Handshake = 100 * time.Millisecond
		take := o.Receive
		o.Receive = func(from id.Member, lane Lane, data []byte) {
			entered <- struct{}{}
			<-held
			take(from, lane, data)
		}
	})
	release := sync.OnceFunc(func() { close(held) })
	t.Cleanup(release)
	b.SetMembers([]Address{{1, nil}, b.address()})
	older, _, _ := greetByHand(t, b)
	older.Write(mustFrame(frameMessage, blob{number: 1}))
	receive(t, "the first message to be under way", entered)
	if _, _, r := greetByHand(t, b); r.code != refusedBusy {
		t.Errorf("a newer connection while that lasts: %+v", r)
	}
	release()
	newer, _, r := greetByHand(t, b)
	if r.code != welcome {
		t.Fatalf("after it: %+v", r)
	}
	newer.Write(mustFrame(frameMessage, blob{number: 2}))
	for want := range uint64(2) {
		if g := receive(t, "a message", b.inbox); numberOf(g.data) != want+1 {
			t.Errorf("%d instead of %d", numberOf(g.data), want+1)
		}
	}
}

// TestManyMembers: everybody hears everybody.
func TestManyMembers(t *testing.T) {
	var nodes []*node
	for i := range 7 {
		nodes = append(nodes, newNode(t, id.Member(i+1), nil))
	}
	meet(nodes...)
	for _, n := range nodes {
		for _, o := range nodes {
			if n != o {
				n.awaitConnected(o)
				n.Send(o.opts.Member, Control, blob{number: uint64(n.opts.Member)})
			}
		}
	}
	for _, n := range nodes {
		var from []id.Member
		for range len(nodes) - 1 {
			g := receive(t, "a message of everybody", n.inbox)
			if id.Member(numberOf(g.data)) != g.from {
				t.Errorf("%d came from %v", numberOf(g.data), g.from)
			}
			from = append(from, g.from)
		}
		if slices.Sort(from); len(slices.Compact(from)) != len(nodes)-1 {
			t.Errorf("%v heard %v", n.opts.Member, from)
		}
	}
}
