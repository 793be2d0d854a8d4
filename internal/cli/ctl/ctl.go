// Package ctl is etcdctl: the verbs that a person or a script says to a running
// cluster, over go.etcd.io/etcd/client/v3. Flags, variables, texts and exit
// codes are those of spec/etcdctl.md. Answers go to standard output, everything
// else to standard error.
package ctl

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

// Process is what the program is handed by its main.
type Process struct {
	// Environ is in the form of os.Environ.
	Environ []string
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
}

// Commands may be shortened to a prefix that no other command has. Cobra knows
// this as a setting of the process only.
func init() { cobra.EnablePrefixMatching = true }

// Main runs the program with the arguments that follow its name, and returns
// the exit code.
func Main(ctx context.Context, p Process, args []string) int {
	s := &session{Process: p}
	root := newRoot(s)
	root.SetArgs(args)
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	s.explain(err)
	return exit.Tell(p.Stderr, err)
}

// session is one run of the program: its process and its global flags.
type session struct {
	Process
	flags globals
	// dialed is how the latest client connects; nil if there was none.
	dialed *dialedWith
}

func newRoot(s *session) *cobra.Command {
	root := &cobra.Command{
		Use:           "etcdctl",
		Short:         "Talk to a cluster of etcd or Kvorum.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	s.flags.register(root.PersistentFlags())
	root.SetUsageTemplate(usageTemplate)
	complete(root, "write-out", string(print.Simple), string(print.Fields), string(print.JSON), string(print.Protobuf), string(print.Table))
	root.AddCommand(putCommand(s), getCommand(s), delCommand(s), txnCommand(s), compactionCommand(s), leaseCommand(s),
		watchCommand(s), lockCommand(s), electCommand(s), memberCommand(s), moveLeaderCommand(s), endpointCommand(s), defragCommand(s), downgradeCommand(s), alarmCommand(s), checkCommand(s), makeMirrorCommand(s), authCommand(s), userCommand(s), roleCommand(s), snapshotCommand(s), versionCommand(s), optionsCommand(root))
	return root
}

// complete tells the shells' completion which words a flag takes.
func complete(cmd *cobra.Command, flag string, words ...string) {
	take := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
	if err := cmd.RegisterFlagCompletionFunc(flag, take); err != nil {
		panic(err) // the flag does not exist, or has its words already
	}
}

// usageTemplate is cobra's without the global flags, which `options` lists.
const usageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} <command>{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if and .HasParent .HasAvailableLocalFlags}}

Flags:
{{.LocalNonPersistentFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}

"etcdctl options" lists the global flags.
`
