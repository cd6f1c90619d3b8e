package show

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/micro"
	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
)

const statsLong = `Show what the methods of all services, or of one, have done since their instances have started.

The exit status is 0 if at least one instance has answered, and 1 if none has.`

// Stats is the command that shows the numbers of methods.
func Stats(t *tool.Tool) *cobra.Command {
	s := stats{t: t}
	cmd := &cobra.Command{
		Use:               "stats [flags] [SERVICE]",
		Short:             "Show what each method has done",
		Long:              statsLong,
		Example:           "  natscall stats OrderService\n  natscall stats --json",
		Args:              tool.Args(0, 1),
		ValidArgsFunction: tool.CompleteServices(t),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.run(cmd, args)
		},
	}
	cmd.Flags().StringVar(&s.prefix, "prefix", "", "`subject` before all others of the service, where there are several of the name")
	tool.JSONFlag(cmd, &s.json, "print JSON")
	return cmd
}

// stats is one run of the command.
type stats struct {
	t      *tool.Tool
	prefix string
	json   bool
}

// count is what a method of an instance has done.
type count struct {
	Service  string          `json:"service"`
	Prefix   string          `json:"prefix,omitempty"`
	Instance string          `json:"instance"`
	Method   string          `json:"method"`
	Requests int             `json:"requests"`
	Errors   int             `json:"errors"`
	Last     string          `json:"last_error,omitempty"`
	Mean     float64         `json:"mean_ms"`
	Data     json.RawMessage `json:"data,omitempty"`
	data     data
}

func (s *stats) run(cmd *cobra.Command, args []string) error {
	session, err := s.t.Open(cmd.Context())
	if err != nil {
		return err
	}
	defer session.Close()
	var answers []discover.Answer[micro.Stats]
	services, err := discover.Patiently(&session.Services, func() ([]*discover.Service, error) {
		var err error
		answers, err = session.Services.Stats(cmd.Context(), "")
		return named(discover.ServicesOf(answers, identity), err, args, s.prefix)
	})
	if err != nil {
		return err
	}
	if len(args) == 0 {
		services = natscallOnly(services)
	}
	if len(services) == 0 {
		return nobody("any natscall service")
	}
	return s.print(counts(services, answers))
}

func identity(s micro.Stats) micro.ServiceIdentity { return s.ServiceIdentity }

// counts returns the numbers of the instances of services.
func counts(services []*discover.Service, answers []discover.Answer[micro.Stats]) []count {
	of := map[string]*discover.Service{} // by the id of the instance
	for _, s := range services {
		for _, i := range s.Instances {
			of[i.ID] = s
		}
	}
	var out []count
	for _, a := range answers {
		service := of[a.Value.ID]
		if service == nil {
			continue
		}
		for _, e := range a.Value.Endpoints {
			out = append(out, count{
				Service: service.Name, Prefix: service.Prefix(), Instance: a.Value.ID, Method: e.Name, Requests: e.NumRequests, Errors: e.NumErrors, Last: e.LastError,
				Mean: float64(e.AverageProcessingTime) / float64(time.Millisecond), Data: e.Data, data: dataOf(e),
			})
		}
	}
	slices.SortStableFunc(out, func(a, b count) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Prefix, b.Prefix), strings.Compare(a.Method, b.Method), strings.Compare(a.Instance, b.Instance))
	})
	return out
}

func (s *stats) print(all []count) error {
	if s.json {
		return s.t.Out.JSON(all)
	}
	prefixed := slices.ContainsFunc(all, func(c count) bool { return c.Prefix != "" })
	table := s.t.Out.Table(withPrefix(prefixed, "METHOD", "INSTANCE", ">REQUESTS", ">ERRORS", ">IN FLIGHT", ">QUEUED", ">SHED", ">MEAN", ">P50", ">P99", "CODES")...)
	table.Shrink("CODES", leastText, output.Head)
	table.Shrink("METHOD", leastName, output.Tail)
	shrinkNames(table)
	table.Drop("QUEUED", "SHED", "MEAN", "IN FLIGHT", "CODES", "P50", "ERRORS", "P99")
	for _, c := range all {
		t := totals{Requests: int64(c.Requests), Errors: int64(c.Errors)}
		table.Row(append(service(prefixed, c.Service+"/"+c.Method, c.Prefix), c.Instance, c.Requests, errorsOf(s.t.Out, t), c.data.InFlight, c.data.Queued,
			shedOf(s.t.Out, c.data.Shed), milliseconds(c.Mean), milliseconds(c.data.P50), milliseconds(c.data.P99), codes(c.data.Codes))...)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}
