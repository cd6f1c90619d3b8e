package show

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
	"github.com/natscall/natscall/rpc"
)

const healthLong = `Ask the instances of all services, or of one, how they are.

The exit status is 0 if all of them are serving, or with --any at least one of each service, and 1
if not, or if a service has no instance.`

// Health is the command that asks instances how they are.
func Health(t *tool.Tool) *cobra.Command {
	h := health{t: t}
	cmd := &cobra.Command{
		Use:               "health [flags] [SERVICE]",
		Short:             "Ask instances how they are",
		Long:              healthLong,
		Example:           "  natscall health\n  natscall health OrderService --any && echo up",
		Args:              tool.Args(0, 1),
		ValidArgsFunction: tool.CompleteServices(t),
		RunE: func(cmd *cobra.Command, args []string) error {
			return h.run(cmd, args)
		},
	}
	cmd.Flags().BoolVar(&h.any, "any", false, "be content with one instance that is serving")
	cmd.Flags().StringVar(&h.prefix, "prefix", "", "`subject` before all others of the service, where there are several of the name")
	tool.JSONFlag(cmd, &h.json, "print JSON")
	return cmd
}

// health is one run of the command.
type health struct {
	t      *tool.Tool
	any    bool
	json   bool
	prefix string
}

// condition is how an instance is.
type condition struct {
	Service    string     `json:"service"`
	Prefix     string     `json:"prefix,omitempty"`
	Instance   string     `json:"instance"`
	Status     string     `json:"status"` // SERVING, NOT_SERVING or UNKNOWN
	Reason     string     `json:"reason,omitempty"`
	Since      *time.Time `json:"since,omitempty"`
	TakesCalls bool       `json:"takes_calls"`
}

const (
	serving    = "SERVING"
	notServing = "NOT_SERVING"
	unknown    = "UNKNOWN"
)

func (h *health) run(cmd *cobra.Command, args []string) error {
	s, err := h.t.Open(cmd.Context())
	if err != nil {
		return err
	}
	defer s.Close()
	services, err := discover.Patiently(&s.Services, func() ([]*discover.Service, error) {
		services, err := s.Services.Services(cmd.Context(), "")
		return named(services, err, args, h.prefix)
	})
	if err != nil {
		return err
	}
	if len(args) > 0 && !services[0].IsNatscall() {
		name := services[0].Name
		return problem.Failure("`natscall ping "+name+"` asks its instances whether they are there", "service %s is not built with natscall, so it does not say how it is", name)
	}
	if services = natscallOnly(services); len(services) == 0 {
		return nobody("any natscall service")
	}
	var all []condition
	for _, service := range services {
		all = append(all, conditions(cmd.Context(), s, service)...)
	}
	if err := h.print(all, anyPrefix(services)); err != nil {
		return err
	}
	if !h.well(services, all) {
		return problem.Quiet(problem.StatusFailure) // the output says why
	}
	return nil
}

// conditions asks each instance of a service that discovery has found.
func conditions(ctx context.Context, s *tool.Session, service *discover.Service) []condition {
	target := tool.Target{Service: service}
	method, client := rpc.HealthMethod(target.Bare()), s.Bare()
	out := make([]condition, len(service.Instances))
	var asked sync.WaitGroup
	for i, instance := range service.Instances {
		asked.Go(func() {
			answer, err := method.Call(ctx, client, new(natscallv1.GetHealthRequest), rpc.WithInstance(instance.ID), rpc.WithTimeout(s.Services.Limit))
			out[i] = conditionOf(service, instance.ID, answer, err)
		})
	}
	asked.Wait()
	return out
}

func conditionOf(service *discover.Service, instance string, answer *natscallv1.GetHealthResponse, err error) condition {
	c := condition{Service: service.Name, Prefix: service.Prefix(), Instance: instance, Status: unknown}
	if err != nil {
		c.Reason = err.Error()
		return c
	}
	switch answer.GetStatus() {
	case natscallv1.HealthStatus_HEALTH_STATUS_SERVING:
		c.Status = serving
	case natscallv1.HealthStatus_HEALTH_STATUS_NOT_SERVING:
		c.Status = notServing
	}
	c.Reason, c.TakesCalls = answer.GetReason(), answer.GetTakesCalls()
	if at := answer.GetSince(); at != nil {
		when := at.AsTime()
		c.Since = &when
	}
	return c
}

// well reports whether the services are as they should be.
func (h *health) well(services []*discover.Service, all []condition) bool {
	for _, s := range services {
		mine := slices.DeleteFunc(slices.Clone(all), func(c condition) bool { return c.Service != s.Name || c.Prefix != s.Prefix() })
		bad := slices.IndexFunc(mine, func(c condition) bool { return c.Status != serving })
		good := slices.IndexFunc(mine, func(c condition) bool { return c.Status == serving })
		if good < 0 || bad >= 0 && !h.any {
			return false
		}
	}
	return true
}

func (h *health) print(all []condition, prefixed bool) error {
	out := h.t.Out
	if h.json {
		return out.JSON(all)
	}
	table := out.Table(withPrefix(prefixed, "SERVICE", "INSTANCE", "STATUS", "TAKES CALLS", ">SINCE", "REASON")...)
	table.Shrink("REASON", leastText, output.Head)
	shrinkNames(table)
	table.Drop("TAKES CALLS", "SINCE", "REASON", "INSTANCE")
	for _, c := range all {
		status, takes, ago := out.Good("serving"), "yes", "-"
		if c.Status != serving {
			status = out.Bad(strings.ReplaceAll(c.Status, "_", " "))
		}
		if !c.TakesCalls {
			takes = "no"
		}
		if c.Since != nil {
			ago = since(time.Since(*c.Since))
		}
		table.Row(append(service(prefixed, c.Service, c.Prefix), c.Instance, status, takes, ago, cmp.Or(c.Reason, "-"))...)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	for i, c := range all {
		if c.Reason != "" && table.Lost("REASON", i) { // it is what one wants to know
			fmt.Fprintf(out, "%s %s: %s\n", out.Plain(keyOf(c.Service, c.Prefix)), out.Plain(c.Instance), out.Bad(c.Reason))
		}
	}
	return nil
}
