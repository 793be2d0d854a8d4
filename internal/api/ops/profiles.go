package ops

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
)

// RegisterProfiles puts the runtime's profiles on mux, under /debug/pprof/. They
// tell what a process spends and hold no keys or values, but its command line, as far
// as it is no secret.
func RegisterProfiles(mux *http.ServeMux) {
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
}

// cmdline shows the command line, a word after the other.
func cmdline(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text, err := json.Marshal(os.Args)
	if err != nil {
		return
	}
	var words []string
	if json.Unmarshal([]byte(withoutSecrets(string(text))), &words) == nil {
		_, _ = w.Write([]byte(strings.Join(words, "\x00")))
	}
}
