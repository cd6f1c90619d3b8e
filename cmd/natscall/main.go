// natscall is the command-line tool of natscall: it shows what runs, calls it and finds out why it
// fails. docs/tool.md is its manual.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/bench"
	"github.com/natscall/natscall/cmd/natscall/internal/call"
	"github.com/natscall/natscall/cmd/natscall/internal/connect"
	"github.com/natscall/natscall/cmd/natscall/internal/permissions"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/show"
	"github.com/natscall/natscall/cmd/natscall/internal/tap"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
)

func main() {
	// The first signal ends what runs in good order, the second one ends the tool.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run runs the tool and returns its exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	t := tool.New(version(), stdin, stdout, stderr)
	root := newRoot(t)
	root.SetArgs(args)
	ran, err := root.ExecuteContextC(ctx)
	if err == nil {
		return problem.StatusOK
	}
	return report(t, ran, args, problem.Of(err))
}

// report writes an error to stderr and returns the status to exit with.
func report(t *tool.Tool, cmd *cobra.Command, args []string, err *problem.Error) int {
	if err.Quiet {
		return err.Status
	}
	if err.Status == problem.StatusUsage && err.Next == "" {
		err.Next = "`" + cmd.CommandPath() + " --help` explains it"
	}
	// Flags behind a wrong one have not been read.
	if tool.WantsJSON(cmd) || err.Status == problem.StatusUsage && slices.Contains(args, "--json") {
		_ = t.Err.JSON(err.Report(t.Types)) // there is nobody left to tell
	} else {
		err.WriteText(t.Err, cmd.CommandPath(), t.Types)
	}
	return err.Status
}

const long = `natscall is the tool of natscall, typed calls over NATS: it shows which services run, calls their
methods and finds out why a call fails.

It connects as the nats command does, with the same flags, environment variables and contexts.
The exit status is 0 if it has worked, 1 if it has failed, 2 if the command line is wrong, and 64 plus
the code of its error if a call has failed, as in 69 for NOT_FOUND.`

const examples = `  natscall ls
  natscall describe order.v1.OrderService
  natscall call OrderService/GetOrder '{"orderId": "o-1"}'
  natscall ps --watch`

// newRoot returns the command that all others stand under.
func newRoot(t *tool.Tool) *cobra.Command {
	root := &cobra.Command{
		Use:           "natscall",
		Short:         "The tool of natscall: typed calls over NATS",
		Long:          long,
		Example:       examples,
		SilenceErrors: true, // report writes them
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs, // RunE says more of a command that does not exist
		RunE:          noCommand,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := tool.CheckCommand(cmd); err != nil {
				return err
			}
			return t.Connect.Check(cmd.Flags())
		},
	}
	root.SetIn(t.In)
	root.SetOut(t.Out)
	root.SetErr(t.Err)
	t.Connect.Register(root.PersistentFlags(), "natscall "+t.Version)
	root.PersistentFlags().SortFlags = false
	// These fail for flags that do not exist only.
	_ = root.RegisterFlagCompletionFunc("context", tool.CompleteContexts)
	_ = root.RegisterFlagCompletionFunc("colors", cobra.FixedCompletions(connect.Schemes, cobra.ShellCompDirectiveNoFileComp))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return problem.Usage("%w", err) })
	root.SetUsageTemplate(strings.NewReplacer(
		"Global Flags:", "Connection, as for the nats command:", ".FlagUsages ", ".FlagUsagesWrapped 100 ",
	).Replace(root.UsageTemplate()))
	root.AddGroup(&cobra.Group{ID: groupServices, Title: "Services:"}, &cobra.Group{ID: groupProject, Title: "Projects:"})
	add(root, groupServices, show.List(t), show.Describe(t), call.Command(t), show.Instances(t), show.Health(t), show.Ping(t), show.Stats(t))
	add(root, groupServices, tap.Command(t), bench.Command(t))
	for _, c := range root.Commands() {
		tool.CompleteFlags(t, c)
	}
	add(root, groupProject, unconnected(root, permissions.Command(), protoCommand(), versionCommand(t))...)
	addCompletion(root)
	return root
}

// unconnected leaves the flags of the connection out of the help of commands that connect to
// nothing, and does not look at them.
func unconnected(root *cobra.Command, commands ...*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		c.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return tool.CheckCommand(cmd) }
		c.SetUsageTemplate(strings.Replace(root.UsageTemplate(), ".HasAvailableInheritedFlags", ".HasSubCommands", 1))
	}
	return commands
}

// addCompletion adds cobra's commands for completion and help, beside the others. Cobra's help
// exits with 0 where there is no such command.
func addCompletion(root *cobra.Command) {
	root.SetCompletionCommandGroupID(groupProject)
	root.SetHelpCommandGroupID(groupProject)
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "completion":
			c.Args, c.RunE = cobra.ArbitraryArgs, noCommand
			for _, shell := range c.Commands() {
				shell.Args = tool.NoArgs // as cobra's own check is no usage error
			}
			unconnected(root, append(c.Commands(), c)...)
		case "help":
			c.Run, c.RunE = nil, help
			unconnected(root, c)
		}
	}
}

// help prints the help of a command.
func help(cmd *cobra.Command, args []string) error {
	found, rest, err := cmd.Root().Find(args)
	switch {
	case err != nil:
		return problem.Usage("%w", err)
	case len(rest) > 0:
		return noCommand(found, rest)
	}
	found.InitDefaultHelpFlag()
	return found.Help()
}

// The groups of commands in the help.
const (
	groupServices = "services"
	groupProject  = "project"
)

func add(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		c.Flags().SortFlags = false // in the order of what they are about
		root.AddCommand(c)
	}
}

// noCommand is for a command that does not exist, or is missing.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		_ = cmd.Help() // to stdout, as any help
		return problem.Quiet(problem.StatusUsage)
	}
	cmd.SuggestionsMinimumDistance = 1 + len(args[0])/4 // letters that differ
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return problem.Usage("unknown command %q; did you mean %s?", args[0], near[0])
	}
	return problem.Usage("unknown command %q", args[0])
}

func versionCommand(t *tool.Tool) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  tool.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(t.Out, "natscall", t.Version)
			return err
		},
	}
}

// version is the version of the module that the tool was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
