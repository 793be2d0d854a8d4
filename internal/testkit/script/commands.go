package script

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

type storyKey struct{}

func storyOf(ts *testscript.TestScript) *story { return ts.Value(storyKey{}).(*story) }

// named splits the name of a server off the arguments.
func named(ts *testscript.TestScript, args []string) (*server, []string) {
	name := firstName
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	v, err := storyOf(ts).find(name)
	ts.Check(err)
	return v, args
}

func cmdServer(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	v, flags := named(ts, args)
	_, err := os.Stat(filepath.Join(s.dir, v.name+".etcd"))
	err = s.start(v, environOf(ts), flags, err == nil)
	if (err != nil) != neg {
		ts.Fatalf("server %s: error %v\n%s", v.name, err, logOf(s, v))
	}
	if neg {
		return
	}
	if v.name == firstName {
		ts.Setenv("ENDPOINT", v.client)
		ts.Setenv("PEER", v.peer)
		ts.Setenv("ETCDCTL_ENDPOINTS", v.client)
	}
}

// environOf is the server's environment: what a process needs, and the story's
// own ETCD variables.
func environOf(ts *testscript.TestScript) []string {
	var environ []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GOCOVERDIR", "GORACE"} {
		if value := ts.Getenv(name); value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	return environ
}

func logOf(s *story, v *server) string {
	data, err := os.ReadFile(filepath.Join(s.dir, v.name+".log"))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func cmdShutdown(ts *testscript.TestScript, neg bool, args []string) {
	end(ts, neg, args, syscall.SIGTERM)
}

func cmdCrash(ts *testscript.TestScript, neg bool, args []string) {
	end(ts, neg, args, syscall.SIGKILL)
}

func end(ts *testscript.TestScript, neg bool, args []string, signal syscall.Signal) {
	v, rest := named(ts, args)
	if neg || len(rest) > 0 {
		ts.Fatalf("usage: shutdown|crash [name]")
	}
	if v.process == nil {
		ts.Fatalf("server %s is not running", v.name)
	}
	if !v.kill(signal) {
		ts.Fatalf("server %s did not end on %v\n%s", v.name, signal, logOf(storyOf(ts), v))
	}
}

func cmdEtcdctl(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("etcdctl", args...)
	if (err != nil) != neg {
		ts.Fatalf("etcdctl %s: %v", strings.Join(args, " "), err)
	}
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE program args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%s: %v", args[1], err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("%s exits with %d, want %d", args[1], code, want)
	}
}

// cmdHTTP prints the status, the two headers that stories are about, an empty
// line and the body.
func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: http METHOD PATH")
	}
	v, err := storyOf(ts).find(firstName)
	ts.Check(err)
	req, err := http.NewRequest(args[0], "http://"+v.client+args[1], nil)
	ts.Check(err)
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	fmt.Fprintln(ts.Stdout(), resp.Status)
	for _, name := range []string{"Allow", "Content-Type"} {
		if value := resp.Header.Get(name); value != "" {
			fmt.Fprintf(ts.Stdout(), "%s: %s\n", name, value)
		}
	}
	fmt.Fprintln(ts.Stdout())
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
}
