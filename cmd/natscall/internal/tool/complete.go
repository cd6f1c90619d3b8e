package tool

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
)

// completionTime is how long somebody who has pressed a key waits for what could follow.
const completionTime = 300 * time.Millisecond

// CompleteServices completes the names of services.
func CompleteServices(t *Tool) cobra.CompletionFunc { return completion(t, serviceNames) }

// CompleteMethods completes the names of methods, with those of their services.
func CompleteMethods(t *Tool) cobra.CompletionFunc { return completion(t, methodNames) }

// CompleteBoth completes the names of services and of methods.
func CompleteBoth(t *Tool) cobra.CompletionFunc {
	return completion(t, func(s *discover.Service) []cobra.Completion {
		return slices.Concat(serviceNames(s), methodNames(s))
	})
}

func serviceNames(s *discover.Service) []cobra.Completion {
	return []cobra.Completion{cobra.CompletionWithDesc(s.Name, s.Description)}
}

func methodNames(s *discover.Service) []cobra.Completion {
	var out []cobra.Completion
	for _, m := range s.Methods {
		out = append(out, cobra.CompletionWithDesc(s.Name+"/"+m.Name, m.Description))
	}
	return out
}

// completion completes the first argument by what the services say that are there. It has no way to
// report an error: then there is nothing to choose from.
func completion(t *Tool, of func(*discover.Service) []cobra.Completion) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		services, err := soon(t, cmd)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []cobra.Completion
		for _, service := range services {
			if service.IsNatscall() {
				out = append(out, of(service)...)
			}
		}
		slices.Sort(out)
		return slices.Compact(out), cobra.ShellCompDirectiveNoFileComp
	}
}

// soon returns the services that answer in the time that there is.
func soon(t *Tool, cmd *cobra.Command) ([]*discover.Service, error) {
	if err := t.Connect.FromEnvironment(cmd.Flags()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	t.Connect.Timeout = min(t.Connect.Timeout, completionTime)
	s, err := t.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Services.Services(ctx, "")
}
