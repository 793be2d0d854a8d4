package ops

import (
	"net/http"
	"net/http/pprof"
)

// RegisterProfiles puts the runtime's profiles on mux, under /debug/pprof/. They
// tell what a process spends and hold no keys or values, but its command line.
func RegisterProfiles(mux *http.ServeMux) {
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
}
