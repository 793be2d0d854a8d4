package ops

import (
	"net/http"
	"slices"
)

// verdict is the body of /health; both fields are texts.
type verdict struct {
	Health string `json:"health"`
	Reason string `json:"reason"`
}

// health looks for the first of an alarm in force, no leader, a range that fails.
// The query may exclude alarms by name, and with serializable=true asks for this
// member alone.
func (d *Door) health(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	reason := illness(r, d.member, query["exclude"], query.Get("serializable") == "true")
	if reason == "" {
		d.healthy.Add(1)
		writeJSON(w, http.StatusOK, verdict{"true", ""})
		return
	}
	d.unwell.Add(1)
	d.log.Warn("serving /health: the member is not healthy", "reason", reason)
	writeJSON(w, http.StatusServiceUnavailable, verdict{"false", reason})
}

// illness is the reason why m is not healthy, or nothing.
func illness(r *http.Request, m Member, excluded []string, serializable bool) string {
	for _, a := range m.Alarms() {
		switch {
		case slices.Contains(excluded, string(a)):
		case a == NoSpace || a == Corrupt:
			return "ALARM " + string(a)
		default:
			return "ALARM UNKNOWN"
		}
	}
	if !serializable && !m.HasLeader() {
		return "RAFT NO LEADER"
	}
	if err := m.Read(r.Context(), serializable); err != nil {
		return "RANGE ERROR:" + err.Error()
	}
	return ""
}
