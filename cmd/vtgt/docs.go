package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func goVersion() string { return runtime.Version() }

func newDocs() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "docs",
		Short:   "Write the manual",
		Example: "  vtgt docs man /usr/local/share/man/man1",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return usagef("name the form: man or markdown")
		},
	}
	page := func(use, short, example string, write func(root *cobra.Command, dir string) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Example: example,
			Args: func(cmd *cobra.Command, args []string) error {
				if len(args) != 1 {
					return usagef("name one folder to write to")
				}
				return nil
			},
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := os.MkdirAll(args[0], 0o755); err != nil {
					return fmt.Errorf("%w; name a folder that you may write", err)
				}
				return write(cmd.Root(), args[0])
			},
		}
	}
	cmd.AddCommand(
		page("man DIR", "Write a man page for each command", "  vtgt docs man ./man1", func(root *cobra.Command, dir string) error {
			return doc.GenManTree(root, &doc.GenManHeader{Title: "VTGT", Section: "1", Source: "vtgt " + versionText(), Manual: "vtgt"}, dir)
		}),
		page("markdown DIR", "Write a Markdown page for each command", "  vtgt docs markdown ./doc", doc.GenMarkdownTree),
	)
	return cmd
}
