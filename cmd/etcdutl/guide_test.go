package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every command in a block of the page stands in a story as it stands there: the
// stories run it.
func TestGuide(t *testing.T) {
	page, err := os.ReadFile("../../docs/guide/backup.md")
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			told[strings.TrimPrefix(strings.TrimSpace(line), "exec ")] = true
		}
	}
	commands := 0
	for i, block := range strings.Split(string(page), "```\n") {
		if i%2 == 0 {
			continue
		}
		for line := range strings.Lines(block) {
			if commands++; !told[strings.TrimSpace(line)] {
				t.Errorf("no story runs %s", line)
			}
		}
	}
	if commands < 5 {
		t.Errorf("the page has only %d commands", commands)
	}
}
