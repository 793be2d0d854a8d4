package script

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestMain(m *testing.M) {
	Main(m, map[string]func() int{"etcd": fakeEtcd, "etcdctl": fakeEtcdctl})
}

// fakeEtcd is a server that does as its flags say.
func fakeEtcd() int {
	args := os.Args[1:]
	switch {
	case slices.Contains(args, "--die"):
		fmt.Fprintln(os.Stderr, "nothing good will come of this")
		return 3
	case slices.Contains(args, "--silent-death"):
		return 0
	}
	for _, a := range args {
		if dir, ok := strings.CutPrefix(a, "--data-dir="); ok {
			_ = os.MkdirAll(dir, 0o700)
		}
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	fmt.Println("args", strings.Join(args, " "))
	fmt.Fprintln(os.Stderr, `{"msg":"ready to serve client requests"}`)
	if conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET")); err == nil {
		said := os.Getenv("SAYS")
		if said == "" {
			said = "READY=1"
		}
		_, _ = conn.Write([]byte(said))
	}
	<-asked
	fmt.Fprintln(os.Stderr, "stopped when asked")
	return 0
}

// fakeEtcdctl prints its arguments, its endpoints, and exits with the code that
// it is given.
func fakeEtcdctl() int {
	fmt.Println(filepath.Base(os.Args[0]), os.Args[1:], os.Getenv("ETCDCTL_ENDPOINTS"))
	code := 0
	if len(os.Args) == 3 && os.Args[1] == "exit" {
		_, _ = fmt.Sscan(os.Args[2], &code)
	}
	return code
}

func TestStories(t *testing.T) { Run(t, "testdata", Ours(), Ours()) }

func TestInstalledSkipsWhatIsNotThere(t *testing.T) {
	skipped := false
	t.Run("absent", func(t *testing.T) {
		defer func() { skipped = t.Skipped() }()
		Installed(t, "no-such-etcdctl-anywhere")
	})
	if !skipped {
		t.Error("not skipped")
	}
	if p := Installed(t, "sh"); p.ours || !filepath.IsAbs(p.path) {
		t.Errorf("%+v", p)
	}
}
