package script

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kvorum/kvorum/internal/testkit/certs"
)

// This file is the part of systemd and of an administrator that stories of whole
// machines need: unit files, environment files, certificates.

// cmdAlone waits until nobody else tells a story with these addresses.
func cmdAlone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: alone ADDRESS")
	}
	for begun := time.Now(); ; {
		l, err := net.Listen("tcp", args[0])
		if err == nil {
			storyOf(ts).locks = append(storyOf(ts).locks, l)
			return
		}
		if !errors.Is(err, syscall.EADDRINUSE) || time.Since(begun) > 3*patience {
			ts.Fatalf("alone: %v", err)
		}
		time.Sleep(pause(begun))
	}
}

// cmdCertificates makes ca.pem, and etcd.pem with its key for the hosts, by the
// script that the guide shows or, where openssl is missing, by ourselves.
func cmdCertificates(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: certificates DIR HOST...")
	}
	s, dir := storyOf(ts), ts.MkAbs(args[0])
	if _, err := exec.LookPath("openssl"); err == nil {
		said, err := exec.Command(filepath.Join(s.root, "scripts", "certificates"), append([]string{dir}, args[1:]...)...).CombinedOutput()
		if err != nil {
			ts.Fatalf("scripts/certificates: %v\n%s", err, said)
		}
		return
	}
	ca := certs.NewAuthority(s.t)
	cert, key := ca.Issue(s.t, "etcd", args[1:]...)
	ts.Check(os.MkdirAll(dir, 0o700))
	for _, file := range []string{ca.File, cert, key} {
		ts.Check(os.Rename(file, filepath.Join(dir, filepath.Base(file))))
	}
}

// cmdSystemctl does with NAME.service files of the story what systemd does with
// units: start waits until all that are named have said that they are ready.
func cmdSystemctl(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: systemctl start|restart|stop|kill UNIT...")
	}
	s := storyOf(ts)
	var failed []error
	started := make(chan error, len(args))
	for _, name := range args[1:] {
		v := s.find(name)
		var err error
		switch {
		case args[0] == "start", args[0] == "restart":
			if args[0] == "restart" && (v.process == nil || !v.kill(syscall.SIGTERM)) {
				ts.Fatalf("unit %s did not end on SIGTERM\n%s", name, logOf(s, v))
			}
			u, err := readUnit(ts, name)
			ts.Check(err)
			go func() { started <- s.startUnit(v, u, environOf(ts)) }()
			continue
		case v.process == nil:
			err = fmt.Errorf("unit %s is not active", name)
		case args[0] == "stop":
			if !v.kill(syscall.SIGTERM) {
				err = fmt.Errorf("unit %s did not end on SIGTERM\n%s", name, logOf(s, v))
			}
		case args[0] == "kill":
			v.kill(syscall.SIGKILL)
		default:
			ts.Fatalf("systemctl: no such word: %s", args[0])
		}
		failed = append(failed, err)
	}
	if args[0] == "start" || args[0] == "restart" {
		for range args[1:] {
			failed = append(failed, <-started)
		}
	}
	if err := errors.Join(failed...); (err != nil) != neg {
		ts.Fatalf("systemctl %s: %v", strings.Join(args, " "), err)
	}
}

// unit is what a unit file says about its service.
type unit struct {
	words   []string // of ExecStart
	environ []string
	dir     string
	notify  bool
}

// readUnit reads NAME.service and the environment files that it names. Paths are
// relative to the story's directory.
func readUnit(ts *testscript.TestScript, name string) (*unit, error) {
	u := &unit{dir: ts.MkAbs(".")}
	text := strings.ReplaceAll(ts.ReadFile(name+".service"), "\\\n", " ")
	section := ""
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		}
		key, value, isSetting := strings.Cut(line, "=")
		if section != "[Service]" || !isSetting || strings.HasPrefix(line, "#") {
			continue
		}
		switch key {
		case "Type":
			u.notify = value == "notify"
		case "WorkingDirectory":
			u.dir = ts.MkAbs(value)
		case "EnvironmentFile":
			u.environ = append(u.environ, variables(ts.ReadFile(value))...)
		case "ExecStart":
			u.words = strings.Fields(value)
		case "User", "Restart", "RestartSec", "LimitNOFILE": // not of this machine's
		default:
			return nil, fmt.Errorf("%s.service: no story knows %s", name, key)
		}
	}
	if len(u.words) == 0 {
		return nil, fmt.Errorf("%s.service: no ExecStart", name)
	}
	return u, nil
}

// variables reads an environment file: NAME=VALUE, perhaps with quotes.
func variables(text string) (list []string) {
	for _, line := range strings.Split(text, "\n") {
		name, value, isVariable := strings.Cut(strings.TrimSpace(line), "=")
		if isVariable && !strings.HasPrefix(name, "#") {
			list = append(list, name+"="+strings.Trim(value, `"`))
		}
	}
	return list
}

// startUnit runs a unit and returns once it has said READY=1, or served if it is
// not of that type.
func (s *story) startUnit(v *server, u *unit, environ []string) error {
	if v.process != nil {
		return fmt.Errorf("unit %s is active already", v.name)
	}
	if err := os.MkdirAll(u.dir, 0o700); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(s.bin, filepath.Base(u.words[0])), u.words[1:]...)
	cmd.Dir, cmd.Env = u.dir, append(environ, u.environ...)
	if !u.notify {
		return s.launch(v, cmd, nil)
	}
	// An address without a file: paths of temporary directories are too long.
	address := net.UnixAddr{Name: fmt.Sprintf("@kvorum-story-%d-%s-%s", os.Getpid(), filepath.Base(filepath.Dir(s.bin)), v.client), Net: "unixgram"}
	conn, err := net.ListenUnixgram(address.Net, &address)
	if err != nil {
		return err
	}
	defer conn.Close()
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+address.Name)
	told := make(chan error, 1)
	go func() {
		said := make([]byte, 4096)
		n, err := conn.Read(said)
		if err == nil && !bytes.Contains(said[:n], []byte("READY=1")) {
			err = fmt.Errorf("systemd was told %q, not READY=1", said[:n])
		}
		told <- err
	}()
	return s.launch(v, cmd, told)
}
