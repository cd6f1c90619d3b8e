package show

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go/micro"
	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
)

const pingLong = `Ask the instances of all services, or of one, whether they are there, and print how long each answer
took.

The exit status is 0 if at least one instance has answered, and 1 if none has.`

// Ping is the command that asks instances whether they are there.
func Ping(t *tool.Tool) *cobra.Command {
	var asJSON bool
	var prefix string
	cmd := &cobra.Command{
		Use:               "ping [flags] [SERVICE]",
		Short:             "Ask instances whether they are there",
		Long:              pingLong,
		Example:           "  natscall ping\n  natscall ping OrderService --json",
		Args:              tool.Args(0, 1),
		ValidArgsFunction: tool.CompleteServices(t),
		RunE: func(cmd *cobra.Command, args []string) error {
			services, err := pinged(cmd, t, args, prefix)
			if err != nil {
				return err
			}
			return printPings(t, services, asJSON)
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "`subject` before all others of the service, where there are several of the name")
	tool.JSONFlag(cmd, &asJSON, "print JSON")
	return cmd
}

func pinged(cmd *cobra.Command, t *tool.Tool, args []string, prefix string) ([]*discover.Service, error) {
	s, err := t.Open(cmd.Context())
	if err != nil {
		return nil, err
	}
	defer s.Close()
	services, err := discover.Patiently(&s.Services, func() ([]*discover.Service, error) {
		answers, err := s.Services.Pings(cmd.Context(), "")
		services := discover.ServicesOf(answers, func(p micro.Ping) micro.ServiceIdentity { return p.ServiceIdentity })
		return named(services, err, args, prefix)
	})
	if err != nil || len(args) > 0 {
		return services, err
	}
	if services = natscallOnly(services); len(services) == 0 {
		return nil, nobody("any natscall service")
	}
	return services, nil
}

// pong is the answer of an instance.
type pong struct {
	Service  string  `json:"service"`
	Prefix   string  `json:"prefix,omitempty"`
	Instance string  `json:"instance"`
	Version  string  `json:"version"`
	Took     float64 `json:"took_ms"`
}

func printPings(t *tool.Tool, services []*discover.Service, asJSON bool) error {
	var all []pong
	for _, s := range services {
		for _, i := range s.Instances {
			all = append(all, pong{s.Name, s.Prefix(), i.ID, i.Version, float64(i.After) / float64(time.Millisecond)})
		}
	}
	if asJSON {
		return t.Out.JSON(all)
	}
	prefixed := anyPrefix(services)
	table := t.Out.Table(withPrefix(prefixed, "SERVICE", "INSTANCE", "VERSION", ">TOOK")...)
	shrinkNames(table)
	table.Drop("VERSION")
	for _, p := range all {
		table.Row(append(service(prefixed, p.Service, p.Prefix), p.Instance, p.Version, fmt.Sprintf("%.2fms", p.Took))...)
	}
	return table.Flush()
}
