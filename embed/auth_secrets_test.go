package embed

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// secrets are what was planted, by a mark that is in all of it, and a token's letters.
type secrets struct {
	t     *testing.T
	words []string
}

const planted = "planted-"

func (s *secrets) look(where string, text []byte) {
	s.t.Helper()
	for _, word := range s.words {
		if i := bytes.Index(text, []byte(word)); i >= 0 {
			s.t.Errorf("%s has %q: %q", where, word, text[max(i-100, 0):min(i+100, len(text))])
		}
	}
}

// Nothing that is secret is in what a member writes that was told to write as much as it
// can: its log, with each call in it as a slow one, its pages, the traces of all calls,
// answers, the directory, a backup.
func TestAuthKeepsSecrets(t *testing.T) {
	for _, kind := range []string{"simple", "jwt"} {
		t.Run(kind, func(t *testing.T) {
			key := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(key, []byte(planted+"key"), 0o600); err != nil {
				t.Fatal(err)
			}
			flag := kind
			if kind == "jwt" {
				flag += ",sign-method=HS256,priv-key=" + key
			}
			keepsSecrets(t, "--auth-token="+flag)
		})
	}
}

func keepsSecrets(t *testing.T, flag string) {
	var log lines
	dir, to := t.TempDir(), newCollector(t)
	cfg, client := configFor(t, dir, flag, "--bcrypt-cost=4", "--log-level=debug", "--enable-pprof", "--warning-unary-request-duration=1ns",
		"--enable-distributed-tracing", "--distributed-tracing-address", to.address, "--distributed-tracing-sampling-rate=1000000")
	s, err := Start(cfg, slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	ctx, found := t.Context(), &secrets{t, []string{planted}}
	c := login(t, "", "", client)
	must(c.UserAdd(ctx, "root", planted+"root"))
	must(c.UserGrantRole(ctx, "root", "root"))
	must(c.UserAdd(ctx, "ann", planted+"ann"))
	must(c.UserChangePassword(ctx, "ann", planted+"other"))
	must(c.AuthEnable(ctx))
	root := login(t, "root", planted+"root", client)
	_, refused := c.Authenticate(ctx, "ann", planted+"wrong")
	_, second := root.UserAdd(ctx, "ann", planted+"again")
	_, third := c.Get(metadata.AppendToOutgoingContext(ctx, "token", planted+"token.1"), "a")
	for _, err := range []error{refused, second, third} {
		if err == nil {
			t.Fatal("not refused")
		}
		found.look("an error", []byte(err.Error()))
	}
	letters, _, _ := strings.Cut(must(c.Authenticate(ctx, "ann", planted+"other")).Token, ".1")
	found.words = append(found.words, letters)
	must(root.UserChangePassword(ctx, "ann", planted+"third"))
	body := strings.NewReader(`{"name":"ann","password":"` + planted + `fourth"}`)
	if r, err := http.Post("http://"+client+"/v3/auth/authenticate", "application/json", body); err != nil {
		t.Error(err)
	} else {
		text, _ := io.ReadAll(r.Body)
		if r.Body.Close(); r.StatusCode == http.StatusOK {
			t.Errorf("the gateway says %d, %s", r.StatusCode, text)
		}
		found.look("the gateway", text)
	}
	for _, name := range []string{
		"/metrics", "/version", "/health", "/livez?verbose", "/readyz?verbose", "/debug/vars", "/debug/requests", "/debug/events",
		"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/allocs?debug=1", "/debug/pprof/heap?debug=1",
	} {
		found.look(name, []byte(fetched(t, "http://"+client+name)))
	}
	found.look("a backup", backedUp(t, root))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	found.look("the log", []byte(log.String()))
	if !log.has("Auth/Authenticate") {
		t.Error("no call is in the log: there is nothing to be found")
	}
	if n := found.inSpans(to); n < 10 {
		t.Errorf("looked at %d spans", n)
	}
	if n := found.inFiles(dir); n < 3 {
		t.Errorf("looked at %d files", n)
	}
}

func backedUp(t *testing.T, root *clientv3.Client) []byte {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	from := must(root.Snapshot(ctx))
	defer from.Close()
	file := must(io.ReadAll(from))
	if len(file) == 0 {
		t.Fatal("the backup is empty")
	}
	return file
}

// inSpans looks at what a collector was sent.
func (s *secrets) inSpans(to *collector) int {
	to.mu.Lock()
	defer to.mu.Unlock()
	for _, span := range to.spans {
		s.look("a span", []byte(span.String()))
	}
	return len(to.spans)
}

// inFiles looks at all files of a directory.
func (s *secrets) inFiles(dir string) (files int) {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		s.look(path, text)
		files++
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return files
}

func fetched(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
