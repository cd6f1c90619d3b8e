package call

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/rpc"
)

// row is what an instance has answered, in JSON.
type row struct {
	Instance string          `json:"instance"`
	Response json.RawMessage `json:"response,omitempty"`
	Error    *problem.Report `json:"error,omitempty"`
}

// gather calls all instances, and prints what each has answered.
func gather(ctx context.Context, c *call) error {
	if c.method.Kind() != rpc.KindUnary {
		return problem.Usage("--all is for unary methods, and %s is %s", c.name, c.method.Kind())
	}
	request, err := c.only()
	if err != nil {
		return err
	}
	g := c.method.Gather(ctx, c.client, request, c.form.response, rpc.WithCallOptions(c.options...))
	rows := rows{call: c}
	for answer := range g.All() {
		if err := rows.print(answer); err != nil {
			return ended(err)
		}
	}
	return rows.status(rows.addKnown(ctx, request, g.Result()))
}

// rows are the answers of instances.
type rows struct {
	call     *call
	answered int
	failed   error // the first error of an instance
}

// print prints what an instance has answered.
func (r *rows) print(answer rpc.Gathered[any]) error {
	r.answered++
	out := row{Instance: answer.Instance}
	if answer.Err != nil {
		report := problem.Of(answer.Err).Report(r.call.types)
		out.Error = &report
		if r.failed == nil {
			r.failed = answer.Err
		}
		return r.call.out.Line(out)
	}
	text, err := r.call.form.text(answer.Response, true)
	if err != nil {
		return err
	}
	out.Response = bytes.TrimSuffix(text, []byte("\n"))
	return r.call.out.Line(out)
}

// addKnown adds the instances that discovery has found and the gathering has not, since they were
// slow to say that they are there. The request has come to them, too. So only what may run twice is
// sent to them again.
func (r *rows) addKnown(ctx context.Context, request any, result rpc.GatherResult) (rpc.GatherResult, error) {
	if result.Err != nil && result.Ended != rpc.GatherEndNobody {
		return result, nil
	}
	for _, instance := range r.call.known {
		if slices.Contains(result.Expected, instance) {
			continue
		}
		if r.call.method.Desc().Idempotency == rpc.IdempotencyUnknown {
			result.Missing = append(result.Missing, instance)
		} else if err := r.print(r.call.callOne(ctx, request, instance)); err != nil {
			return result, err
		}
	}
	return result, nil
}

// status returns the error that sets the exit status. Errors of instances stand in the output.
func (r *rows) status(result rpc.GatherResult, err error) error {
	switch {
	case err != nil:
		return ended(err)
	case result.Err != nil && (r.answered == 0 || result.Ended != rpc.GatherEndNobody):
		return ended(result.Err)
	case len(result.Missing) > 0:
		return ended(rpc.Errorf(rpc.CodeUnavailable, "%d instances have not answered: %s", len(result.Missing), strings.Join(result.Missing, ", ")))
	case r.failed != nil:
		return problem.Quiet(problem.Of(r.failed).Status)
	}
	return nil
}
