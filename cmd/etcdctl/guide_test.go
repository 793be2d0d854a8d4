package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/cli/ctl"
	"github.com/kvorum/kvorum/internal/config"
)

// commands are the lines of a page's sh blocks, continued ones joined, without their
// comments.
func commands(page string) (lines []string) {
	inside := false
	for _, line := range strings.Split(strings.ReplaceAll(page, "\\\n", " "), "\n") {
		if strings.HasPrefix(line, "```") {
			inside = line == "```sh"
			continue
		}
		line, _, _ = strings.Cut(line, "  #")
		line, _, _ = strings.Cut(line, " | ")
		line, _, _ = strings.Cut(line, " && ")
		if line = strings.TrimSpace(line); inside && line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// Every etcd and etcdctl that the guide shows is one that the programs understand:
// the words and the flags are known. (What they do is for the stories.)
func TestCommandsOfTheGuideAreUnderstood(t *testing.T) {
	pages, err := filepath.Glob("../../docs/guide/*.md")
	if err != nil || len(pages) < 8 {
		t.Fatal(pages, err)
	}
	seen := 0
	for _, file := range pages {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range commands(string(text)) {
			words := strings.Fields(strings.ReplaceAll(line, "...", ""))
			program, args := filepath.Base(words[0]), words[1:]
			switch program {
			case "etcdctl":
				var said bytes.Buffer
				code := ctl.Main(context.Background(), ctl.Process{Stdin: strings.NewReader(""), Stdout: &said, Stderr: &said}, append(args, "--help"))
				if code != 0 || len(args) > 0 && strings.HasPrefix(said.String(), "Usage:\n  etcdctl <command>") && !strings.HasPrefix(args[0], "-") {
					t.Errorf("%s: %s\n%s", filepath.Base(file), line, said.String())
				}
				seen++
			case "etcd":
				if len(args) > 0 && (args[0] == "gateway" || args[0] == "grpc-proxy") {
					continue
				}
				if _, _, err := config.Parse(args, nil, nil); err != nil && !strings.Contains(err.Error(), "asked for") {
					t.Errorf("%s: %s: %v", filepath.Base(file), line, err)
				}
				seen++
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d commands were found", seen)
	}
}
