package ctl

import (
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
)

// What the arguments and the variables of a watch ask for.
func TestWatchRequests(t *testing.T) {
	for _, tc := range []struct {
		line      string
		variables []string
		key, end  string
		command   []string
		err       error
	}{
		{line: "a", key: "a"},
		{line: "a c", key: "a", end: "c"},
		{line: "a --prefix", key: "a", end: "b"},
		{line: "--prefix a -- echo a", key: "a", end: "b", command: []string{"echo", "a"}},
		{line: "a --rev 3 c -- echo -n -- x", key: "a", end: "c", command: []string{"echo", "-n", "--", "x"}},
		{line: "'' --prefix", key: "\x00", end: "\x00"},
		{line: `"a b" 'c d'`, key: "a b", end: "c d"},
		{line: "", variables: []string{"k"}, key: "k"},
		{line: "--rev=2", variables: []string{"k", "l"}, key: "k", end: "l"},
		{line: "--prefix -- echo k", variables: []string{"k"}, key: "k", end: "l", command: []string{"echo", "k"}},
		{line: "", err: errWatchArgs},
		{line: "-- echo", err: errWatchArgs},
		{line: "a b c", err: errWatchArgs},
		{line: "a --", err: errWatchNoCommand},
		{line: "--", variables: []string{"k"}, err: errWatchNoCommand},
		{line: "a", variables: []string{"k"}, err: errWatchConflict},
		{line: "a -- echo", variables: []string{"k"}, err: errWatchConflict},
		{line: "a b --prefix", err: errWatchEnds},
		{line: "--prefix", variables: []string{"k", "l"}, err: errWatchEnds},
	} {
		words, err := splitWords(tc.line)
		if err != nil {
			t.Fatal(err)
		}
		w, err := parseWatch(words, tc.variables)
		if err != tc.err {
			t.Errorf("%q with %q: %v", tc.line, tc.variables, err)
		}
		if err != nil {
			continue
		}
		op := clientv3.OpGet(w.key, w.opts...)
		if string(op.KeyBytes()) != tc.key || string(op.RangeBytes()) != tc.end || !slices.Equal(w.command, tc.command) {
			t.Errorf("%q with %q: %q to %q, %q", tc.line, tc.variables, op.KeyBytes(), op.RangeBytes(), w.command)
		}
	}
}

func TestWatchVariables(t *testing.T) {
	for _, tc := range []struct {
		environ, args string
		want          string
	}{
		{"ETCDCTL_WATCH_RANGE_END=x", "watch", `ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END="x"`},
		{"ETCDCTL_WATCH_RANGE_END=x", "watch -i", `ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END="x"`},
		{"ETCDCTL_WATCH_KEY=k", "watch a", "bad number of arguments (found conflicting environment key)"},
		{"ETCDCTL_WATCH_KEY=k", "watch a -- true", "bad number of arguments (found conflicting environment key)"},
		{"ETCDCTL_WATCH_KEY=k ETCDCTL_WATCH_RANGE_END=l", "watch --prefix", "`range_end` and `--prefix` are mutually exclusive"},
	} {
		if got := run("", strings.Fields(tc.environ), strings.Fields(tc.args)...); got != (ran{128, "", "Error: " + tc.want + "\n"}) {
			t.Errorf("%s %s: %+v", tc.environ, tc.args, got)
		}
	}
}

// Lines that are no watch are said to be none, and the next one is read.
func TestWatchLinesThatAreNone(t *testing.T) {
	got := run("\nhello there\nwatch\nwatch a b --prefix\n  \n", nil, "watch", "-i")
	want := ran{code: exit.CodeBadInput, stderr: `Invalid command:  (watch and progress supported)
Invalid command hello there (only support watch)
Invalid command watch (command type or key is not provided)
Invalid command watch a b --prefix (` + "`range_end` and `--prefix`" + ` are mutually exclusive)
Invalid command:    (watch and progress supported)
Error: error reading watch request line: EOF
`}
	if got != want {
		t.Errorf("%+v", got)
	}
}

// Arguments that no watch has are an end.
func TestWatchLinesThatEnd(t *testing.T) {
	for line, want := range map[string]string{
		"watch a b c":         "bad number of arguments",
		"watch a --":          "bad number of arguments (found separator --, but no commands)",
		"watch --prefix":      "bad number of arguments",
		"watch a --rev=x":     `invalid argument "x" for "--rev" flag: strconv.ParseInt: parsing "x": invalid syntax`,
		"watch a --keys-only": "unknown flag: --keys-only",
	} {
		if got := run("\n"+line+"\nwatch b\n", nil, "watch", "-i"); got.code != exit.CodeBadArgs || !strings.HasSuffix(got.stderr, "\nError: "+want+"\n") {
			t.Errorf("%s: %+v", line, got)
		}
	}
	if got := run("watch \"\\z\"\n", nil, "watch", "-i"); got != (ran{exit.CodeBadInput, "", "Error: invalid syntax\n"}) {
		t.Errorf("%+v", got)
	}
	if got := run("watch a\n", []string{"ETCDCTL_WATCH_KEY=k"}, "watch", "-i"); got.code != exit.CodeBadArgs || got.stderr != "Error: "+errWatchConflict.Error()+"\n" {
		t.Errorf("%+v", got)
	}
}
