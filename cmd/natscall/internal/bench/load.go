package bench

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
	"github.com/natscall/natscall/rpc"
)

// batchSize is how large a NATS message of several calls gets: as in the comparison of
// docs/performance.md.
const batchSize = 16 << 10

// caller finds the method and returns what calls it, with its name.
func (f *flags) caller(ctx context.Context, t *tool.Tool, sessions []*tool.Session, args []string, options []rpc.CallOption) (*caller, string, error) {
	asked, cancel := sessions[0].Asking(ctx)
	defer cancel()
	target, err := sessions[0].FindMethod(asked, &f.source, args[0])
	if err == nil {
		err = sessions[0].Load(asked, target, f.instance)
	}
	if err != nil {
		return nil, "", err
	}
	t.Warn(f.json, target.Notice)
	method, prefix, err := target.Dynamic()
	if err != nil {
		return nil, "", err
	}
	name := target.Service.Name + "/" + target.Method.Name
	c := &caller{method: method, options: options}
	c.requests, err = requests(args[1:], t.In, method.Descriptor().Input(), target.Schema.Types())
	if err == nil {
		c.messages, err = f.messages(name, method.Kind(), len(c.requests))
	}
	if err != nil {
		return nil, "", err
	}
	var client []rpc.ClientOption
	if f.batch {
		client = append(client, rpc.WithBatching(batchSize))
	}
	for _, s := range sessions {
		c.clients = append(c.clients, s.Client(prefix, client...))
	}
	return c, name, nil
}

// messages returns how many messages a stream sends: if it is not said, as many as there are
// requests. It is 0 for a method that takes one request.
func (f *flags) messages(name string, kind rpc.Kind, requests int) (int, error) {
	switch {
	case kind == rpc.KindClientStream || kind == rpc.KindBidi:
		return cmp.Or(f.Messages, requests), nil
	case f.Messages > 0:
		return 0, problem.Usage("--messages is for methods that take a stream, and %s is %v", name, kind)
	}
	return 0, nil
}

// requests reads and encodes the requests that arguments name: JSON as it stands, @FILE, and - for
// stdin. Each may have several, one after the other.
func requests(args []string, stdin io.Reader, md protoreflect.MessageDescriptor, types *schema.Types) ([]*rpc.Raw, error) {
	if len(args) == 0 {
		args = []string{"{}"}
	}
	var out []*rpc.Raw
	for _, arg := range args {
		data, err := read(arg, stdin)
		if err != nil {
			return nil, err
		}
		before := len(out)
		for d := json.NewDecoder(bytes.NewReader(data)); ; {
			req, err := next(d, md, types)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			out = append(out, req)
		}
		if len(out) == before {
			return nil, noRequest(arg)
		}
	}
	return out, nil
}

// noRequest is the error of an argument that has no request, or names none.
func noRequest(arg string) error {
	const what = "there is no request"
	file, isFile := strings.CutPrefix(arg, "@")
	switch {
	case arg == "-" || arg == "@-":
		return problem.At("stdin", tool.NoRequest(what))
	case isFile:
		return problem.At(file, tool.NoRequest(what))
	}
	return problem.At(fmt.Sprintf("request %q", arg), tool.NoRequest("malformed JSON"))
}

// next reads and encodes a request, or returns io.EOF.
func next(d *json.Decoder, md protoreflect.MessageDescriptor, types *schema.Types) (*rpc.Raw, error) {
	var value json.RawMessage
	if err := d.Decode(&value); errors.Is(err, io.EOF) {
		return nil, io.EOF
	} else if err != nil {
		return nil, problem.Failure("`natscall call --template` prints what the request looks like", "malformed JSON: %w", err)
	}
	m := dynamicpb.NewMessage(md)
	if err := schema.Unmarshal(value, m, types); err != nil {
		return nil, err
	}
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", value, err)
	}
	return &rpc.Raw{Codec: rpc.CodecProto, Data: data}, nil
}

func read(arg string, stdin io.Reader) ([]byte, error) {
	file, isFile := strings.CutPrefix(arg, "@")
	switch {
	case arg == "-" || arg == "@-":
		return io.ReadAll(stdin)
	case isFile:
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, tool.NoRequests(err)
		}
		return data, nil
	}
	return []byte(arg), nil
}
