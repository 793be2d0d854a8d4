package embed

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/testkit/wire"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// What gRPC's own layer is told wrongly: content types, methods, headers.
func TestCallsThatAreNoneOfOurs(t *testing.T) {
	m := startMember(t, t.TempDir())
	fourPuts(t, m.conn)
	before := m.calmNow(t)
	put := encoded(&pb.PutRequest{Key: []byte("k"), Value: []byte("w")})
	read := encoded(&pb.RangeRequest{Key: []byte("k")})
	cases := []struct {
		what, path string
		message    []byte
		more       []string
		http       string
		code       codes.Code
		text       string
		dropped    bool // the stream is reset or the connection closed, or HTTP answers in gRPC's place
	}{
		{"an unknown service", "/etcdserverpb.Nothing/Put", put, nil, "200", codes.Unimplemented, "unknown service etcdserverpb.Nothing", false},
		{"an unknown method", "/etcdserverpb.KV/Nothing", put, nil, "200", codes.Unimplemented, "unknown method Nothing for service etcdserverpb.KV", false},
		{"a path without method", "/etcdserverpb.KV", put, nil, "200", codes.Unimplemented, "malformed method name: \"/etcdserverpb.KV\"", false},
		{"a path without slash", "etcdserverpb.KV/Put", put, nil, "200", codes.Unimplemented, "malformed method name: \"etcdserverpb.KV/Put\"", false},
		{"an empty path", "", put, nil, "", 0, "", true},
		{"a web page's content type", pb.KV_Put_FullMethodName, put, []string{"content-type", "text/html"}, "", 0, "", true},
		{"no content type", pb.KV_Put_FullMethodName, put, []string{"content-type", "-"}, "", 0, "", true},
		{"JSON", pb.KV_Put_FullMethodName, []byte(`{"key":"aw=="}`), []string{"content-type", "application/grpc+json"}, "200", codes.Internal, "", false},
		{"GET", pb.KV_Put_FullMethodName, put, []string{":method", "GET"}, "405", codes.Internal, "", false},
		{"no te", pb.KV_Range_FullMethodName, read, []string{"te", "-"}, "200", codes.OK, "", false},
		{"a connection header", pb.KV_Put_FullMethodName, put, []string{"connection", "close"}, "", 0, "", true},
		{"two hosts", pb.KV_Range_FullMethodName, read, []string{"host", "other"}, "200", codes.OK, "", false},
	}
	for _, c := range cases {
		w := wire.Dial(t, m.client)
		a := w.Call(c.path, c.message, c.more...)
		dropped := !a.Status && (a.Reset != 0 || w.Gone != nil || a.HTTP != "200")
		switch {
		case c.dropped != dropped:
			t.Errorf("%s: %v, connection %v", c.what, a, w.Gone)
		case !c.dropped && (a.HTTP != c.http || a.Code != c.code || c.text != "" && a.Text != c.text):
			t.Errorf("%s: %v, want http %s, %v %q", c.what, a, c.http, c.code, c.text)
		}
		w.Net.Close()
	}
	w := wire.Dial(t, m.client)
	for _, c := range []struct {
		what    string
		payload []byte
		code    codes.Code
	}{
		{"no message", nil, codes.Internal},
		{"half a head", []byte{0, 0}, codes.Internal},
		{"half a message", wire.Framed(false, put)[:7], codes.Internal},
		{"an unknown flag", append([]byte{7}, wire.Framed(false, put)[1:]...), codes.Internal},
		{"two messages", append(wire.Framed(false, put), wire.Framed(false, put)...), codes.Internal},
	} {
		id := w.Headers(pb.KV_Put_FullMethodName, false)
		w.Data(id, true, c.payload)
		if a := w.Await(id); a.Code != c.code || !a.Status {
			t.Errorf("%s: %v, want %v", c.what, a, c.code)
		}
	}
	w.Net.Close()
	before.again(t)
}

// Clients that stop halfway, in every way there is.
func TestHalfClosedConnections(t *testing.T) {
	m := startMember(t, t.TempDir())
	fourPuts(t, m.conn)
	before := m.calmNow(t)
	half := wire.Framed(false, encoded(&pb.PutRequest{Key: []byte("half"), Value: make([]byte, 1000)}))[:600]
	for what, end := range map[string]func(w *wire.Conn, id uint32){
		"the stream is ended": func(w *wire.Conn, id uint32) {
			w.Data(id, true, nil)
			if a := w.Await(id); a.Code != codes.Internal {
				t.Errorf("half a message: %v", a)
			}
		},
		"the stream is reset":       func(w *wire.Conn, id uint32) { w.Must(w.WriteRSTStream(id, http2.ErrCodeCancel)) },
		"FIN":                       func(w *wire.Conn, id uint32) { w.Must(w.Net.(*net.TCPConn).CloseWrite()) },
		"RST":                       func(w *wire.Conn, id uint32) { w.Must(w.Net.(*net.TCPConn).SetLinger(0)) },
		"GOAWAY":                    func(w *wire.Conn, id uint32) { w.Must(w.WriteGoAway(0, http2.ErrCodeNo, nil)) },
		"a frame that nobody knows": func(w *wire.Conn, id uint32) { w.Must(w.WriteRawFrame(0xee, 0xff, id, []byte("?"))) },
		"nothing":                   func(w *wire.Conn, id uint32) {},
		"half a frame": func(w *wire.Conn, id uint32) {
			_, err := w.Net.Write([]byte{0, 4, 0, 0, 0, 0, 0, 0, byte(id), 'x'})
			w.Must(err)
		},
		"data on a stream never opened": func(w *wire.Conn, id uint32) { w.Must(w.WriteData(id+20, false, []byte("x"))) },
		"an even stream":                func(w *wire.Conn, id uint32) { w.Must(w.WriteData(2, true, nil)) },
		"a window of nothing": func(w *wire.Conn, id uint32) {
			w.Must(w.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4)))
		},
		"a window too large": func(w *wire.Conn, id uint32) {
			w.Must(w.WriteWindowUpdate(0, 1<<31-1))
			w.Must(w.WriteWindowUpdate(0, 1<<31-1))
		},
		"headers without end": func(w *wire.Conn, id uint32) {
			w.Must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: id + 2, BlockFragment: []byte{0x82}}))
		},
		"bad compression of headers": func(w *wire.Conn, id uint32) {
			w.Must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: id + 2, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true}))
		},
	} {
		var open []*wire.Conn
		for range 20 {
			w := wire.Dial(t, m.client)
			id := w.Headers(pb.KV_Put_FullMethodName, false)
			w.Data(id, false, half)
			end(w, id)
			open = append(open, w)
		}
		if _, err := pb.NewKVClient(m.conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("k")}); err != nil {
			t.Errorf("%s: another client is not served: %v", what, err)
		}
		for _, w := range open {
			w.Net.Close()
		}
	}
	before.again(t)
}

// firstLine says something on a fresh connection and returns what comes back
// until the server closes it.
func firstLine(t *testing.T, addr string, said []byte) []byte {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	conn.Write(said)
	conn.(*net.TCPConn).CloseWrite()
	back, err := io.ReadAll(conn)
	if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
		t.Errorf("%.30q is not answered, nor is the connection closed", said)
	}
	return back
}

// What speaks another language on the clients' port is told so, or nothing.
func TestForeignLanguages(t *testing.T) {
	m := startMember(t, t.TempDir())
	fourPuts(t, m.conn)
	before := m.calmNow(t)
	for _, c := range []struct{ said, answer string }{
		{"POST /etcdserverpb.KV/Put HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\nConnection: close\r\n\r\n\x00\x00\x00\x00\x00", "HTTP/1.1 404"},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"},
		{"GET /version HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
		{"GET /version HTTP/1.0\r\n\r\n", "HTTP/1.0 200"},
		{"SSH-2.0-OpenSSH_9.6\r\n", "HTTP/1.1 400"},
		{"\x00\x00\x00\x00", ""},
		{"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", ""},
		{"PRI * HTTP/2.0\r\n", ""},
		{"PRI * HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
		{http2.ClientPreface + "garbage instead of frames", ""},
		{"\n", "HTTP/1.1 400"},
		{"", ""},
	} {
		back := firstLine(t, m.client, []byte(c.said))
		if !strings.HasPrefix(string(back), c.answer) {
			t.Errorf("%.40q: %.80q, want %q", c.said, back, c.answer)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		noise := make([]byte, 1+r.IntN(2000))
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		firstLine(t, m.client, noise)
		firstLine(t, m.client, append([]byte(http2.ClientPreface), noise...))
	}
	// TLS on a port that has none.
	conn, err := tls.Dial("tcp", m.client, &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		t.Error("TLS was spoken")
		conn.Close()
	}
	before.again(t)
}

// Silent connections, slow ones, and very many of either: others are served.
func TestSlowAndIdleConnections(t *testing.T) {
	m := startMember(t, t.TempDir())
	fourPuts(t, m.conn)
	before := m.calmNow(t)
	crowd := 3000
	if testing.Short() {
		crowd = 500
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range crowd {
		c, err := net.Dial("tcp", m.client)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		for _, said := range []string{"", "P", "GET / HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}[i%4] {
			c.Write([]byte{byte(said)})
		}
	}
	kv := pb.NewKVClient(m.conn)
	begin := time.Now()
	for range 20 {
		if _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("20 reads beside %d connections took %v", crowd, took)
	}
	resp, err := http.Get("http://" + m.client + "/version")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("HTTP/1.1 beside them: %v", err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if !testing.Short() {
		keptByNobody(t, conns)
	}
	for _, c := range conns {
		c.Close()
	}
	before.again(t)
}

// keptByNobody: a connection that says nothing, or a byte now and then, is closed
// by the server, each kind of them.
func keptByNobody(t *testing.T, conns []net.Conn) {
	t.Helper()
	silent, loris := conns[0], conns[1]
	go func() {
		for i := range len(http2.ClientPreface) - 1 { // the P was said before
			if _, err := loris.Write([]byte{http2.ClientPreface[i+1]}); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}()
	for what, c := range map[string]net.Conn{"silent": silent, "slow": loris, "half a request line": conns[2], "a preface and nothing": conns[3]} {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil && isTimeout(err) {
			t.Errorf("%s: the connection stays open", what)
		}
	}
}

func isTimeout(err error) bool {
	nerr, ok := err.(net.Error)
	return ok && nerr.Timeout()
}

// Streams opened and reset at once, pings without end, settings without end.
func TestFloods(t *testing.T) {
	m := startMember(t, t.TempDir())
	fourPuts(t, m.conn)
	before := m.calmNow(t)
	const streams = 5000
	w := wire.Dial(t, m.client)
	reads := wire.Framed(false, encoded(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}))
	for i := range streams {
		id := w.Headers(pb.KV_Range_FullMethodName, false)
		if i%2 == 0 {
			w.Must(w.WriteData(id, true, reads))
			w.Window -= int64(len(reads))
		}
		w.Must(w.WriteRSTStream(id, http2.ErrCodeCancel))
		w.Got[id].Ended = true
		if i%100 == 99 { // the server may want to be listened to
			if a := w.Call(pb.KV_Range_FullMethodName, encoded(&pb.RangeRequest{Key: []byte("k")})); !a.Ended {
				t.Fatal("not answered")
			}
		}
		if w.Gone != nil {
			break // it has had enough
		}
	}
	w.Net.Close()

	for what, flood := range map[string]func(w *wire.Conn) error{
		"pings":          func(w *wire.Conn) error { return w.WritePing(false, [8]byte{}) },
		"settings":       func(w *wire.Conn) error { return w.WriteSettings() },
		"priorities":     func(w *wire.Conn) error { return w.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		"windows":        func(w *wire.Conn) error { return w.WriteWindowUpdate(0, 1) },
		"resets":         func(w *wire.Conn) error { return w.WriteRSTStream(1, http2.ErrCodeCancel) },
		"empty data":     func(w *wire.Conn) error { return w.WriteData(1, false, nil) },
		"unknown frames": func(w *wire.Conn) error { return w.WriteRawFrame(0xbb, 0, 0, make([]byte, 100)) },
	} {
		w := wire.Dial(t, m.client)
		id := w.Headers(pb.KV_Range_FullMethodName, false)
		drained := make(chan struct{})
		go func() { // the answers are read so that the flood is not held up
			io.Copy(io.Discard, w.Net)
			close(drained)
		}()
		buffered := bufio.NewWriter(w.Net)
		w.Framer = http2.NewFramer(buffered, w.Net)
		for range 20000 {
			if flood(w) != nil {
				break
			}
		}
		buffered.Flush()
		_ = id
		if _, err := pb.NewKVClient(m.conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("k")}); err != nil {
			t.Errorf("%s: another client is not served: %v", what, err)
		}
		w.Net.Close()
		<-drained
	}
	before.again(t)
}

// A header block may name the same large field again and again in one byte each.
func TestAHeaderBomb(t *testing.T) {
	m := startMember(t, t.TempDir())
	before := m.calmNow(t)
	first := heap()
	var open []*wire.Conn
	for range 8 {
		w := wire.Dial(t, m.client)
		open = append(open, w)
		w.Headers(pb.KV_Range_FullMethodName, false, "x", strings.Repeat("x", 3900))
		// Index 62 is the newest entry of the table: the first of the fields above
		// that was added last. 64,000 times.
		bomb := bytes.Repeat([]byte{0x80 | 62}, 16000)
		id := w.Next
		if w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: bomb}) != nil {
			continue
		}
		for i := range 3 {
			if w.WriteContinuation(id, i == 2, bomb) != nil {
				break
			}
		}
	}
	if _, err := pb.NewKVClient(m.conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("k")}); err != nil {
		t.Errorf("another client is not served: %v", err)
	}
	if now := heap(); now > first+16*mebi {
		t.Errorf("the heap grew from %d to %d", first, now)
	}
	for _, w := range open {
		w.Net.Close()
	}
	before.again(t)
}

// Whatever the bytes of keys and values, they come back.
func TestKeysAndValuesAreArbitraryBytes(t *testing.T) {
	m := startMember(t, t.TempDir())
	kv := pb.NewKVClient(m.conn)
	keys := [][]byte{{0}, {0, 0}, {0xff}, bytes.Repeat([]byte{0xff}, 300), []byte("\xc3\x28"), []byte("a\nb\r\x00"), bytes.Repeat([]byte{0}, 256)}
	for i := range 256 {
		keys = append(keys, []byte{'b', byte(i)})
	}
	for i, key := range keys {
		value := append([]byte{0, 0xff, byte(i)}, key...)
		if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: key, Value: value}); err != nil {
			t.Fatalf("%q: %v", key, err)
		}
		got, err := kv.Range(t.Context(), &pb.RangeRequest{Key: key})
		if err != nil || len(got.Kvs) != 1 || !bytes.Equal(got.Kvs[0].Key, key) || !bytes.Equal(got.Kvs[0].Value, value) {
			t.Errorf("%q: %v, %v", key, got, err)
		}
	}
	all, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil || int(all.Count) != len(keys) {
		t.Fatalf("%d of %d keys, %v", all.GetCount(), len(keys), err)
	}
	for i := 1; i < len(all.Kvs); i++ {
		if bytes.Compare(all.Kvs[i-1].Key, all.Kvs[i].Key) >= 0 {
			t.Errorf("%q before %q", all.Kvs[i-1].Key, all.Kvs[i].Key)
		}
	}
}
