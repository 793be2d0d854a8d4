package ops

import (
	"io"
	"net/http"
	"strconv"

	"github.com/kvorum/kvorum/internal/join"
)

// downgradePath is where a member tells whether its cluster is being brought down to an
// earlier version.
const downgradePath = "/downgrade/enabled"

// downgradeHandler answers true or false, by the state of the cluster.
func downgradeHandler(c Cluster) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(join.ClusterHeader, c.Cluster().Cluster.String())
		enabled, err := c.Downgrading(r.Context())
		if err != nil {
			http.Error(w, "failed linearized read: "+err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, strconv.FormatBool(enabled)) // a peer that left early is not our concern
	}
}
