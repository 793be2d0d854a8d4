// Package ops is the HTTP door for operators: what version runs here, and is it
// well. It serves HTTP/1.1 on the clients' port beside gRPC; bodies, statuses
// and headers are those of spec/server-ops.md 6.1.
package ops

import (
	"context"
	"encoding/json"
	"net/http"
)

// Versions are the three versions of one member. Cluster and Storage may be
// empty as long as they are not known.
type Versions struct {
	Server  string
	Cluster string
	Storage string
}

// Alarm is a kind of alarm that the cluster has raised.
type Alarm string

// Alarms that have names; any other kind is reported as UNKNOWN.
const (
	NoSpace Alarm = "NOSPACE"
	Corrupt Alarm = "CORRUPT"
)

// Member is what the handlers ask of the member that they speak for.
type Member interface {
	Versions() Versions
	// Alarms lists the alarms in force, oldest first.
	Alarms() []Alarm
	// HasLeader reports whether the member knows a leader.
	HasLeader() bool
	// Read makes the smallest possible range, as root: serializable reads the
	// member's own state, otherwise the read is linearizable. It bounds its own
	// time; the context ends with the request.
	Read(ctx context.Context, serializable bool) error
}

// Register puts the handlers for m on mux.
func Register(mux *http.ServeMux, m Member) {
	mux.Handle("/version", getOnly(versionHandler(m)))
	mux.Handle("/health", getOnly(healthHandler(m)))
}

// versionHandler answers with the versions, and with words for those that
// nobody knows yet.
func versionHandler(m Member) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		v := m.Versions()
		if v.Cluster == "" {
			v.Cluster = "not_decided"
		}
		if v.Storage == "" {
			v.Storage = "unknown"
		}
		writeJSON(w, http.StatusOK, struct {
			Server  string `json:"etcdserver"`
			Cluster string `json:"etcdcluster"`
			Storage string `json:"storage"`
		}(v))
	}
}

// getOnly refuses every method but GET.
func getOnly(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		next(w, r)
	})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data) // a client that left early is not our concern
}
