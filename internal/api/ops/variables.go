package ops

import (
	"expvar"
	"net/http"
)

// variables shows what the process publishes: its command line and its memory,
// and what a program around the member adds.
func variables(w http.ResponseWriter, r *http.Request) { expvar.Handler().ServeHTTP(w, r) }
