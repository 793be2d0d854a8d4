package ops

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

const allReady = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n"

func TestChecks(t *testing.T) {
	well := fake{leader: true}
	lost := fake{linear: errors.New("etcdserver: request timed out")}
	for _, tc := range []struct {
		name   string
		m      fake
		target string
		code   int
		body   string
	}{
		{"alive", well, "/livez", 200, "ok\n"},
		{"alive in words", well, "/livez?verbose", 200, "[+]serializable_read ok\nok\n"},
		{"ready", well, "/readyz", 200, "ok\n"},
		{"ready in words", well, "/readyz?verbose=1", 200, allReady + "ok\n"},
		{"one check", well, "/readyz/non_learner?verbose", 200, "[+]non_learner ok\nok\n"},
		{"no such check", well, "/livez/ping", 404, "404 page not found\n"},
		{"of the other kind", well, "/livez/linearizable_read", 404, "404 page not found\n"},
		{"without a leader it lives", lost, "/livez", 200, "ok\n"},
		{"and is not ready", lost, "/readyz", 503,
			"[+]data_corruption ok\n[+]serializable_read ok\n[-]linearizable_read failed: range error: etcdserver: request timed out\n[+]non_learner ok\n"},
		{"unless that is excluded", lost, "/readyz?exclude=linearizable_read", 200, "ok\n"},
		{"excluded in words", lost, "/readyz?exclude=linearizable_read&exclude=non_learner&verbose", 200,
			"[+]data_corruption ok\n[+]serializable_read ok\nok\n"},
		{"excluded and unknown", well, "/livez?exclude=fire", 200, "ok\n"},
		{"the failed one alone", lost, "/readyz/linearizable_read", 503, "[-]linearizable_read failed: range error: etcdserver: request timed out\n"},
		{"a learner", fake{leader: true, learner: true}, "/readyz/non_learner", 503, "[-]non_learner failed: " + errLearner.Error() + "\n"},
		{"corrupt", fake{leader: true, alarms: []Alarm{Corrupt}}, "/readyz/data_corruption", 503, "[-]data_corruption failed: alarm activated: CORRUPT\n"},
		{"full is ready", fake{leader: true, alarms: []Alarm{NoSpace}}, "/readyz", 200, "ok\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := ask(tc.m, "GET", tc.target)
			if w.Code != tc.code || w.Body.String() != tc.body {
				t.Errorf("%d %q, want %d %q", w.Code, w.Body, tc.code, tc.body)
			}
			if h := w.Header(); h.Get("Content-Type") != "text/plain; charset=utf-8" || h.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%v", h)
			}
		})
	}
}

func TestWhatChecksFoundIsCounted(t *testing.T) {
	door := quiet(fake{linear: errors.New("no")})
	mux := http.NewServeMux()
	door.Register(mux)
	if got := door.Tally(); !reflect.DeepEqual(got, Tally{}) {
		t.Errorf("before anybody asked: %+v", got)
	}
	for _, path := range []string{"/health", "/health?serializable=true", "/readyz/linearizable_read", "/readyz/linearizable_read", "/livez"} {
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	want := Tally{Healthy: 1, Unwell: 1, Checks: []CheckTally{
		{Kind: "livez", Name: "serializable_read", Passed: 1, Well: true}, {Kind: "readyz", Name: "linearizable_read", Failed: 2},
	}}
	if got := door.Tally(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestVariables(t *testing.T) {
	w := ask(fake{}, "GET", "/debug/vars")
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"cmdline"`) || !strings.Contains(w.Body.String(), `"memstats"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestACommandLineIsShownWithoutPasswords(t *testing.T) {
	for list, want := range map[string]string{
		`["etcd","--name","a","--discovery-password","hush","--log-level=debug"]`: `["etcd","--name","a","--discovery-password","...","--log-level=debug"]`,
		`["etcd","--discovery-password=hush","x"]`:                                `["etcd","--discovery-password=...","x"]`,
		`["etcd","-discovery-user","me:hush"]`:                                    `["etcd","-discovery-user","..."]`,
		`["etcd","--discovery-password"]`:                                         `["etcd","--discovery-password"]`,
		`nonsense`:                                                                `[]`,
	} {
		if got := withoutSecrets(list); got != want {
			t.Errorf("%s: %s, want %s", list, got, want)
		}
	}
}

func TestGuard(t *testing.T) {
	const text = "Host \"evil.example\" is none of this member's: if it should be, add it to --host-whitelist\n"
	for _, tc := range []struct {
		name, method, url, origin string
		origins, hosts            []string
		code                      int
		body, allowed             string
	}{
		{"anybody", "GET", "http://a/", "", []string{"*"}, []string{"*"}, 200, "served", "*"},
		{"any origin", "GET", "http://a/", "http://b", []string{"*"}, nil, 200, "served", "*"},
		{"a listed origin", "GET", "http://a/", "http://b", []string{"http://c", "http://b"}, nil, 200, "served", "http://b"},
		{"another origin", "GET", "http://a/", "http://d", []string{"http://c", "http://b"}, nil, 200, "served", ""},
		{"a question beforehand", "OPTIONS", "http://a/", "http://b", []string{"http://b"}, nil, 200, "", "http://b"},
		{"a listed host", "GET", "http://a:2379/", "", nil, []string{"a"}, 200, "served", ""},
		{"a listed address", "GET", "http://[::1]:2379/", "", nil, []string{"::1"}, 200, "served", ""},
		{"an address without a port", "GET", "http://[::1]/", "", nil, []string{"::1"}, 200, "served", ""},
		{"a stranger's host", "GET", "http://evil.example:2379/", "", []string{"*"}, []string{"a"}, 421, text, ""},
		{"asked beforehand", "OPTIONS", "http://evil.example/", "", []string{"*"}, []string{"a"}, 421, text, ""},
		{"certificates tell hosts", "GET", "https://evil.example/", "", nil, []string{"a"}, 200, "served", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("served")) })
			r, w := httptest.NewRequest(tc.method, tc.url, nil), httptest.NewRecorder()
			if tc.origin != "" {
				r.Header.Set("Origin", tc.origin)
			}
			Guard(Access{Origins: tc.origins, Hosts: tc.hosts, Log: slog.New(slog.DiscardHandler)}, served).ServeHTTP(w, r)
			if w.Code != tc.code || w.Body.String() != tc.body || w.Header().Get("Access-Control-Allow-Origin") != tc.allowed {
				t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
			}
			if tc.allowed != "" && (w.Header().Get("Access-Control-Allow-Methods") != "POST, GET, OPTIONS, PUT, DELETE" ||
				w.Header().Get("Access-Control-Allow-Headers") != "accept, content-type, authorization") {
				t.Errorf("%v", w.Header())
			}
		})
	}
}
