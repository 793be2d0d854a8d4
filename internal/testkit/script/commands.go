package script

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

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
	return storyOf(ts).find(name), args
}

func cmdServer(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	v, flags := named(ts, args)
	err := s.start(v, environOf(ts), flags)
	if (err != nil) != neg {
		ts.Fatalf("server %s: error %v\n%s", v.name, err, logOf(s, v))
	}
	if neg {
		return
	}
	if v.name == firstName {
		ts.Setenv("ENDPOINT", v.client)
		ts.Setenv("PEER", v.peer)
		asked, err := s.door(v)
		ts.Check(err)
		ts.Setenv("ETCDCTL_ENDPOINTS", asked)
	}
}

// cmdCluster starts servers that form a cluster, and waits for all of them.
func cmdCluster(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	flags := len(args)
	for flags > 0 && strings.HasPrefix(args[flags-1], "-") {
		flags--
	}
	args, more := args[:flags], args[flags:]
	if neg || len(args) == 0 {
		ts.Fatalf("usage: cluster name... [flags...]")
	}
	var members []*server
	var initial, endpoints []string
	for _, name := range args {
		v := addressed(ts, name)
		members = append(members, v)
		initial = append(initial, name+"=http://"+v.peer)
		endpoints = append(endpoints, v.client)
	}
	ts.Setenv("ETCDCTL_ENDPOINTS", strings.Join(endpoints, ","))
	ts.Setenv("INITIAL_CLUSTER", strings.Join(initial, ","))
	environ, failures := environOf(ts), make(chan error)
	for _, v := range members {
		go func() {
			failures <- s.start(v, environ, append([]string{"--initial-cluster=" + strings.Join(initial, ",")}, more...))
		}()
	}
	for range members {
		if err := <-failures; err != nil {
			defer ts.Fatalf("cluster: %v", err)
		}
	}
}

// cmdAddress gives a server that is to be started later its ports.
func cmdAddress(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: address name")
	}
	addressed(ts, args[0])
}

// addressed finds a server and tells the story its addresses: NAME_ENDPOINT and
// NAME_PEER.
func addressed(ts *testscript.TestScript, name string) *server {
	v := storyOf(ts).find(name)
	ts.Setenv(strings.ToUpper(name)+"_ENDPOINT", v.client)
	ts.Setenv(strings.ToUpper(name)+"_PEER", v.peer)
	return v
}

// cmdUntil runs a program again and again until its output matches, and sets a
// variable to what the first group matched.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: until VARIABLE REGEXP program args...")
	}
	want, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	program := args[2]
	if own := filepath.Join(storyOf(ts).bin, program); program == "etcdctl" {
		program = own // not the one that the machine has
	}
	for begun := time.Now(); ; time.Sleep(pause(begun)) {
		cmd := exec.Command(program, args[3:]...)
		cmd.Env, cmd.Dir = append(environOf(ts), ctlVariables(ts)...), storyOf(ts).dir
		said, err := cmd.CombinedOutput()
		if found := want.FindSubmatch(said); err == nil && found != nil {
			ts.Setenv(args[0], string(found[len(found)-1]))
			return
		}
		if time.Since(begun) > patience {
			ts.Fatalf("%s never says %q; at last %v:\n%s", strings.Join(args[2:], " "), args[1], err, said)
		}
	}
}

// ctlVariables are the story's settings of etcdctl.
func ctlVariables(ts *testscript.TestScript) (list []string) {
	for _, name := range []string{"ETCDCTL_API", "ETCDCTL_ENDPOINTS", "ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"} {
		if value := ts.Getenv(name); value != "" {
			list = append(list, name+"="+value)
		}
	}
	return list
}

// cmdExited waits for a server that ends by itself.
func cmdExited(ts *testscript.TestScript, neg bool, args []string) {
	v, rest := named(ts, args)
	if neg || len(rest) > 0 || v.process == nil {
		ts.Fatalf("usage: exited name, of a server that was started")
	}
	select {
	case <-v.gone:
		v.process = nil
	case <-time.After(patience):
		ts.Fatalf("server %s goes on\n%s", v.name, logOf(storyOf(ts), v))
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
		ts.Fatalf("usage: http METHOD PATH|URL")
	}
	v := storyOf(ts).find(firstName)
	url := args[1]
	if strings.HasPrefix(url, "/") {
		url = "http://" + v.client + url
	}
	req, err := http.NewRequest(args[0], url, nil)
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
