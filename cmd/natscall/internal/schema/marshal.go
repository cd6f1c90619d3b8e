package schema

import (
	"bytes"
	"encoding/json"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/cmd/natscall/internal/output"
)

// Marshal returns the JSON of a message in one line.
func Marshal(m proto.Message, types *Types, defaults bool) ([]byte, error) {
	data, err := protojson.MarshalOptions{Resolver: types, EmitDefaultValues: defaults, AllowPartial: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Compact(&out, data) // protojson puts blanks in at random
	return output.SafeJSON(out.Bytes()), err
}

// Indented returns JSON in several lines, as people read it.
func Indented(data []byte) []byte {
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "  "); err != nil {
		return data // of something else: shown as it came
	}
	return out.Bytes()
}
