// Package tool has what the commands share: the streams, the connection and the services on it.
package tool

import (
	"context"
	"fmt"
	"io"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/natscall/natscall/cmd/natscall/internal/connect"
	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// Tool is one run of the tool.
type Tool struct {
	In       io.Reader
	Out, Err *output.Writer
	Version  string
	Connect  connect.Flags
	// Types decode the details of the error that the command returns; they may be nil.
	Types problem.Types
}

// New returns a run with its streams.
func New(version string, in io.Reader, out, err io.Writer) *Tool {
	return &Tool{In: in, Out: output.New(out), Err: output.New(err), Version: version}
}

// Open connects to NATS. The caller closes the session.
func (t *Tool) Open(ctx context.Context, opts ...nats.Option) (*Session, error) {
	// What NATS refuses is found where it matters, as an error of a call or of a question.
	opts = append([]nats.Option{nats.ErrorHandler(t.onError)}, opts...)
	nc, err := t.Connect.Open(ctx, t.Err, opts...)
	if err != nil {
		return nil, err
	}
	t.Out.Scheme = nc.Colors
	s := &Session{NC: nc.Conn, Services: discover.Finder{NC: nc.Conn, Limit: t.Connect.Timeout}}
	if t.Connect.Trace {
		s.Services.Trace = t.Err
	}
	return s, nil
}

func (t *Tool) onError(_ *nats.Conn, _ *nats.Subscription, err error) {
	if t.Connect.Trace {
		fmt.Fprintf(t.Err, ">>> %v\n", err)
	}
}

// GivenTimeout reports whether --timeout or its environment variable is given.
func GivenTimeout(flags *pflag.FlagSet) bool { return flags.Changed("timeout") }

// NoArgs refuses arguments.
func NoArgs(cmd *cobra.Command, args []string) error { return between(cmd, args, 0, 0) }

// Args returns a check that there are so many arguments; most may be -1 for any number.
func Args(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error { return between(cmd, args, least, most) }
}

func between(cmd *cobra.Command, args []string, least, most int) error {
	if len(args) < least {
		return problem.Usage("an argument is missing: natscall %s", cmd.Use)
	}
	if most >= 0 && len(args) > most {
		return problem.Usage("unexpected argument %q", args[most])
	}
	return nil
}

// WantsJSON reports whether a command was told to write JSON.
func WantsJSON(cmd *cobra.Command) bool {
	f := cmd.Flags().Lookup("json")
	return f != nil && f.Value.Type() == "bool" && f.Value.String() == "true"
}

// JSONFlag adds the flag --json.
func JSONFlag(cmd *cobra.Command, into *bool, usage string) {
	cmd.Flags().BoolVarP(into, "json", "j", false, usage)
}
