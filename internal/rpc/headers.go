package rpc

import "golang.org/x/net/http2/hpack"

// headerSet is what a client sent with a call. It is shared by calls whose header
// blocks are the same and is never changed.
type headerSet struct {
	fields []hpack.HeaderField
}

// value returns the first value under a name in lower case.
func (h *headerSet) value(name string) (string, bool) {
	for i := range h.fields {
		if h.fields[i].Name == name {
			return h.fields[i].Value, true
		}
	}
	return "", false
}
