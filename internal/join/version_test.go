package join

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/kvorum/kvorum/internal/state/command"
)

func TestWhoMayJoinByVersion(t *testing.T) {
	own := command.Version{Major: 3, Minor: 7}
	for answer, want := range map[string]error{
		`{"etcdserver":"3.7.1","etcdcluster":"3.7.0"}`:       nil,
		`{"etcdserver":"3.7.1","etcdcluster":"3.4.0"}`:       nil,
		`{"etcdserver":"3.8.0","etcdcluster":"3.7.0"}`:       nil,
		`{"etcdserver":"3.8.0","etcdcluster":"3.8.0"}`:       ErrIncompatible,
		`{"etcdserver":"4.0.0","etcdcluster":"4.0.0"}`:       ErrIncompatible,
		`{"etcdserver":"2.3.8","etcdcluster":"2.3.0"}`:       ErrIncompatible,
		`{"etcdserver":"3.7.1","etcdcluster":"not_decided"}`: nil,
		`no JSON`: ErrNoCluster,
	} {
		peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/version" {
				http.NotFound(w, r)
			}
			_, _ = w.Write([]byte(answer))
		}))
		gone := httptest.NewServer(nil)
		gone.Close()
		if err := CheckVersion(t.Context(), peer.Client(), []string{gone.URL, peer.URL}, own); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", answer, err, want)
		}
		peer.Close()
	}
}
