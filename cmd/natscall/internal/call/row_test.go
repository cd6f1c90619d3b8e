package call

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/rpc"
)

// TestRowsStatus: the exit status of a gathering is that of what has gone wrong first.
func TestRowsStatus(t *testing.T) {
	late := rpc.NewError(rpc.CodeDeadlineExceeded, "late")
	nobody := rpc.NewError(rpc.CodeUnavailable, "nobody")
	for _, test := range []struct {
		name   string
		rows   rows
		result rpc.GatherResult
		err    error
		want   int
		quiet  bool // the output has the error already
	}{
		{"all", rows{answered: 2}, rpc.GatherResult{Ended: rpc.GatherEndAll}, nil, 0, false},
		{"an error of one", rows{answered: 2, failed: rpc.NewError(rpc.CodeNotFound, "no")}, rpc.GatherResult{Ended: rpc.GatherEndAll}, nil, 69, true},
		{"one is missing", rows{answered: 1}, rpc.GatherResult{Ended: rpc.GatherEndStall, Missing: []string{"a"}}, nil, 78, false},
		{"the deadline", rows{answered: 1}, rpc.GatherResult{Ended: rpc.GatherEndDeadline, Err: late, Missing: []string{"a"}}, nil, 68, false},
		{"nobody", rows{}, rpc.GatherResult{Ended: rpc.GatherEndNobody, Err: nobody}, nil, 78, false},
		{"nobody but those that discovery has found", rows{answered: 1}, rpc.GatherResult{Ended: rpc.GatherEndNobody, Err: nobody}, nil, 0, false},
		{"the output is full", rows{answered: 1}, rpc.GatherResult{}, errors.New("disk full"), 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.rows.status(test.result, test.err)
			if err == nil && test.want == 0 {
				return
			}
			if err == nil || problem.Of(err).Status != test.want || problem.Of(err).Quiet != test.quiet {
				t.Errorf("%v, want exit status %d", err, test.want)
			}
		})
	}
}

// TestRowsKnown: what may not run twice is not sent again to an instance that has not been heard
// of.
func TestRowsKnown(t *testing.T) {
	m := rpc.NewRawMethod(&rpc.ServiceDesc{Name: "a.S"}, rpc.MethodDesc{Name: "Do"}, rpc.KindUnary)
	// There is no client: a call would panic.
	r := rows{call: &call{method: m, known: []string{"a", "b"}}}
	result, err := r.addKnown(context.Background(), nil, rpc.GatherResult{Ended: rpc.GatherEndAll, Expected: []string{"a"}})
	if err != nil || !slices.Equal(result.Missing, []string{"b"}) {
		t.Errorf("%q are missing (%v), want b", result.Missing, err)
	}
	deadline := rpc.GatherResult{Ended: rpc.GatherEndDeadline, Err: rpc.NewError(rpc.CodeDeadlineExceeded, "late")}
	if result, _ := r.addKnown(context.Background(), nil, deadline); len(result.Missing) > 0 {
		t.Errorf("after the deadline %q are missing", result.Missing)
	}
}
