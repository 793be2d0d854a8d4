package config

import "strings"

// usage follows the reason when a command line cannot be parsed.
const usage = `Usage:

  etcd [flags]
    Run one member.

  etcd gateway start [flags]
    Pass the connections of clients on to the members of a cluster.

  etcd grpc-proxy start [flags]
    Pass the calls of clients on, and what many ask for once only.

  etcd --version
    Print the versions.

  etcd -h | --help
    Print this and every flag.

`

// HelpText is what `etcd --help` prints.
func HelpText() string {
	var b strings.Builder
	b.WriteString(usage)
	b.WriteString("Every flag may be given as the variable ETCD_<NAME> instead: upper case, with _ for -.\n")
	for _, g := range groups {
		b.WriteString("\n" + string(g) + ":\n")
		for i := range table {
			o := &table[i]
			if o.in != g {
				continue
			}
			b.WriteString("  --" + o.name + " '" + o.def + "'\n    " + o.help + "\n")
			if o.state == accepted {
				b.WriteString("    Accepted, no effect: " + notes[o.name] + "\n")
			}
			if o.name == "feature-gates" {
				b.WriteString(gatesHelp())
			}
		}
	}
	return b.String()
}
