// Package show shows the services that are there: what they are, how they are and what they do.
package show

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
)

const lsExamples = `  natscall ls
  natscall ls OrderService
  natscall ls --all --json`

// List is the command that lists services.
func List(t *tool.Tool) *cobra.Command {
	var all, asJSON bool
	var prefix string
	cmd := &cobra.Command{
		Use:     "ls [flags] [SERVICE]",
		Aliases: []string{"list"},
		Short:   "List the running services, or the methods of one",
		Long: `List the running services, or the methods and instances of one.

SERVICE is its full name, or the end of it where that is unique.`,
		Example:           lsExamples,
		Args:              tool.Args(0, 1),
		ValidArgsFunction: tool.CompleteServices(t),
		RunE: func(cmd *cobra.Command, args []string) error {
			services, err := found(cmd, t, args, prefix)
			if err != nil {
				return err
			}
			if !all && len(args) == 0 {
				services = natscallOnly(services)
			}
			return list(t, services, len(args) > 0, asJSON)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "list NATS micro services that are not built with natscall, too")
	cmd.Flags().StringVar(&prefix, "prefix", "", "`subject` before all others of the service, where there are several of the name")
	tool.JSONFlag(cmd, &asJSON, "print JSON")
	return cmd
}

// found returns the service that an argument names, or all of them.
func found(cmd *cobra.Command, t *tool.Tool, args []string, prefix string) ([]*discover.Service, error) {
	s, err := t.Open(cmd.Context())
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return discover.Patiently(&s.Services, func() ([]*discover.Service, error) {
		services, err := s.Services.Services(cmd.Context(), "")
		return named(services, err, args, prefix)
	})
}

// named returns the service that an argument names, or all of them.
func named(services []*discover.Service, err error, args []string, prefix string) ([]*discover.Service, error) {
	if err != nil || len(args) == 0 {
		return services, err
	}
	one, err := discover.Find(services, args[0], prefix)
	return []*discover.Service{one}, err
}

func natscallOnly(services []*discover.Service) []*discover.Service {
	out := make([]*discover.Service, 0, len(services)) // never null in JSON
	for _, s := range services {
		if s.IsNatscall() {
			out = append(out, s)
		}
	}
	return out
}

// list prints services, or with methods what one of them has.
func list(t *tool.Tool, services []*discover.Service, methods, asJSON bool) error {
	switch {
	case asJSON:
		return t.Out.JSON(services)
	case methods:
		return listMethods(t, services[0])
	case len(services) == 0:
		fmt.Fprintln(t.Err, noServices)
		return nil
	}
	table := t.Out.Table("SERVICE", ">INSTANCES", ">METHODS", "VERSION", "PREFIX", "DESCRIPTION")
	table.Shrink("DESCRIPTION", leastText, output.Head)
	table.Shrink("SERVICE", leastName, output.Tail)
	table.Drop("METHODS", "DESCRIPTION", "VERSION")
	for _, s := range services {
		table.Row(s.Name, len(s.Instances), len(s.Methods), versions(t, s.Versions()), s.Prefix(), firstSentence(s.Description))
	}
	return table.Flush()
}

// noServices is what is said where there is nothing to show, which is no error.
const noServices = "no services answer on this NATS server and account"

// versions returns what instances run, which is one version unless they are being replaced.
func versions(t *tool.Tool, all []string) output.Word {
	text := strings.Join(all, ", ")
	if len(all) > 1 {
		return t.Out.Note(text)
	}
	return t.Out.Plain(text)
}

func listMethods(t *tool.Tool, s *discover.Service) error {
	table := t.Out.Table("METHOD", "KIND", "REQUEST", "RESPONSE", "SUBJECT", "DESCRIPTION")
	table.Shrink("DESCRIPTION", leastText, output.Head)
	table.Shrink("REQUEST", leastName, output.Tail)
	table.Shrink("RESPONSE", leastName, output.Tail)
	table.Shrink("METHOD", leastName, output.Tail)
	table.Drop("SUBJECT", "DESCRIPTION", "RESPONSE", "REQUEST")
	for _, m := range s.Methods {
		table.Row(m.Name, m.Kind, m.Request, m.Response, m.Subject, firstSentence(m.Description))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(t.Out)
	table = t.Out.Table("INSTANCE", "VERSION", "SCHEMA", "STATE")
	table.Shrink("STATE", leastName, output.Head)
	table.Shrink("INSTANCE", leastID, output.Middle)
	for _, i := range s.Instances {
		table.Row(i.ID, i.Version, discover.ShortHash(i.Schema), cmp.Or(i.NotServing, "serving"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for number, i := range s.Instances {
		if table.Lost("STATE", number) {
			fmt.Fprintf(t.Out, "%s: %s\n", t.Out.Plain(i.ID), t.Out.Bad(i.NotServing))
		}
	}
	return nil
}

// firstSentence returns what fits into a table.
func firstSentence(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	if end := strings.Index(text, ". "); end > 0 {
		text = text[:end+1]
	}
	const most = 72
	if len(text) > most {
		text = strings.TrimSpace(text[:strings.LastIndexByte(text[:most], ' ')+1]) + "..."
	}
	return text
}

// nobody is the error of a question that no service has answered.
func nobody(name string) error {
	return problem.Failure("`natscall ls` lists the running services", "no instance of %s answers", name)
}
