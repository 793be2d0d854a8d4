package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const pageFile = "../../docs/guide/configuration.md"

// The page of the guide says what the program knows.
func TestThePageIsUpToDate(t *testing.T) {
	if *update {
		if err := os.WriteFile(pageFile, []byte(Page()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != Page() {
		t.Errorf("%s is not what Page says; run go test ./internal/config -update and read the diff", pageFile)
	}
}

// Whatever is accepted without effect has its reason, on the page and in the help, and
// notes are for flags that exist.
func TestWhatHasNoEffectHasAReason(t *testing.T) {
	known := map[string]bool{}
	for i := range table {
		o := &table[i]
		known[o.name] = true
		if o.state == accepted && notes[o.name] == "" {
			t.Errorf("--%s is accepted, and no note says why", o.name)
		}
		line := "    Accepted, no effect: " + notes[o.name] + "\n"
		if strings.Contains(HelpText(), o.help+"\n"+line) != (o.state == accepted) {
			t.Errorf("--%s is of state %d, and what the help says is another thing", o.name, o.state)
		}
	}
	for name := range notes {
		if !known[name] {
			t.Errorf("a note is about --%s, which is no flag", name)
		}
	}
	for name := range removed {
		if known[name] {
			t.Errorf("--%s is a flag and a removed one", name)
		}
	}
	for path, o := range keys() {
		if o == nil {
			t.Errorf("the key %s leads to no flag", path)
		}
	}
}

// Each flag is given another value than its default, as a flag, as a variable and in a
// file, and the configuration is the same one each time; a flag that has an effect
// changes it, one that has none does not.
func TestEveryFlagThreeWays(t *testing.T) {
	for i := range table {
		o := &table[i]
		if o.state == silent || o.state == source {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			value := others[o.name]
			if value == "" {
				value = another(o)
			}
			var extra []string
			file := [][2]string{{paths()[o.name], value}}
			for _, pair := range companions[o.name] {
				extra = append(extra, "--"+pair[0]+"="+pair[1])
				file = append(file, [2]string{paths()[pair[0]], pair[1]})
			}
			byFlag, _ := mustParse(t, append(extra, "--"+o.name+"="+value), nil)
			byVariable, _ := mustParse(t, extra, []string{o.variable() + "=" + value})
			if !sameConfig(byFlag, byVariable) {
				t.Errorf("--%s=%s and %s differ:\n%+v\n%+v", o.name, value, o.variable(), byFlag, byVariable)
			}
			if paths()[o.name] != "" {
				byFile, _ := mustRead(t, document(file))
				byFile.File = ""
				if !sameConfig(byFlag, byFile) {
					t.Errorf("--%s=%s and its file differ:\n%+v\n%+v", o.name, value, byFlag, byFile)
				}
			}
			without, _, err := Parse(extra, nil, nil)
			if err != nil || o.name == "logger" || o.name == "discovery-fallback" {
				return // it cannot be left out here, or has one value only
			}
			if changes := !sameConfig(byFlag, without); changes != (o.state == ready) {
				t.Errorf("--%s=%s: changes the configuration: %v, but its state is %d", o.name, value, changes, o.state)
			}
		})
	}
}

// A flag without effect is told of once, with its value and the reason, if it is given
// another value than its default in whatever way; the default, however it is written, is
// nobody's wish.
func TestWhatHasNoEffectIsToldOnce(t *testing.T) {
	for i := range table {
		o := &table[i]
		if o.state != accepted {
			continue
		}
		value := others[o.name]
		if value == "" {
			value = another(o)
		}
		var told [3][]Warning
		_, told[0] = mustParse(t, []string{"--" + o.name + "=" + value}, nil)
		_, told[1] = mustParse(t, nil, []string{o.variable() + "=" + value})
		_, told[2] = mustRead(t, document([][2]string{{paths()[o.name], value}}))
		for way, list := range told {
			var got []string
			for _, w := range list {
				if w.Msg == "flag is accepted and has no effect" {
					got = append(got, fmt.Sprint(w.Level, w.Attrs))
				}
			}
			if want := fmt.Sprintf("INFO [flag=--%s value=%s reason=%s]", o.name, value, notes[o.name]); len(got) != 1 || got[0] != want {
				t.Errorf("--%s=%s in way %d is told as %q, want %q", o.name, value, way, got, want)
			}
		}
	}
	for _, flag := range []string{"--snapshot-count=0x2710", "--backend-batch-interval=0", "--backend-bbolt-freelist-type=map", "--max-wals=5"} {
		if _, told := mustParse(t, []string{flag}, nil); len(told) > 0 {
			t.Errorf("%s is told of: %v", flag, told)
		}
	}
}

// Whoever gives a flag its effect says where that is seen: testdata/effects.txt names,
// for each flag that is ready, the test and its file, which has the flag in it or the
// field that it fills.
func TestEveryEffectIsSeenSomewhere(t *testing.T) {
	text, err := os.ReadFile("testdata/effects.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		words := strings.Fields(line)
		if words[0] == "#" {
			continue
		}
		if len(words) == 3 {
			words = append(words, words[0])
		}
		if len(words) != 4 {
			t.Fatalf("want FLAG FILE TEST [FIELD]: %s", line)
		}
		source, err := os.ReadFile("../../" + words[1])
		if err != nil {
			t.Error(err)
			continue
		}
		seen[words[0]] = true
		if !strings.Contains(string(source), "\nfunc "+words[2]+"(t *testing.T)") || !strings.Contains(string(source), words[3]) {
			t.Errorf("%s has no %s, or no %s", words[1], words[2], words[3])
		}
	}
	for i := range table {
		if o := &table[i]; (o.state == ready) != seen[o.name] {
			t.Errorf("--%s: its effect is seen in a test: %v, and its state is %d", o.name, seen[o.name], o.state)
		}
	}
}
