package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A gateway whose services nobody reaches.
func alone(t *testing.T, refuses bool) *Gateway {
	t.Helper()
	g, err := New(Options{
		Dial:            func(context.Context) (net.Conn, error) { return nil, errors.New("nobody is there") },
		MaxRequestBytes: 1000,
		RefusesNamed:    func() bool { return refuses },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func ask(g *Gateway, method, path, body, name string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if name != "" {
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: name}}}}}
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

// What the gateway refuses by itself.
func TestRefusals(t *testing.T) {
	const named = "CommonName of client sending a request against gateway will be ignored and not used as expected\n"
	for _, c := range []struct {
		what, method, path, body, name string
		refuses                        bool
		code                           int
		text                           string
	}{
		{"nobody is there", "POST", "/v3/kv/range", `{}`, "", false, 503, `{"code":14,"message":"`},
		{"a lock without services", "POST", "/v3/lock/lock", `{}`, "", false, 503, `{"code":14,"message":"`},
		{"a name that matters to nobody", "POST", "/v3/kv/range", `{}`, "me", false, 503, `{"code":14,"message":"`},
		{"a name that would be ignored", "POST", "/v3/kv/range", `{}`, "me", true, 400, named},
		{"no name", "POST", "/v3/kv/range", `{}`, "", true, 503, `{"code":14,"message":"`},
		{"no JSON", "POST", "/v3/kv/range", `{"key":`, "", false, 400, `{"code":3,"message":"`},
		{"no JSON for a lock", "POST", "/v3/lock/lock", `{"name":1}`, "", false, 400, `{"code":3,"message":"`},
		{"no base64", "POST", "/v3/kv/range", `{"key":"?"}`, "", false, 400, `{"code":3,"message":"`},
		{"another method", "GET", "/v3/kv/range", ``, "", false, 501, `{"code":12,"message":"Method Not Allowed","details":[],"error":"Method Not Allowed"}`},
		{"no such path", "POST", "/v3/kv/rangestream", `{}`, "", false, 404, `{"code":5,"message":"Not Found","details":[],"error":"Not Found"}`},
		{"too much", "POST", "/v3/kv/put", `{"value":"` + strings.Repeat("A", 2<<20) + `"}`, "", false, 400, `{"code":3,"message":"http: request body too large"`},
	} {
		w := ask(alone(t, c.refuses), c.method, c.path, c.body, c.name)
		if w.Code != c.code || !strings.HasPrefix(w.Body.String(), c.text) {
			t.Errorf("%s: %d %.200s, want %d %s", c.what, w.Code, w.Body, c.code, c.text)
		}
		if kind := w.Header().Get("Content-Type"); c.text != named && kind != "application/json" {
			t.Errorf("%s: content type %q", c.what, kind)
		}
	}
}

// Answers have etcd's names and no spaces that differ from build to build.
func TestMarshal(t *testing.T) {
	got, err := codec().Marshal(map[string]any{"b": int64(1), "a": []string{"x y"}})
	if err != nil || string(got) != `{"a":["x y"],"b":1}` {
		t.Errorf("%s, %v", got, err)
	}
}

func TestWebSocketsAreKnownByTheirHeader(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/v3/watch", nil)
	if isWebSocket(r) {
		t.Error("an ordinary request")
	}
	r.Header.Set("Upgrade", "WebSocket")
	if !isWebSocket(r) {
		t.Error("a WebSocket")
	}
}
