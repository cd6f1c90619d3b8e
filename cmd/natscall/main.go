// natscall is the command-line tool of natscall.
//
//	natscall proto -o DIR           write natscall/v1/options.proto under DIR
//	natscall permissions FILES...   print what NATS has to permit
//	natscall version                print the version
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
)

// Exit codes: those of the flag package and most tools.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// command is something that the tool can do. It declares its flags and returns
// what is to be done once they are parsed.
type command struct {
	name, arguments, summary string
	files                    bool // it takes files beside flags
	setup                    func(flags *flag.FlagSet) func(files []string, stdout io.Writer) error
}

func commands() []command {
	return []command{
		{"proto", "-o DIR [-f]", "write the options that .proto files may import", false, setupProto},
		{"permissions", "[FLAGS] FILES...", "print what NATS has to permit, from .proto files or descriptor sets", true, setupPermissions},
		{"version", "", "print the version", false, setupVersion},
	}
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the tool and returns its exit code.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		printUsage(stderr)
		return exitUsage
	}
	if slices.Contains([]string{"-h", "-help", "--help", "help"}, args[0]) {
		printUsage(stdout)
		return exitOK
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(args[1:], stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "natscall: unknown command %q; natscall -h lists the commands\n", args[0])
	return exitUsage
}

func printUsage(w io.Writer) {
	fmt.Fprint(w, "natscall is the tool of natscall: typed calls over NATS.\n\nUsage: natscall COMMAND [FLAGS]\n\nCommands:\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-30s %s\n", c.name+" "+c.arguments, c.summary)
	}
	fmt.Fprint(w, "\nnatscall COMMAND -h explains a command.\n")
}

func (c command) run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are reported below, by one rule for all of them
	do := c.setup(flags)
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		c.printUsage(flags, stdout)
		return exitOK
	}
	if err == nil && flags.NArg() > 0 && !c.files {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		err = usageError{err}
	} else {
		err = do(flags.Args(), stdout)
	}
	return c.exit(err, stderr)
}

// exit reports err and returns the code to exit with.
func (c command) exit(err error, stderr io.Writer) int {
	if err == nil {
		return exitOK
	}
	if usage := (usageError{}); errors.As(err, &usage) {
		fmt.Fprintf(stderr, "natscall %s: %v; natscall %s -h explains it\n", c.name, err, c.name)
		return exitUsage
	}
	fmt.Fprintf(stderr, "natscall %s: %v\n", c.name, err)
	return exitError
}

func (c command) printUsage(flags *flag.FlagSet, w io.Writer) {
	fmt.Fprintf(w, "Usage: natscall %s %s\n\n%s\n\n", c.name, c.arguments, c.summary)
	flags.SetOutput(w)
	flags.PrintDefaults()
}

// usageError is an error in how the tool was called.
type usageError struct{ error }

func setupVersion(*flag.FlagSet) func([]string, io.Writer) error {
	return func(_ []string, stdout io.Writer) error {
		_, err := fmt.Fprintln(stdout, "natscall", version())
		return err
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
