// Package ops is the HTTP door for operators: what version runs here, is it well,
// may it be sent clients, and what does the process hold. It serves HTTP/1.1 on
// the clients' port beside gRPC, and on ports for metrics alone; bodies, statuses
// and headers are those of spec/server-ops.md 6.
package ops

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync/atomic"
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
	// Alarms lists the alarms in force, by member.
	Alarms() []Alarm
	// HasLeader reports whether the member knows a leader.
	HasLeader() bool
	// IsLearner reports whether the member follows the log without a vote.
	IsLearner() bool
	// Read makes the smallest possible range, as root: serializable reads the
	// member's own state, otherwise the read is linearizable. It bounds its own
	// time; the context ends with the request.
	Read(ctx context.Context, serializable bool) error
}

// Door has the handlers of one member and counts what the checks among them find.
type Door struct {
	member          Member
	log             *slog.Logger
	livez, readyz   []*check
	healthy, unwell atomic.Uint64 // answers of /health
}

// New makes the door of a member. log is told of checks that fail.
func New(m Member, log *slog.Logger) *Door {
	d := &Door{member: m, log: log}
	d.livez, d.readyz = checksOf(m)
	return d
}

// Register puts on mux what a port for clients serves: version, health and the
// variables of the process.
func (d *Door) Register(mux *http.ServeMux) {
	mux.Handle("/version", getOnly(versionHandler(d.member)))
	mux.Handle("/debug/vars", getOnly(variables))
	d.RegisterHealth(mux)
}

// RegisterHealth puts on mux what a port for metrics serves beside them.
func (d *Door) RegisterHealth(mux *http.ServeMux) {
	mux.Handle("/health", getOnly(d.health))
	d.registerChecks(mux, "livez", d.livez)
	d.registerChecks(mux, "readyz", d.readyz)
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
