package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/config"
)

// Exit codes. 0: the job is done.
const (
	exitFailed = 1 // the job is not done; the reason is on stderr
	exitUsage  = 2 // the command line is wrong
)

// usageError is an error in the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// globals are the flags of every command.
type globals struct {
	socket  string
	timeout time.Duration
}

// run is main without the process: it returns the exit code.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	for _, line := range strings.Split(strings.TrimRight(err.Error(), "\n"), "\n") {
		fmt.Fprintln(errOut, "vtgt: "+line)
	}
	var ue usageError
	if errors.As(err, &ue) || strings.HasPrefix(err.Error(), "unknown command") {
		fmt.Fprintf(errOut, "Try: %s --help\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use:   "vtgt",
		Short: "A SCSI target in user space",
		Long: `vtgt serves disks to virtual machines and hosts: one daemon (vtgt serve), described by
one YAML file, and commands that ask and change it through a UNIX socket.`,
		Example: `  vtgt run                              # try it out: serves a disk under ./.vtgt
  vtgt check -f /etc/vtgt/vtgt.yaml
  vtgt serve --config /etc/vtgt/vtgt.yaml
  vtgt disk add data --store file:/srv/data.img --size 100GiB --create
  vtgt get sessions`,
		Version:           versionText(),
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		Args:              noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{err} })
	socket := os.Getenv("VTGT_SOCKET")
	root.PersistentFlags().StringVar(&g.socket, "socket", socket, "the daemon's API `SOCKET` (default $VTGT_SOCKET, else "+config.DefaultAPISocket+")")
	root.PersistentFlags().DurationVar(&g.timeout, "timeout", 2*time.Minute, "how long to wait for the daemon's answer")
	root.AddCommand(
		newServe(), newRun(), newCheck(), newApply(g), newGet(g),
		newDisk(g), newTarget(g), newLUN(g), newPortal(g), newAttach(g), newDetach(g), newWatch(g), newVersion(g), newDocs(),
	)
	root.InitDefaultCompletionCmd() // now, so that it gets its examples
	addCompletionExamples(root)
	return root
}

// noArgs refuses arguments, and says what was meant where it can.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		msg := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
		if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
			msg += "; did you mean " + strings.Join(s, " or ") + "?"
		}
		return usagef("%s", msg)
	}
	return usagef("%s takes no argument, not %q", cmd.CommandPath(), args[0])
}

func addCompletionExamples(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Example = "  vtgt completion bash > /etc/bash_completion.d/vtgt"
		for _, s := range c.Commands() {
			s.Example = "  vtgt completion " + s.Name()
		}
	}
}

// client makes a client of the daemon that the flags name, and a context for one
// request.
func (g *globals) client(cmd *cobra.Command) (*api.Client, context.Context, context.CancelFunc) {
	path := g.socket
	if path == "" {
		path = config.DefaultAPISocket
	}
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, g.timeout)
	return api.NewClient(path), ctx, cancel
}
