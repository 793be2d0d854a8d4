package embed

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/websocket"

	"github.com/kvorum/kvorum/internal/testkit/ports"
)

// post sends a body to a path of the gateway and returns what came, with numbers as
// they are.
func post(t *testing.T, m *member, path, body string, headers ...string) (int, map[string]any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+m.client+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%s: %q", path, text)
	}
	delete(got, "header")
	if _, refused := got["code"]; refused {
		if got["error"] != got["message"] {
			t.Errorf("%s: the field of older gateways is %v: %s", path, got["error"], text)
		}
		delete(got, "error")
	}
	return resp.StatusCode, got
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// What spec 6.2 says of the gateway, through the port of a member.
func TestGateway(t *testing.T) {
	m := startMember(t, t.TempDir())
	lock := b64("l")
	for _, step := range []struct {
		path, body string
		code       int
		want       string
	}{
		{"/v3/kv/put", `{"key":"` + b64("foo") + `","value":"` + b64("bar") + `"}`, 200, `{}`},
		{"/v3/kv/put", `{"key":"` + b64("foo") + `","value":"` + b64("baz") + `","prev_kv":true,"of_the_future":[1]}`, 200,
			`{"prev_kv":{"create_revision":"2","key":"Zm9v","mod_revision":"2","value":"YmFy","version":"1"}}`},
		{"/v3/kv/range", `{"key":"` + b64("foo") + `"}`, 200,
			`{"count":"1","kvs":[{"create_revision":"2","key":"Zm9v","mod_revision":"3","value":"YmF6","version":"2"}]}`},
		{"/v3/kv/range", `{"key":"` + b64("fop") + `"}`, 200, `{}`},
		{"/v3/kv/txn", `{"compare":[{"result":"EQUAL","target":"VERSION","key":"Zm9v","version":"2"}],"success":[{"request_range":{"key":"Zm9v","keys_only":true}}]}`, 200,
			`{"responses":[{"response_range":{"count":"1","header":{"revision":"3"},"kvs":[{"create_revision":"2","key":"Zm9v","mod_revision":"3","version":"2"}]}}],"succeeded":true}`},
		{"/v3/kv/deleterange", `{"key":"Zm9v"}`, 200, `{"deleted":"1"}`},
		{"/v3/kv/compaction", `{"revision":"3"}`, 200, `{}`},
		{"/v3/kv/range", `{"key":"Zm9v","revision":"2"}`, 400, `{"code":11,"details":[],"message":"etcdserver: mvcc: required revision has been compacted"}`},
		{"/v3/kv/put", `{}`, 400, `{"code":3,"details":[],"message":"etcdserver: key is not provided"}`},
		{"/v3/kv/put", `{"key":"Zm9v","lease":"7"}`, 404, `{"code":5,"details":[],"message":"etcdserver: requested lease not found"}`},
		{"/v3/lease/grant", `{"ID":"7","TTL":"100"}`, 200, `{"ID":"7","TTL":"100"}`},
		{"/v3/lease/grant", `{"ID":"7","TTL":"100"}`, 400, `{"code":9,"details":[],"message":"etcdserver: lease already exists"}`},
		{"/v3/lease/keepalive", `{"ID":"7"}`, 200, `{"result":{"ID":"7","TTL":"100"}}`},
		{"/v3/kv/lease/leases", `{}`, 200, `{"leases":[{"ID":"7"}]}`},
		{"/v3/lock/lock", `{"name":"` + lock + `","lease":"7"}`, 200, `{"key":"` + b64("l/7") + `"}`},
		{"/v3/lock/unlock", `{"key":"` + b64("l/7") + `"}`, 200, `{}`},
		{"/v3/election/campaign", `{"name":"` + lock + `","lease":"7","value":"bWU="}`, 200, `{"leader":{"key":"bC83","lease":"7","name":"bA==","rev":"7"}}`},
		{"/v3/election/leader", `{"name":"` + lock + `"}`, 200, `{"kv":{"create_revision":"7","key":"bC83","lease":"7","mod_revision":"7","value":"bWU=","version":"1"}}`},
		{"/v3/lease/revoke", `{"ID":"7"}`, 200, `{}`},
		{"/v3/maintenance/alarm", `{"action":"GET"}`, 200, `{}`},
		{"/v3/auth/status", `{}`, 200, `{"authRevision":"1"}`},
		{"/v3/auth/authenticate", `{"name":"root","password":"x"}`, 400, `{"code":9,"details":[],"message":"etcdserver: authentication is not enabled"}`},
		{"/v3/kv/nothing", `{}`, 404, `{"code":5,"details":[],"message":"Not Found"}`},
		{"/v3/kv/stream", `{}`, 404, `{"code":5,"details":[],"message":"Not Found"}`},
		{"/v3/kv/put", `{"key":`, 400, ""},
	} {
		code, got := post(t, m, step.path, step.body)
		for _, inner := range []string{"result"} {
			if r, ok := got[inner].(map[string]any); ok {
				delete(r, "header")
			}
		}
		text, _ := json.Marshal(got)
		if code != step.code || step.want != "" && string(text) != step.want {
			t.Errorf("%s %s: %d %s\nwant %d %s", step.path, step.body, code, text, step.code, step.want)
		}
	}
}

// A body that is still open is answered line by line; when the caller goes, so does
// the watch.
func TestGatewayWatch(t *testing.T) {
	m := startMember(t, t.TempDir())
	body, say := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+m.client+"/v3/watch", body)
	if err != nil {
		t.Fatal(err)
	}
	go func() { fmt.Fprint(say, `{"create_request":{"key":"YQ=="}} `) }()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		line := lines.Text()
		if i := strings.Index(line, `,"raft_term"`); i > 0 { // up to here the header differs from run to run
			line = line[i+1:]
		}
		return line[strings.Index(line, "},")+2:]
	}
	if got := next(); got != `"created":true}}` {
		t.Errorf("%s", got)
	}
	post(t, m, "/v3/kv/put", `{"key":"YQ==","value":"Yg=="}`)
	if got := next(); got != `"events":[{"kv":{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"Yg=="}}]}}` {
		t.Errorf("%s", got)
	}
	fmt.Fprint(say, `{"create_request":{"key":"Yg==","watch_id":"5"}}`)
	if got := next(); got != `"watch_id":"5","created":true}}` {
		t.Errorf("%s", got)
	}
	resp.Body.Close()
}

func TestGatewayWatchByWebSocket(t *testing.T) {
	m := startMember(t, t.TempDir())
	socket, err := websocket.Dial("ws://"+m.client+"/v3/watch", "", "http://"+m.client)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, id := range []string{"3", "4"} {
		if err := websocket.Message.Send(socket, `{"create_request":{"key":"YQ==","watch_id":"`+id+`"}}`); err != nil {
			t.Fatal(err)
		}
		var line string
		if err := websocket.Message.Receive(socket, &line); err != nil || !strings.HasSuffix(line, `"watch_id":"`+id+`","created":true}}`) {
			t.Errorf("%s, %v", line, err)
		}
	}
}

// A token of a user opens what the user may.
func TestGatewayTokens(t *testing.T) {
	m := startMember(t, t.TempDir(), "--bcrypt-cost", "4")
	for _, step := range [][2]string{
		{"/v3/auth/user/add", `{"name":"root","password":"pw"}`}, {"/v3/auth/role/add", `{"name":"root"}`},
		{"/v3/auth/user/grant", `{"user":"root","role":"root"}`}, {"/v3/auth/enable", `{}`},
	} {
		if code, got := post(t, m, step[0], step[1]); code != 200 {
			t.Fatalf("%s: %d %v", step[0], code, got)
		}
	}
	if code, got := post(t, m, "/v3/kv/range", `{"key":"YQ=="}`); code != 400 || got["message"] != "etcdserver: user name is empty" {
		t.Errorf("without a token: %d %v", code, got)
	}
	code, got := post(t, m, "/v3/auth/authenticate", `{"name":"root","password":"no"}`)
	if code != 400 || got["message"] != "etcdserver: authentication failed, invalid user ID or password" {
		t.Errorf("a wrong password: %d %v", code, got)
	}
	_, got = post(t, m, "/v3/auth/authenticate", `{"name":"root","password":"pw"}`)
	token, _ := got["token"].(string)
	if code, got := post(t, m, "/v3/kv/put", `{"key":"YQ=="}`, "Authorization", token); code != 200 {
		t.Errorf("with a token: %d %v", code, got)
	}
	if code, got := post(t, m, "/v3/kv/put", `{"key":"YQ=="}`, "Authorization", "x"+token); code != 401 || got["code"] != 16.0 {
		t.Errorf("with another: %d %v", code, got)
	}
}

// The operators' pages on the ports where spec 6.1 and 6.4 want them.
func TestPagesForOperators(t *testing.T) {
	metrics, alone := ports.Reserve(t), ports.Reserve(t)
	m := startMember(t, t.TempDir(), "--listen-metrics-urls", "http://"+metrics, "--listen-client-http-urls", "http://"+alone,
		"--host-whitelist", "127.0.0.1,good.example", "--cors", "http://page.example:80", "--enable-grpc-gateway=false", "--enable-pprof")
	get := func(address, path, host string) (int, http.Header, string) {
		t.Helper()
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+address+path, nil)
		r.Header.Set("Origin", "http://page.example:80")
		if host != "" {
			r.Host = host
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, resp.Header, string(text)
	}
	for _, tc := range []struct {
		address, path, host string
		code                int
	}{
		{alone, "/health", "", 200}, {alone, "/livez", "good.example:1", 200}, {alone, "/readyz", "", 200}, {alone, "/version", "", 200},
		{alone, "/debug/vars", "", 200}, {alone, "/debug/pprof/cmdline", "", 200}, {alone, "/v3/kv/range", "", 404}, {alone, "/", "", 404},
		{alone, "/debug/requests", "", 404}, {alone, "/debug/events", "", 404},
		{alone, "/health", "evil.example", 421},
		{metrics, "/health", "", 200}, {metrics, "/livez", "", 200}, {metrics, "/readyz/non_learner", "evil.example", 200},
		{metrics, "/version", "", 404}, {metrics, "/debug/vars", "", 404}, {metrics, "/debug/pprof/", "", 404},
	} {
		code, header, text := get(tc.address, tc.path, tc.host)
		if code != tc.code {
			t.Errorf("%s on %s for %q: %d %s", tc.path, tc.address, tc.host, code, text)
		}
		if allowed := header.Get("Access-Control-Allow-Origin"); tc.address == alone && code != 421 && allowed != "http://page.example:80" {
			t.Errorf("%s: origin %q", tc.path, allowed)
		}
	}
	if resp, err := http.Get("http://" + m.client + "/health"); err == nil {
		resp.Body.Close()
		t.Errorf("HTTP on a port for gRPC alone: %s", resp.Status)
	}
}
