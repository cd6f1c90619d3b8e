package main

import (
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/natscall/natscall/proto"
)

// Exit codes of the commands for people: those of the flag package and most tools.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// optionsCommand is the command that gives users the options file: the plugin is what all of them
// have, and in the version that reads that file.
const optionsCommand = "proto"

const optionsUsage = `Usage: protoc-gen-go-natscall proto -o DIR [-f]

proto writes the options that .proto files may import, natscall/v1/options.proto, under DIR. Name DIR
as a module in buf.yaml, or give it to protoc with -I.

  protoc-gen-go-natscall proto -o third_party/natscall
  go tool protoc-gen-go-natscall proto -o third_party/natscall

Flags:

`

// writeOptions runs the command with its arguments and returns the exit code.
func writeOptions(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(optionsCommand, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are reported below, by one rule for all of them
	dir := flags.String("o", "", "the `DIR` to write under, such as third_party/natscall")
	force := flags.Bool("f", false, "overwrite the file if it differs, as after an update of natscall")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, optionsUsage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return exitOK
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case err == nil && *dir == "":
		err = errors.New("flag -o is missing: it names the folder to write under")
	}
	if err != nil {
		fmt.Fprintf(stderr, "protoc-gen-go-natscall proto: %v; protoc-gen-go-natscall proto -h explains it\n", err)
		return exitUsage
	}
	return reportOptions(*dir, *force, stdout, stderr)
}

func reportOptions(dir string, force bool, stdout, stderr io.Writer) int {
	path, written, err := proto.WriteOptions(dir, force)
	if errors.Is(err, proto.ErrDiffers) {
		err = fmt.Errorf("%w; -f overwrites it", err)
	}
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "protoc-gen-go-natscall proto: %v\n", err)
		return exitError
	case written:
		fmt.Fprintln(stdout, "wrote", path)
	default:
		fmt.Fprintln(stdout, path, "is up to date")
	}
	return exitOK
}
