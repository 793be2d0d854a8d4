package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestPythonEtcd3Watches(t *testing.T) {
	python := pythonWithEtcd3(t)
	script := filepath.Join(clientScripts, "watch.py")
	got := runClient(t, nil, python, script, ours(t))
	for _, line := range []string{
		"one key: [('PutEvent', b'service/b', b'1', 4, 1, None), ('DeleteEvent', b'service/b', b'', 7, 0, None)]",
		"compacted: ('RevisionCompactedError', 6)", "last: [('PutEvent', b'later', b'2', 8, 1, None)]",
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	if client := realEtcd(t); client != "" {
		sameLines(t, "beside etcd 3.4", got, runClient(t, nil, python, script, client))
	}
}
