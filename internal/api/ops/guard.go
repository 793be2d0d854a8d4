package ops

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Access says who may speak HTTP to a port for clients.
type Access struct {
	// Origins are those that browsers may call from, Hosts the names that requests in
	// clear text may ask for. "*" is any; so is an empty list of hosts.
	Origins, Hosts []string
	// Log is told of who is refused.
	Log *slog.Logger
}

// Guard has next called only for those who may. A request in clear text for another
// host than the listed ones is refused: a browser may have been told by a stranger's
// name server that this member is the stranger's host (CVE-2018-5702 was such a way
// in); over TLS the certificate says whose host it is. Browsers ask by OPTIONS what
// they may, and are told.
func Guard(a Access, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil && !a.hasHost(hostOf(r)) {
			a.Log.Warn("rejected an HTTP request for a host that --host-whitelist does not have", "host", hostOf(r), "remote-addr", r.RemoteAddr)
			http.Error(w, fmt.Sprintf("Host %q is none of this member's: if it should be, add it to --host-whitelist", hostOf(r)), http.StatusMisdirectedRequest)
			return
		}
		switch origin := r.Header.Get("Origin"); {
		case slices.Contains(a.Origins, "*"):
			allow(w, "*")
		case origin != "" && slices.Contains(a.Origins, origin):
			allow(w, origin)
		}
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusOK)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *Access) hasHost(host string) bool {
	return len(a.Hosts) == 0 || slices.Contains(a.Hosts, "*") || slices.Contains(a.Hosts, host)
}

// hostOf is the host that a request asks for, without the port.
func hostOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		return host
	}
	return strings.Trim(r.Host, "[]")
}

func allow(w http.ResponseWriter, origin string) {
	w.Header().Add("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
	w.Header().Add("Access-Control-Allow-Origin", origin)
	w.Header().Add("Access-Control-Allow-Headers", "accept, content-type, authorization")
}
