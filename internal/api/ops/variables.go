package ops

import (
	"encoding/json"
	"expvar"
	"fmt"
	"net/http"
	"strings"
)

// variables shows what the process publishes: its command line and its memory, and
// what a program around the member adds.
func variables(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	separator := "{\n"
	expvar.Do(func(v expvar.KeyValue) {
		value := v.Value.String()
		if v.Key == "cmdline" {
			value = withoutSecrets(value)
		}
		fmt.Fprintf(w, "%s%q: %s", separator, v.Key, value)
		separator = ",\n"
	})
	fmt.Fprint(w, "\n}\n")
}

// withoutSecrets is a command line, a JSON list, without the values of flags that are
// nobody's business: those with a password in them.
func withoutSecrets(list string) string {
	var words []string
	if json.Unmarshal([]byte(list), &words) != nil {
		return "[]"
	}
	hide := false
	for i, word := range words {
		flag := strings.HasPrefix(word, "-")
		switch name, _, whole := strings.Cut(word, "="); {
		case flag && secretFlag(name):
			if hide = !whole; whole {
				words[i] = name + "=..."
			}
		case hide:
			words[i], hide = "...", false
		default:
			hide = false
		}
	}
	text, err := json.Marshal(words)
	if err != nil {
		return "[]"
	}
	return string(text)
}

// secretFlag says whether the value of a flag has a password in it.
func secretFlag(name string) bool {
	return strings.Contains(name, "password") || strings.HasSuffix(name, "-user")
}
