package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Page is docs/guide/configuration.md: all that the table knows, in Markdown.
func Page() string {
	var b strings.Builder
	b.WriteString(pageHead)
	files := paths()
	for _, g := range groups {
		fmt.Fprintf(&b, "\n## %s\n\n| flag | default | what it says |\n|---|---|---|\n", g)
		for i := range table {
			if o := &table[i]; o.in == g {
				fmt.Fprintf(&b, "| `--%s` | %s | %s |\n", o.name, code(o.def), cell(o, files[o.name]))
			}
		}
	}
	b.WriteString("\n## Feature gates\n\n`--feature-gates=Name=true,Other=false`. `AllAlpha` and `AllBeta` stand for all of a kind.\n\n" +
		"| gate | kind | default | what it does |\n|---|---|---|---|\n")
	for i := range gates {
		g := &gates[i]
		text := g.note
		if g.field == nil {
			text = strings.TrimSpace(stateWord(accepted)) + " " + text
		}
		fmt.Fprintf(&b, "| `%s` | %s | %t | %s |\n", g.name, strings.ToLower(strings.TrimPrefix(g.kind(), "All")), g.standard(), text)
	}
	b.WriteString(pageRemoved)
	for _, name := range slices.Sorted(maps.Keys(removed)) {
		fmt.Fprintf(&b, "| `--%s` | %s |\n", name, strings.ReplaceAll(removed[name], "--feature-gates", "`--feature-gates`"))
	}
	b.WriteString(pageTail)
	for i := range table {
		if o := &table[i]; o.state == silent {
			b.WriteString(" `" + o.name + "`")
		}
	}
	b.WriteString(".\n")
	return b.String()
}

// paths are the keys that flags have in a file.
func paths() map[string]string {
	byFlag := map[string]string{}
	for path, o := range keys() {
		byFlag[o.name] = path
	}
	return byFlag
}

// cell is what the page says of a flag.
func cell(o *option, path string) string {
	text := o.help + stateWord(o.state)
	if note := notes[o.name]; note != "" {
		text += " " + note
	}
	switch path {
	case o.name:
	case "":
		text += " (No key in a file.)"
	default:
		text += " (In a file: `" + path + "`.)"
	}
	return strings.ReplaceAll(text, "|", "\\|")
}

func stateWord(s state) string {
	if s == accepted {
		return " *Accepted, no effect:*"
	}
	return ""
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

const pageHead = `# Configuration

*This page is made from the table of flags in the program (` + "`go test ./internal/config -update`" + `); ` + "`etcd --help`" + ` has the short form.*

A member is told what to do in one of two ways:

1. **By flags and variables.** Every flag may be given as a variable instead: ` + "`ETCD_`" + ` and its name in upper case with ` + "`_`" + ` for ` + "`-`" + `
   (` + "`ETCD_LISTEN_CLIENT_URLS`" + ` is ` + "`--listen-client-urls`" + `). One dash or two, ` + "`--name=x`" + ` or ` + "`--name x`" + `; flags that are true or false may
   stand alone. A flag and its variable together are refused; an ` + "`ETCD_`" + ` variable that nobody knows is warned of.
2. **By a file**, ` + "`--config-file PATH`" + ` or ` + "`ETCD_CONFIG_FILE`" + `, in YAML or JSON. Then every other flag and variable is ignored. A key is the
   name of the flag, except where the tables below say otherwise (a dot is a block within a block); lists may be lists or texts with
   commas; durations are texts (` + "`10s`" + `) or whole numbers of nanoseconds; ` + "`heartbeat-interval`" + ` and ` + "`election-timeout`" + ` are milliseconds.
   A key that nobody knows is warned of, an empty one is as if it were not there.

Whatever is given in neither way has its default. ` + "`etcd`" + ` exits with 2 and a usage text when a flag cannot be read, with 1 and a log
line when the configuration cannot be used.

` + "```yaml" + `
name: n1
data-dir: /var/lib/etcd
listen-client-urls: https://10.0.0.1:2379,http://127.0.0.1:2379
advertise-client-urls: https://10.0.0.1:2379
client-transport-security:
  cert-file: /etc/etcd/pki/etcd.pem
  key-file: /etc/etcd/pki/etcd-key.pem
  trusted-ca-file: /etc/etcd/pki/ca.pem
  client-cert-auth: true
` + "```" + `

Some flags tune what only etcd's own store and log have. Their values are checked, so that every unit file works as it stands, and change nothing, for the
reason in the table; the log says so once, at the start, of one that is given a value other than its default. The same goes for some [feature gates](#feature-gates).
`

const pageRemoved = `
## Flags of older versions

As in etcd 3.7, these end the start with exit code 2 and ` + "`flag provided but not defined`" + `; the next line says what to use instead.

| flag | instead |
|---|---|
`

const pageTail = `
Taken without a word and without effect, as etcd does:`
