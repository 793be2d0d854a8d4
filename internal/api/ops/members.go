package ops

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/kvorum/kvorum/internal/join"
)

// Cluster is what the handlers of the peer port ask of the member.
type Cluster interface {
	// Cluster is its cluster as this member knows it.
	Cluster() join.Remote
	// Downgrading says whether the cluster is being brought down to an earlier version,
	// by what is agreed on when it is asked. It bounds its own time; the context ends with
	// the request.
	Downgrading(ctx context.Context) (bool, error)
}

// RegisterPeer puts the handlers of the peer port on mux: the members, for those
// who want to join, the versions, and whether there is a downgrade.
func RegisterPeer(mux *http.ServeMux, m Member, c Cluster) {
	mux.Handle("/version", getOnly(versionHandler(m)))
	mux.Handle(join.MembersPath, getOnly(membersHandler(c)))
	mux.Handle(downgradePath, getOnly(downgradeHandler(c)))
}

func membersHandler(c Cluster) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		remote := c.Cluster()
		data, err := json.Marshal(remote.Members)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set(join.ClusterHeader, remote.Cluster.String())
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(data) // a peer that left early is not our concern
	}
}
