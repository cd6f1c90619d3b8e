package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
	"github.com/natscall/natscall/rpc"
)

// flags are those of `natscall bench`.
type flags struct {
	Plan
	source      tool.Source
	headers     []string
	connections int
	instance    string
	batch       bool
	csv         string
	json        bool
}

const long = `Measure a method: how many calls a second, how long they take, and which errors they get. The
method is named and the request given as in natscall call. Several requests, such as the lines of
a file, are sent in turn; without any, empty messages are sent.

Where the client streams, one call is a whole stream: it sends --messages messages, which are the
requests in turn, ends the requests and reads what comes to the end.

Without --rate so many calls run at a time as --concurrency says, and the next one begins when one
ends (closed loop): that finds out how much a service can do. A service that stands still then is
called less in that time, so its latencies look better than users find them.

With --rate calls begin at fixed times, whatever the others do (open loop). If a call has to wait
for its turn, since --concurrency are running, its latency counts from when it should have begun:
what is measured is what a user sees who comes at that moment. Calls that should have begun in the
time and have not are counted ("not begun").

Latencies are those of calls that have succeeded. Of a stream that only the server sends it is the
time to its first message, of one that the client sends the time to its end. The end of the
measurement cuts off streams that run, which is no error, and waits for other calls.

The measurement does not hold back: a method that changes something does so with every call, also
in the warm-up. The exit status is 0 if calls have succeeded, or Ctrl-C came before the first was
over, and none has failed; it is 1 otherwise.`

const examples = `  natscall bench GetStock '{"productId": "apple"}'
  natscall bench GetStock @requests.jsonl --rate 500 --duration 30s
  natscall bench GetStock '{"productId": "apple"}' --requests 10000 --concurrency 64 --json
  natscall bench WatchStock --duration 5s --csv latencies.csv
  natscall bench ImportStock @delivery.jsonl --messages 1000`

// Command is the command that measures methods.
func Command(t *tool.Tool) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:               "bench [flags] METHOD [REQUEST...]",
		Short:             "Measure a method: rate, latencies, errors",
		Long:              long,
		Example:           examples,
		Args:              tool.Args(1, -1),
		ValidArgsFunction: tool.CompleteMethods(t),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, t, args)
		},
	}
	set := cmd.Flags()
	set.SortFlags = false
	set.IntVarP(&f.Concurrency, "concurrency", "c", 0, "`number` of calls at a time (default 16); with --rate at most (default 1000)")
	set.Float64VarP(&f.Rate, "rate", "r", 0, "`calls` a second; 0 is as many as there can be")
	set.DurationVarP(&f.Duration, "duration", "d", 0, "begin calls for this `time` (default 10s, without --requests)")
	set.IntVarP(&f.Requests, "requests", "n", 0, "make so many `calls`")
	set.IntVar(&f.Messages, "messages", 0, "`number` of messages that each stream sends, the requests in turn (default: each request once)")
	set.DurationVar(&f.Warmup, "warmup", 0, "make calls for this `time` before the measurement (default 1s, without --requests)")
	set.IntVar(&f.connections, "connections", 1, "`number` of connections to NATS that the calls are spread over")
	tool.HeaderFlag(set, &f.headers)
	set.StringVar(&f.instance, "instance", "", "`ID` of the instance to call, as ps and ls show it")
	set.BoolVar(&f.batch, "batch", false, "let calls that are made at the same time share NATS messages (rpc.WithBatching)")
	set.StringVar(&f.csv, "csv", "", "write the latencies as a distribution to this `file`, too")
	f.source.Register(cmd)
	tool.JSONFlag(cmd, &f.json, "print the result in JSON")
	return cmd
}

// defaults are those that depend on other flags.
func (f *flags) defaults(cmd *cobra.Command) {
	given := cmd.Flags().Changed
	if !given("concurrency") {
		f.Concurrency = 16
		if f.Rate > 0 {
			f.Concurrency = 1000
		}
	}
	if !given("duration") && !given("requests") {
		f.Duration = 10 * time.Second
	}
	if !given("warmup") && !given("requests") {
		f.Warmup = time.Second
	}
}

func (f *flags) run(cmd *cobra.Command, t *tool.Tool, args []string) error {
	f.defaults(cmd)
	if err := f.Check(); err != nil {
		return problem.Usage("%w", err)
	}
	if f.connections < 1 || f.connections > 1024 {
		return problem.Usage("--connections %d: between 1 and 1024", f.connections)
	}
	csv, err := f.create()
	if err != nil {
		return err
	}
	defer func() { _ = csv.Close() }() // write has closed it before
	ctx := cmd.Context()
	sessions, closeAll, err := f.connect(ctx, t)
	if err != nil {
		return err
	}
	defer closeAll()
	caller, name, err := f.caller(ctx, t, sessions, args, f.options(cmd, t))
	if err != nil {
		return err
	}
	f.Messages = caller.messages
	load := caller.load()
	progress := newMeter(t.Err, &f.Plan)
	result := Run(ctx, &f.Plan, load, progress.begin)
	progress.end()
	result.Method, result.Stream, result.sends = name, load.Stream, load.Sends
	return f.write(t, result, csv)
}

// options returns those of the calls.
func (f *flags) options(cmd *cobra.Command, t *tool.Tool) []rpc.CallOption {
	out := tool.Headers(f.headers)
	if tool.GivenTimeout(cmd.Flags()) {
		out = append(out, rpc.WithTimeout(t.Connect.Timeout))
	}
	if f.instance != "" {
		out = append(out, rpc.WithInstance(f.instance))
	}
	return out
}

// create creates the file of --csv, before anything is called for nothing.
func (f *flags) create() (io.WriteCloser, error) {
	if f.csv == "" {
		return nopCloser{io.Discard}, nil
	}
	file, err := os.Create(f.csv)
	if err != nil {
		return nil, problem.Failure("--csv names a file that can be written", "%w", err)
	}
	return file, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// connect makes the connections.
func (f *flags) connect(ctx context.Context, t *tool.Tool) (sessions []*tool.Session, closeAll func(), err error) {
	closeAll = func() {
		for _, s := range sessions {
			s.Close()
		}
	}
	for range f.connections {
		s, err := t.Open(ctx)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		sessions = append(sessions, s)
	}
	return sessions, closeAll, nil
}

// write writes the result, and says by the exit status whether there were errors.
func (f *flags) write(t *tool.Tool, r *Result, csv io.WriteCloser) error {
	err := r.WriteCSV(csv)
	if err == nil {
		err = csv.Close()
	}
	if err != nil {
		return fmt.Errorf("--csv: %w", err)
	}
	if f.json {
		err = t.Out.JSON(r)
	} else {
		err = r.WriteText(t.Out)
	}
	if err != nil {
		return err
	}
	if r.Failed > 0 || r.times.TotalCount() == 0 && !r.Interrupted {
		return problem.Quiet(problem.StatusFailure)
	}
	return nil
}
