package call

import (
	"bytes"
	"encoding/json"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/rpc"
)

// row is what an instance has answered, in JSON.
type row struct {
	Instance string          `json:"instance"`
	Response json.RawMessage `json:"response,omitempty"`
	Error    *problem.Report `json:"error,omitempty"`
}

// printRow prints what an instance has answered.
func (c *call) printRow(answer rpc.Gathered[any]) error {
	out := row{Instance: answer.Instance}
	if answer.Err != nil {
		report := problem.Of(answer.Err).Report(c.types)
		out.Error = &report
		return c.out.Line(out)
	}
	text, err := c.form.text(answer.Response, true)
	if err != nil {
		return err
	}
	out.Response = bytes.TrimSuffix(text, []byte("\n"))
	return c.out.Line(out)
}
