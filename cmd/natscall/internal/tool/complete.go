package tool

import (
	"context"
	"math"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/jsm.go/natscontext"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/output"
)

// defaultCompletionTime is how long somebody who has pressed a key waits for what could follow.
// Where NATS is far away, the environment variable allows more.
const (
	defaultCompletionTime = 300 * time.Millisecond
	completionVariable    = "NATSCALL_COMPLETION_TIME"
)

func completionTime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv(completionVariable)); err == nil && d > 0 {
		return d
	}
	return defaultCompletionTime
}

// CompleteServices completes the names of services.
func CompleteServices(t *Tool) cobra.CompletionFunc { return completion(t, serviceNames, 1) }

// CompleteAnyServices completes the names of services, of which there may be several.
func CompleteAnyServices(t *Tool) cobra.CompletionFunc {
	return completion(t, serviceNames, math.MaxInt)
}

// CompleteMethods completes the names of methods, with those of their services.
func CompleteMethods(t *Tool) cobra.CompletionFunc { return completion(t, methodNames, 1) }

// CompleteBoth completes the names of services and of methods.
func CompleteBoth(t *Tool) cobra.CompletionFunc {
	return completion(t, func(s *discover.Service) []candidate {
		return slices.Concat(serviceNames(s), methodNames(s))
	}, 1)
}

// CompleteContexts completes the names of contexts.
func CompleteContexts(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return natscontext.KnownContexts(), cobra.ShellCompDirectiveNoFileComp
}

// candidate is a name that may be completed, and how much of it may be left out in front.
type candidate struct {
	name, description string
	short             []string // what is left then, the longest first
}

func serviceNames(s *discover.Service) []candidate {
	return []candidate{{s.Name, s.Description, []string{s.Short()}}}
}

func methodNames(s *discover.Service) []candidate {
	var out []candidate
	for _, m := range s.Methods {
		if !protoreflect.Name(m.Name).IsValid() {
			continue
		}
		out = append(out, candidate{s.Name + "/" + m.Name, m.Description, []string{s.Short() + "/" + m.Name, m.Name}})
	}
	return out
}

// completion completes so many arguments by what the services say that are there. What is no name
// in Protobuf is left out: it would stand in the command line as it is, for the shell to run. There
// is no way to report an error: then there is nothing to choose from.
func completion(t *Tool, of func(*discover.Service) []candidate, most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		services, err := soon(t, cmd)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var all []candidate
		for _, service := range services {
			if service.IsNatscall() && protoreflect.FullName(service.Name).IsValid() {
				all = append(all, of(service)...)
			}
		}
		return matching(all, word), cobra.ShellCompDirectiveNoFileComp
	}
}

// CompleteFlags completes the values of --instance and --prefix, where a command has them, by those
// of the service that the arguments name.
func CompleteFlags(t *Tool, cmd *cobra.Command) {
	for name, of := range map[string]func(*discover.Service) []candidate{"instance": instances, "prefix": prefixes} {
		if cmd.Flags().Lookup(name) == nil {
			continue
		}
		// This fails for flags that do not exist only.
		_ = cmd.RegisterFlagCompletionFunc(name, func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
			services, err := soon(t, cmd)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var all []candidate
			for _, service := range services {
				if len(args) == 0 || isMeant(service, args[0]) {
					all = append(all, of(service)...)
				}
			}
			return matching(all, word), cobra.ShellCompDirectiveNoFileComp
		})
	}
}

// isMeant reports whether a name may mean a service or a method of it.
func isMeant(s *discover.Service, name string) bool {
	alone := []*discover.Service{s}
	if _, err := discover.Find(alone, name, ""); err == nil {
		return true
	}
	_, _, err := discover.FindMethod(alone, name, "")
	return err == nil
}

func instances(s *discover.Service) []candidate {
	var out []candidate
	for _, i := range s.Instances {
		if isPlain(i.ID) {
			out = append(out, candidate{i.ID, s.Name + " " + i.Version, nil})
		}
	}
	return out
}

func prefixes(s *discover.Service) []candidate {
	if p := s.Prefix(); p != "" && isPlain(p) {
		return []candidate{{p, "", nil}} // several services may have it
	}
	return nil
}

// isPlain reports whether a shell takes a word as it stands.
func isPlain(word string) bool {
	return !strings.ContainsFunc(word, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("._-", r)
	})
}

// matching returns the candidates that begin with a word: by their full names, or else by shorter
// ones, since a shell takes only what the word is the beginning of.
func matching(all []candidate, word string) []cobra.Completion {
	for left := range 3 {
		var out []cobra.Completion
		for _, c := range all {
			name := c.name
			if left > len(c.short) {
				continue
			}
			if left > 0 {
				name = c.short[left-1]
			}
			if strings.HasPrefix(name, word) {
				out = append(out, cobra.CompletionWithDesc(name, output.Clean(c.description)))
			}
		}
		if len(out) > 0 {
			slices.Sort(out)
			return slices.Compact(out)
		}
	}
	return nil
}

// soon returns the services that answer in the time that there is.
func soon(t *Tool, cmd *cobra.Command) ([]*discover.Service, error) {
	if err := t.Connect.FromEnvironment(cmd.Flags()); err != nil {
		return nil, err
	}
	limit := completionTime()
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	t.Connect.Hurry(limit)
	s, err := t.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Services.Services(ctx, "")
}
