package ops

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/kvorum/kvorum/internal/join"
)

// fakeCluster says what it is told to.
type fakeCluster struct {
	enabled bool
	err     error
}

func (c fakeCluster) Cluster() join.Remote                      { return join.Remote{Cluster: 0xab} }
func (c fakeCluster) Downgrading(context.Context) (bool, error) { return c.enabled, c.err }

func TestWhetherThereIsADowngrade(t *testing.T) {
	for _, tc := range []struct {
		cluster fakeCluster
		method  string
		code    int
		body    string
	}{
		{fakeCluster{}, "GET", 200, "false"},
		{fakeCluster{enabled: true}, "GET", 200, "true"},
		{fakeCluster{enabled: true, err: errors.New("etcdserver: request timed out")}, "GET", 500, "failed linearized read: etcdserver: request timed out\n"},
		{fakeCluster{}, "POST", 405, "Method Not Allowed\n"},
	} {
		mux := http.NewServeMux()
		RegisterPeer(mux, fake{}, tc.cluster)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(tc.method, "/downgrade/enabled", nil))
		if w.Code != tc.code || w.Body.String() != tc.body || tc.code < 405 && w.Header().Get("X-Etcd-Cluster-ID") != "ab" {
			t.Errorf("%s of %+v: %d %q %v", tc.method, tc.cluster, w.Code, w.Body, w.Header())
		}
	}
}
