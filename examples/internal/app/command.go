package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/nats-io/nats.go"
)

// Exit codes of a command.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2 // a flag is wrong
)

// Command is a service as a program.
type Command struct {
	Name  string
	About string // the text of -h, above the flags

	// Flags defines flags of the command's own; it may be nil.
	Flags func(*flag.FlagSet)
	// Run serves until ctx ends, which a signal does.
	Run func(ctx context.Context, nc *nats.Conn, s Settings) error
}

// Main runs the command and exits the process.
func (c Command) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := c.Execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Execute is Main for a test: it returns the exit code. Help goes to stdout,
// everything else to stderr.
func (c Command) Execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var s Settings
	err := c.parse(&s, args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return ExitOK
	case err != nil:
		fmt.Fprintf(stderr, "%s: %s\nRun \"%s -h\" for help.\n", c.Name, redacted(err.Error()), c.Name)
		return ExitUsage
	}
	s.Log = slog.New(slog.NewTextHandler(stderr, nil))
	if err := c.serve(ctx, s); err != nil {
		fmt.Fprintf(stderr, "%s: %s\n", c.Name, redacted(err.Error()))
		return ExitFailed
	}
	return ExitOK
}

func (c Command) parse(s *Settings, args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // Execute says what is wrong, once
	s.define(fs)
	if c.Flags != nil {
		c.Flags(fs)
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fs.SetOutput(stdout)
			fmt.Fprintf(stdout, "%s\n\nFlags:\n", c.About)
			fs.PrintDefaults()
		}
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	s.complete()
	return s.check()
}

func (c Command) serve(ctx context.Context, s Settings) error {
	err := c.start(ctx, s)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // a signal came while it was starting
	}
	return err
}

func (c Command) start(ctx context.Context, s Settings) error {
	end, err := s.show(ctx, c.Name)
	if err != nil {
		return err
	}
	defer end()
	nc, err := s.AwaitNATS(ctx, c.Name)
	if err != nil {
		return err
	}
	defer nc.Close()
	s.Log.Info("connected to NATS", "name", c.Name, "server", redacted(nc.ConnectedUrl()))
	defer s.Log.Info("stopped", "name", c.Name)
	return c.Run(ctx, nc, s)
}
