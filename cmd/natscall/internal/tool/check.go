package tool

import (
	"context"
	"errors"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/rpc"
)

// HeaderFlag adds the flag --header, whose values Headers returns.
func HeaderFlag(flags *pflag.FlagSet, into *[]string) {
	flags.StringArrayVarP(into, "header", "H", nil, "`KEY:VALUE` of a request header; may be repeated")
}

// Headers returns the options of a call for the values of --header, which CheckCommand has let
// pass.
func Headers(values []string) []rpc.CallOption {
	var out []rpc.CallOption
	for _, value := range values {
		out = append(out, headerOf(value))
	}
	return out
}

func headerOf(text string) rpc.CallOption {
	key, value, _ := strings.Cut(text, ":")
	return rpc.WithHeader(strings.TrimSpace(key), strings.TrimSpace(value))
}

// NoRequests is the error of a file with requests that cannot be read.
func NoRequests(err error) error {
	return problem.UsageWithNext("@FILE reads requests from a file, - from stdin", "requests: %w", err)
}

// NoRequest is the error of an argument or of stdin that should have a request and is empty.
func NoRequest(what string) error {
	return problem.UsageWithNext("an empty message is {}; `natscall call --template` prints what the request looks like", "%s: it is empty", what)
}

// checkFlags refuses values of flags that several commands have and that no call could be made
// with, before anything is asked or sent.
func checkFlags(flags *pflag.FlagSet) error {
	if f := flags.Lookup("prefix"); f != nil && f.Value.String() != "" {
		if err := try(rpc.WithSubjectPrefix(f.Value.String())); err != nil {
			return problem.Usage("--prefix %q: %w", f.Value, err)
		}
	}
	if f := flags.Lookup("instance"); f != nil && f.Changed {
		if err := try(nil, rpc.WithInstance(f.Value.String())); err != nil {
			return problem.Usage("--instance %q: %w; `natscall ps` shows the ids", f.Value, err)
		}
	}
	headers, _ := flags.GetStringArray("header") // fails where there is no such flag
	for _, header := range headers {
		if !strings.Contains(header, ":") {
			return problem.Usage("--header %q: there is no colon behind the key, as in KEY:VALUE", header)
		}
		if err := try(nil, headerOf(header)); err != nil {
			return problem.Usage("--header %q: %w", header, err)
		}
	}
	return nil
}

// try returns what the runtime says against options. It makes a call with them that an interceptor
// keeps back, so that the rules stand there alone.
func try(client rpc.ClientOption, call ...rpc.CallOption) error {
	back := rpc.WithInterceptors(func(context.Context, *rpc.Call, rpc.Next) error { return nil })
	options := []rpc.ClientOption{back}
	if client != nil {
		options = append(options, client)
	}
	m := rpc.NewRawMethod(&rpc.ServiceDesc{Name: "natscall.Trial"}, rpc.MethodDesc{Name: "Try"}, rpc.KindOneWay)
	err := m.Call(context.Background(), rpc.NewClient(new(nats.Conn), options...), new(rpc.Raw), new(rpc.Raw), call...)
	if err == nil {
		return nil
	}
	text := err.Error()
	if failed, ok := errors.AsType[*rpc.Error](err); ok {
		text = failed.Message()
	}
	for _, option := range []string{"client: ", "WithSubjectPrefix: ", "WithInstance: ", "WithHeader: "} {
		text = strings.TrimPrefix(text, option) // the flag stands before it
	}
	return errors.New(text)
}

// CheckCommand checks the flags of a command: those that exclude each other, and those of
// checkFlags.
func CheckCommand(cmd *cobra.Command) error {
	if err := cmd.ValidateFlagGroups(); err != nil {
		return apart(err)
	}
	return checkFlags(cmd.Flags())
}

// apart is the error of flags that exclude each other, without cobra's groups.
func apart(err error) error {
	_, given, found := strings.Cut(err.Error(), "; [")
	given, _, ended := strings.Cut(given, "] were all set")
	if !found || !ended {
		return problem.Usage("%w", err)
	}
	return problem.Usage("--%s cannot be given together", strings.Join(strings.Fields(given), " and --"))
}
