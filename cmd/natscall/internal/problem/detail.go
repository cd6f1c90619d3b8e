package problem

import (
	"bytes"
	"encoding/json"

	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // the details that many systems use
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

func asAny(m proto.Message) (*anypb.Any, error) {
	if packed, ok := m.(*anypb.Any); ok {
		return packed, nil
	}
	return anypb.New(m)
}

// compact takes out the blanks that protojson puts in at random.
func compact(data []byte) json.RawMessage {
	var out bytes.Buffer
	if err := json.Compact(&out, data); err != nil {
		return data
	}
	return out.Bytes()
}

// resolver returns types, or those that are linked into the tool if there are none.
func resolver(types Types) Types {
	if types == nil {
		return protoregistry.GlobalTypes
	}
	return types
}
