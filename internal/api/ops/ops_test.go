package ops

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

type fake struct {
	versions Versions
	alarms   []Alarm
	leader   bool
	learner  bool
	// Errors of a linearizable and of a serializable read.
	linear, local error
}

func (f fake) Versions() Versions { return f.versions }
func (f fake) Alarms() []Alarm    { return f.alarms }
func (f fake) HasLeader() bool    { return f.leader }
func (f fake) IsLearner() bool    { return f.learner }
func (f fake) Read(ctx context.Context, serializable bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if serializable {
		return f.local
	}
	return f.linear
}

func quiet(m Member) *Door { return New(m, slog.New(slog.DiscardHandler)) }

func ask(m Member, method, target string) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	quiet(m).Register(mux)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

func TestVersion(t *testing.T) {
	for want, v := range map[string]Versions{
		`{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}`:         {"3.7.1", "3.7.0", "3.7.0"},
		`{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}`: {Server: "3.7.1"},
	} {
		w := ask(fake{versions: v}, "GET", "/version")
		if w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
		}
	}
}

func TestOnlyGet(t *testing.T) {
	for _, path := range []string{"/version", "/health", "/livez", "/readyz", "/readyz/non_learner", "/debug/vars"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "HEAD", "OPTIONS"} {
			w := ask(fake{leader: true}, method, path)
			if w.Code != 405 || w.Header().Get("Allow") != "GET" || w.Body.String() != "Method Not Allowed\n" {
				t.Errorf("%s %s: %d %q %v", method, path, w.Code, w.Body, w.Header())
			}
		}
	}
}

func TestHealth(t *testing.T) {
	well := fake{leader: true}
	full := fake{leader: true, alarms: []Alarm{NoSpace}}
	ill := fake{alarms: []Alarm{NoSpace, Corrupt}}
	lost := fake{linear: errors.New("etcdserver: request timed out")}
	slow := fake{leader: true, linear: errors.New("etcdserver: request timed out")}
	broken := fake{leader: true, local: errors.New("etcdserver: corrupt cluster")}
	for _, tc := range []struct {
		name   string
		m      fake
		query  string
		code   int
		health string
	}{
		{"well", well, "", 200, `{"health":"true","reason":""}`},
		{"well here", well, "?serializable=true", 200, `{"health":"true","reason":""}`},
		{"full", full, "", 503, `{"health":"false","reason":"ALARM NOSPACE"}`},
		{"full and that is known", full, "?exclude=NOSPACE", 200, `{"health":"true","reason":""}`},
		{"full, another excluded", full, "?exclude=CORRUPT", 503, `{"health":"false","reason":"ALARM NOSPACE"}`},
		{"alarms come first", ill, "", 503, `{"health":"false","reason":"ALARM NOSPACE"}`},
		{"the next alarm", ill, "?exclude=NOSPACE", 503, `{"health":"false","reason":"ALARM CORRUPT"}`},
		{"exclude repeats", ill, "?exclude=NOSPACE&exclude=CORRUPT", 503, `{"health":"false","reason":"RAFT NO LEADER"}`},
		{"strange alarm", fake{alarms: []Alarm{"FIRE"}}, "", 503, `{"health":"false","reason":"ALARM UNKNOWN"}`},
		{"leader before range", lost, "", 503, `{"health":"false","reason":"RAFT NO LEADER"}`},
		{"alone is well here", lost, "?serializable=true", 200, `{"health":"true","reason":""}`},
		{"only true is true", lost, "?serializable=1", 503, `{"health":"false","reason":"RAFT NO LEADER"}`},
		{"range fails", slow, "", 503, `{"health":"false","reason":"RANGE ERROR:etcdserver: request timed out"}`},
		{"own range fails", broken, "?serializable=true", 503, `{"health":"false","reason":"RANGE ERROR:etcdserver: corrupt cluster"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := ask(tc.m, "GET", "/health"+tc.query)
			if w.Code != tc.code || w.Body.String() != tc.health || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
			}
		})
	}
}

// The read ends with the request that wanted it.
func TestHealthOfAClientThatLeft(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	mux := http.NewServeMux()
	quiet(fake{leader: true}).Register(mux)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/health", nil).WithContext(ctx))
	if w.Code != 503 || w.Body.String() != `{"health":"false","reason":"RANGE ERROR:context canceled"}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestProfilesAreServedOnlyWhenAskedFor(t *testing.T) {
	mux := http.NewServeMux()
	quiet(fake{leader: true}).Register(mux)
	for _, want := range []int{404, 200} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=1"} {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if w.Code != want {
				t.Errorf("%s: %d, want %d", path, w.Code, want)
			}
		}
		if want == 404 {
			RegisterProfiles(mux)
		}
	}
}
