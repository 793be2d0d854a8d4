package ctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/internal/config"
)

func versionCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of etcdctl.",
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(s.Stdout, "etcdctl version: %s\nAPI version: %s\nKvorum version: %s\n",
				config.ServerVersion, config.APIVersion, config.KvorumVersion)
			return err
		},
	}
}
