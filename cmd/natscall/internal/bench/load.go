package bench

import (
	"bytes"
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

// caller makes the calls of a load. Requests are encoded once, and responses are not decoded: what
// is measured is the service, not the tool.
type caller struct {
	method   *rpc.Method
	clients  []*rpc.Client
	requests []*rpc.Raw
	options  []rpc.CallOption
}

// load finds the method and returns what calls it, with its name.
func (f *flags) load(ctx context.Context, t *tool.Tool, sessions []*tool.Session, args []string, options []rpc.CallOption) (Load, string, error) {
	asked, cancel := sessions[0].Asking(ctx)
	defer cancel()
	target, err := sessions[0].FindMethod(asked, &f.source, args[0])
	if err == nil {
		err = sessions[0].Load(asked, target, f.instance)
	}
	if err != nil {
		return Load{}, "", err
	}
	method, prefix, err := target.Dynamic()
	if err != nil {
		return Load{}, "", err
	}
	name := target.Service.Name + "/" + target.Method.Name
	if kind := method.Kind(); kind == rpc.KindClientStream || kind == rpc.KindBidi {
		return Load{}, "", problem.Usage("%s is a %v method: only unary, one-way and server-streaming methods can be measured", name, kind)
	}
	c := &caller{method: method, options: options}
	c.requests, err = requests(args[1:], t.In, method.Descriptor().Input(), target.Schema.Types())
	if err != nil {
		return Load{}, "", err
	}
	var client []rpc.ClientOption
	if f.batch {
		client = append(client, rpc.WithBatching(batchSize))
	}
	for _, s := range sessions {
		c.clients = append(c.clients, s.Client(prefix, client...))
	}
	if method.Kind() == rpc.KindServerStream {
		return Load{Stream: true, Call: c.stream}, name, nil
	}
	return Load{Call: c.call}, name, nil
}

func (c *caller) of(number int64) (*rpc.Client, *rpc.Raw) {
	return c.clients[number%int64(len(c.clients))], c.requests[number%int64(len(c.requests))]
}

// call makes a unary or one-way call.
func (c *caller) call(ctx context.Context, number int64, message func(int)) error {
	client, req := c.of(number)
	res := new(rpc.Raw)
	err := c.method.Call(ctx, client, req, res, c.options...)
	if err == nil && c.method.Kind() == rpc.KindUnary {
		message(len(res.Data))
	}
	return err
}

// stream receives the messages of a stream.
func (c *caller) stream(ctx context.Context, number int64, message func(int)) error {
	client, req := c.of(number)
	s, err := c.method.Open(ctx, client, req, c.options...)
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		res := new(rpc.Raw)
		if err := s.Recv(res); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		message(len(res.Data))
	}
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
	}
	if len(out) == 0 {
		return nil, problem.Usage("there is no request in %s", strings.Join(args, " "))
	}
	return out, nil
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
			return nil, problem.Failure("@FILE reads requests from a file, - from stdin", "requests: %w", err)
		}
		return data, nil
	}
	return []byte(arg), nil
}
