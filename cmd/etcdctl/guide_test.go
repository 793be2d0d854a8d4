package main

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/cli/ctl"
	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/testkit/script"
)

// remark is what stands behind a command on its line: a comment, or what it prints.
var remark = regexp.MustCompile(`( {2,}|\t).*$`)

// commands are the lines of a page's blocks for a shell, continued ones joined, without
// what is said about them.
func commands(page string) (lines []string) {
	inside, block := false, false
	for _, line := range strings.Split(strings.ReplaceAll(page, "\\\n", " "), "\n") {
		if strings.HasPrefix(line, "```") {
			block = !block
			inside = block && (line == "```sh" || line == "```")
			continue
		}
		line = strings.TrimSpace(remark.ReplaceAllString(strings.TrimSpace(line), ""))
		if inside && line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// Every etcd and etcdctl that the guide shows is one that the programs understand:
// the words and the flags are known.
func TestCommandsOfTheGuideAreUnderstood(t *testing.T) {
	seen := 0
	for file, text := range pages(t) {
		for _, line := range commands(text) {
			line, _, _ = strings.Cut(line, " | ")
			line, _, _ = strings.Cut(line, " -- ")
			words := strings.Fields(strings.ReplaceAll(line, "...", ""))
			program, args := filepath.Base(words[0]), words[1:]
			switch program {
			case "etcdctl":
				var said bytes.Buffer
				code := ctl.Main(context.Background(), ctl.Process{Stdin: strings.NewReader(""), Stdout: &said, Stderr: &said}, append(args, "--help"))
				if code != 0 || len(args) > 0 && strings.HasPrefix(said.String(), "Usage:\n  etcdctl <command>") && !strings.HasPrefix(args[0], "-") {
					t.Errorf("%s: %s\n%s", file, line, said.String())
				}
				seen++
			case "etcd":
				if len(args) > 0 && (args[0] == "gateway" || args[0] == "grpc-proxy") || strings.Contains(line, "$") {
					continue
				}
				if _, _, err := config.Parse(args, nil, nil); err != nil && !strings.Contains(err.Error(), "asked for") {
					t.Errorf("%s: %s: %v", file, line, err)
				}
				seen++
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d commands were found", seen)
	}
}

// pages are those of the guide, by their names.
func pages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../docs/guide/*.md")
	if err != nil || len(files) < 8 {
		t.Fatal(files, err)
	}
	all := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = string(text)
	}
	return all
}

// Stories that run the commands of the guide.
func TestGuide(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the guide's commands are those of other stories")
	}
	script.Run(t, "testdata/guide", script.Ours(), script.Ours())
}

// told are pages whose commands other tests run, line by line from the page itself.
var told = map[string]string{
	"backup.md":      "TestGuide of cmd/etcdutl",
	"monitoring.md":  "TestCommandsOfTheMonitoringPage of embed",
	"quick-start.md": "TestTheQuickStart",
	"users.md":       "TestCommandsOfTheUsersPage",
}

// notRun are commands that no story runs, and why.
var notRun = map[string]string{
	"adduser --system --group --home /var/lib/etcd etcd":                          "it changes the machine",
	"install -d -o etcd -g etcd -m 0700 /var/lib/etcd":                            "it changes the machine",
	"install -m 0755 dist/linux-amd64/etcd dist/linux-amd64/etcdctl /usr/bin/":    "it changes the machine",
	"install -m 0644 deploy/debian/etcd.service /lib/systemd/system/etcd.service": "it changes the machine",
	"systemctl daemon-reload":                                                     "it is systemd's",
	"systemctl enable --now etcd":                                                 "it is systemd's; stories start units of that kind",
	"etcd --force-new-cluster ...":                                                "the rest of its flags is the reader's; stories start a unit that has it",
}

// Stories have addresses, ports, ids and paths of their own.
var places = []struct {
	own *regexp.Regexp
	is  string
}{
	{regexp.MustCompile(`^(\[\S+\] )?(! |exits \d+ )?(exec )?`), ""},
	{regexp.MustCompile(` &\w*&?$`), ""},
	{regexp.MustCompile(`^sh -c '(?:exec )?(.*?)( >\w+)?'$`), "$1"},
	{regexp.MustCompile(`^until \w+ '[^']*' `), ""},
	{regexp.MustCompile(`^(env|export) `), ""},
	{regexp.MustCompile(`127\.\d+\.\d+\.(\d+):1(23\d+)`), "10.0.0.$1:$2"},
	{regexp.MustCompile(`127\.10\.[01]\.9:`), "127.0.0.1:"},
	{regexp.MustCompile(`127\.10\.\d\.(\d+)`), "10.0.0.$1"},
	{regexp.MustCompile(`10\.0\.0\.1:2379/`), "127.0.0.1:2379/"},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b|\$\w*ID\b|\bID\b|\$LEASE\b`), "ID"},
	{regexp.MustCompile(`\$REVISION`), "REVISION"},
	{regexp.MustCompile(`^(systemctl \w+) etcd\d$`), "$1 etcd"},
	{regexp.MustCompile(`^rm (-rf )?/?var/lib/etcd\d?(/\*)?`), "rm var/lib/etcd"},
	{regexp.MustCompile(`"`), "'"},
}

// as is a line with the places of the guide.
func as(line string) string {
	line = strings.TrimSpace(line)
	for _, p := range places {
		line = p.own.ReplaceAllString(line, p.is)
	}
	return line
}

// Every command of the guide stands in a story, where it is run, or has a test of its
// own, or a reason.
func TestCommandsOfTheGuideAreRun(t *testing.T) {
	run := map[string]bool{}
	for _, pattern := range []string{"testdata/*.txtar", "testdata/guide/*.txtar"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			commands, _, _ := strings.Cut(string(text), "\n-- ")
			for line := range strings.Lines(commands) {
				run[as(line)] = true
			}
		}
	}
	for _, block := range blocks(pages(t)["quick-start.md"]) {
		for _, line := range commands("```sh\n" + block) {
			run["quick start: "+line] = true
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range commands(string(readme)) {
		if !run["quick start: "+line] && line != "make test" {
			t.Errorf("README.md: the quick start does not run %s", line)
		}
	}
	excused := maps.Clone(notRun)
	all := pages(t)
	for _, file := range slices.Sorted(maps.Keys(all)) {
		if told[file] != "" {
			continue
		}
		for _, line := range commands(all[file]) {
			switch {
			case strings.HasPrefix(line, "ETCD_"), file == "locks.md" && !strings.HasPrefix(line, "etcdctl"): // no commands
			case notRun[line] != "":
				delete(excused, line)
			case !run[as(line)]:
				t.Errorf("%s: no story runs %s (as %s)", file, line, as(line))
			}
		}
	}
	if len(excused) > 0 {
		t.Errorf("no page has %v", slices.Sorted(maps.Keys(excused)))
	}
}
