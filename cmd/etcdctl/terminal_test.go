//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvorum/kvorum/internal/testkit/cluster"
)

// openTerminal makes a terminal: what a person has, and the end that a program is given.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return person, program
}

// typed runs a program on a terminal. Words are what a person waits for, and what he
// types then, in turns. It returns all that stood on the screen, and the exit code.
func typed(t *testing.T, argv []string, words ...string) (screen string, code int) {
	t.Helper()
	person, program := openTerminal(t)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	program.Close()
	late := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	seen := 0
	buffer := make([]byte, 1024)
	for {
		for len(words) > 1 && strings.Contains(screen[seen:], words[0]) && !echoes(person) {
			seen = len(screen)
			if _, err := person.WriteString(words[1] + "\n"); err != nil {
				t.Fatal(err)
			}
			words = words[2:]
		}
		if len(words) > 1 && strings.Contains(screen[seen:], words[0]) {
			time.Sleep(time.Millisecond) // it has asked, and hides the answer in a moment
			continue
		}
		n, err := person.Read(buffer)
		screen += string(buffer[:n])
		if err != nil { // EIO: the program has gone
			break
		}
	}
	var ended *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	if len(words) > 0 {
		t.Errorf("%s never asked %q:\n%s", strings.Join(argv, " "), words[0], screen)
	}
	return strings.ReplaceAll(screen, "\r\n", "\n"), cmd.ProcessState.ExitCode()
}

// echoes says whether a terminal shows what is typed.
func echoes(f *os.File) bool {
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil && state.Lflag&unix.ECHO != 0
}

// Passwords are asked for on a terminal, which does not show them: in the words of etcd.
func TestPasswordsAreTypedUnseen(t *testing.T) {
	c := cluster.New(t, cluster.Options{Etcd: cluster.Self(t, "etcd"), Etcdctl: cluster.Self(t, "etcdctl"), Size: 1, Direct: true, Flags: []string{"--bcrypt-cost=4"}})
	c.Start(c.Members...)
	stories := func(etcdctl string, name string) (all string) {
		t.Setenv("ETCDCTL_API", "3")
		do := func(args []string, words ...string) {
			screen, code := typed(t, append([]string{etcdctl, "--endpoints=" + c.Members[0].Client}, args...), words...)
			for _, hidden := range []string{"hush", "whisper"} {
				if strings.Contains(screen, hidden) {
					t.Errorf("etcdctl %s shows %s:\n%s", strings.Join(args, " "), hidden, screen)
				}
			}
			all += fmt.Sprintf("> %s\n%sexit %d\n", strings.Join(args, " "), screen, code)
		}
		first, again := "Password of "+name+": ", "Type password of "+name+" again for confirmation: "
		do([]string{"user", "add", name}, first, "hush", again, "whisper")
		do([]string{"user", "add", name}, first, "hush", again, "hush")
		do([]string{"user", "passwd", name}, first, "whisper", again, "whisper")
		do([]string{"user", "passwd", name}, first, "hush", again, "whisper")
		c.Ctl("user", "add", "root:rootpw")
		c.Ctl("user", "grant-role", "root", "root")
		if _, said, code := c.Ctl("auth", "enable"); code != 0 {
			t.Fatal(said)
		}
		do([]string{"--user", name, "user", "get", name}, "Password: ", "whisper")
		if _, said, code := c.Ctl("--user=root:rootpw", "auth", "disable"); code != 0 {
			t.Fatal(said)
		}
		return strings.ReplaceAll(all, name, "NAME")
	}
	want := `> user add NAME
Password of NAME: 
Type password of NAME again for confirmation: 
Error: given passwords are different
exit 128
> user add NAME
Password of NAME: 
Type password of NAME again for confirmation: 
User NAME created
exit 0
> user passwd NAME
Password of NAME: 
Type password of NAME again for confirmation: 
Password updated
exit 0
> user passwd NAME
Password of NAME: 
Type password of NAME again for confirmation: 
Error: given passwords are different
exit 128
> --user NAME user get NAME
Password: 
User: NAME
Roles:
exit 0
`
	if got := stories(cluster.Self(t, "etcdctl"), "ann"); got != want {
		t.Errorf("ours:\n%s\nwant\n%s", got, want)
	}
	if debian := "/usr/bin/etcdctl"; !testing.Short() {
		if _, err := os.Stat(debian); err != nil {
			t.Skip("no other etcdctl to compare with")
		}
		if got := stories(debian, "bob"); got != want {
			t.Errorf("etcdctl 3.4:\n%s\nwant\n%s", got, want)
		}
	}
}

// The page about users, command by command, as a person types it.
func TestCommandsOfTheUsersPage(t *testing.T) {
	c := cluster.New(t, cluster.Options{Etcd: cluster.Self(t, "etcd"), Etcdctl: cluster.Self(t, "etcdctl"), Size: 1, Direct: true, Flags: []string{"--bcrypt-cost=4"}})
	c.Start(c.Members...)
	lines := commands(pages(t)["users.md"])
	if len(lines) < 7 {
		t.Errorf("the page has only %d commands", len(lines))
	}
	for _, line := range lines {
		words := strings.Fields(line)
		var asked []string
		switch {
		case strings.HasPrefix(line, "etcdctl user add "):
			asked = []string{"Password of " + words[3] + ": ", "secret", "Type password of " + words[3] + " again", "secret"}
		case strings.HasPrefix(line, "etcdctl --user="):
			asked = []string{"Password: ", "secret"}
		}
		argv := append([]string{cluster.Self(t, "etcdctl"), "--endpoints=" + c.Members[0].Client}, words[1:]...)
		if screen, code := typed(t, argv, asked...); code != 0 {
			t.Errorf("%s: exit code %d\n%s", line, code, screen)
		}
	}
	if _, _, code := c.Ctl("get", "/app/color"); code == 0 {
		t.Error("nobody is served still")
	}
}
