// Package script runs stories: txtar files in which a server is started, spoken
// to with etcdctl, stopped, killed and started again. The words etcd and
// etcdctl of a story may be this repository's programs, which live in the test
// binary, or the ones that are installed on the machine, so that one story
// tells whether both do the same.
//
// To the commands and conditions of testscript it adds:
//
//	server [name] [flags...]   start etcd; go on when it serves clients
//	cluster name... [flags...] start a cluster of these; go on when all serve clients
//	address name               choose the addresses of a server that comes later
//	exited name                wait for the end of a server that ends by itself
//	shutdown [name]            SIGTERM, and wait until it is gone
//	crash [name]               SIGKILL, and wait until it is gone
//	etcdctl args...            run etcdctl with the story's endpoints
//	until VAR REGEXP prog...   run until the output matches; VAR is the last group
//	exec await REGEXP FILE     a program, for scripts too: wait until a file has it
//	exits CODE program args... run a program that must end with the code
//	http METHOD PATH|URL       ask the first server, or another one; print status, headers, body
//	alone ADDRESS              wait until no other story has this address; it is a lock
//	certificates DIR HOST...   make DIR/ca.pem, and DIR/etcd.pem with DIR/etcd-key.pem for the hosts
//	systemctl start UNIT...    start NAME.service files of the story; go on when all told systemd READY=1
//	systemctl restart UNIT...  stop it, start it
//	systemctl stop|kill UNIT   SIGTERM or SIGKILL, and wait until it is gone
//
//	[our-etcd] [our-etcdctl]   whose programs the story runs with
//
// Servers of a cluster listen at $NAME_ENDPOINT and $NAME_PEER, in upper case, and
// $INITIAL_CLUSTER is what they were formed of. The first server of a story listens at $ENDPOINT (clients) and $PEER; a server
// called NAME has its data in NAME.etcd and its log in NAME.log, and keeps its
// ports when it is started again. The programs are in
// $BIN, the checkout in $ROOT.
package script

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// A Program is what a word of a story runs.
type Program struct {
	path string
	ours bool
}

// Ours is the function that the test binary's Main has under the word.
func Ours() Program { return Program{path: self, ours: true} }

// Installed is the program of that name on the machine; the test is skipped
// when there is none.
func Installed(t *testing.T, name string) Program {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (Debian packages etcd-server and etcd-client)", name)
	}
	return Program{path: path}
}

// self is the running test binary.
var self = func() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}()

// Main is the TestMain of a package with stories: started under the name of one
// of the programs, the test binary is that program; otherwise it runs the tests.
func Main(m *testing.M, programs map[string]func() int) {
	for name := range programs {
		words = append(words, name)
	}
	word := filepath.Base(os.Args[0])
	if program := programs[word]; program != nil {
		os.Exit(program())
	}
	if word == awaitWord {
		if err := awaitText(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	WatchChildren()
	flag.Parse()
	if given := flag.Lookup("test.parallel"); given.Value.String() == given.DefValue {
		_ = flag.Set("test.parallel", fmt.Sprint(max(runtime.GOMAXPROCS(0), atOnce)))
	}
	os.Exit(m.Run())
}

// words are the programs in the test binary.
var words []string

// runs bounds the telling of all stories of a directory: a program that a failed story
// has left without its server may not end by itself.
const runs = 5 * time.Minute

// atOnce is the number of stories that are told at the same time: they mostly wait,
// for elections and for what is to time out.
const atOnce = 6

const awaitWord = "await"

// awaitText waits until a file, which need not exist yet, has a text in it.
func awaitText(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: await REGEXP FILE")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	if err != nil {
		return err
	}
	for begun := time.Now(); ; time.Sleep(pause(begun)) {
		has, err := os.ReadFile(args[1])
		if err == nil && want.Match(has) {
			return nil
		}
		if time.Since(begun) > patience {
			return fmt.Errorf("%s never has %q; at last %v:\n%s", args[1], args[0], err, has)
		}
	}
}

// Run tells every story of dir, each in a subtest of its own.
func Run(t *testing.T, dir string, etcd, etcdctl Program) {
	t.Helper()
	run(t, testscript.Params{Dir: dir}, etcd, etcdctl, nil)
}

// run tells stories; a proxy, if there is one, stands between etcdctl and the first
// server of each.
func run(t *testing.T, params testscript.Params, etcd, etcdctl Program, proxy *Program) {
	t.Helper()
	bin := t.TempDir()
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Dir(strings.TrimSpace(string(gomod)))
	programs := map[string]Program{}
	for _, name := range append(words, awaitWord) {
		programs[name] = Ours()
	}
	programs["etcd"], programs["etcdctl"] = etcd, etcdctl
	for name, p := range programs {
		if err := os.Symlink(p.path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	params.Deadline = time.Now().Add(runs)
	params.Setup = func(env *testscript.Env) error {
		env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
		s := &story{t: t, bin: bin, dir: env.WorkDir, root: root, servers: map[string]*server{}, through: proxy}
		env.Values[storyKey{}] = s
		env.Defer(s.end)
		first := s.find(firstName)
		env.Setenv("BIN", bin)
		env.Setenv(raceVariable, os.Getenv(raceVariable))
		env.Setenv("ROOT", root)
		env.Setenv("ENDPOINT", first.client)
		env.Setenv("PEER", first.peer)
		env.Setenv("ETCDCTL_API", "3")
		return nil
	}
	params.Cmds = map[string]func(*testscript.TestScript, bool, []string){
		"server":   cmdServer,
		"cluster":  cmdCluster,
		"address":  cmdAddress,
		"exited":   cmdExited,
		"until":    cmdUntil,
		"shutdown": cmdShutdown,
		"crash":    cmdCrash,
		"etcdctl":  cmdEtcdctl,
		"exits":    cmdExits,
		"http":     cmdHTTP,

		"alone":        cmdAlone,
		"certificates": cmdCertificates,
		"systemctl":    cmdSystemctl,
	}
	params.Condition = func(cond string) (bool, error) {
		switch cond {
		case "our-etcd":
			return etcd.ours, nil
		case "our-etcdctl":
			return etcdctl.ours, nil
		}
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	testscript.Run(t, params)
}
