package main

import (
	"context"
	"os"
	"testing"

	"github.com/kvorum/kvorum/embed"
	"github.com/kvorum/kvorum/internal/cli/ctl"
	"github.com/kvorum/kvorum/internal/testkit/script"
)

func TestMain(m *testing.M) {
	script.Main(m, map[string]func() int{
		"etcd": func() int { return embed.Main(os.Args[1:], os.Environ()) },
		"etcdctl": func() int {
			return ctl.Main(context.Background(), ctl.Process{Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}, os.Args[1:])
		},
		"etcdutl": run,
	})
}

func TestStories(t *testing.T) { script.Run(t, "testdata", script.Ours(), script.Ours()) }
