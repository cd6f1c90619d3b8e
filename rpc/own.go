package rpc

import (
	"context"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/admission"
	"github.com/natscall/natscall/rpc/internal/schema"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Every service has two methods beside those of its .proto file, for tools. They are ordinary ones,
// but for this: interceptors do not see them, discovery does not list them, they have a few
// goroutines and limits of their own, and they are served also while the instance takes no other
// calls. What a server allows for its messages and calls may be too little for a schema.

// SchemaMethod returns the method by which every instance of a service serves the service's .proto
// files, one file or a part of one a call. Which instance of which queue group answers is not
// determined; they may have different files while a new version is rolled out, so ask for the
// others by the same instance ([ResponseInstance], [WithInstance]). Package rpcschema does that.
//
// CodeNotFound means that the instance has no file with that hash, CodeOutOfRange that the file
// ends before the offset, and CodeUnimplemented that it serves none ([WithoutSchema]).
func SchemaMethod(s *ServiceDesc) *UnaryMethod[*natscallv1.GetSchemaRequest, *natscallv1.GetSchemaResponse] {
	return NewUnaryMethod[natscallv1.GetSchemaRequest, natscallv1.GetSchemaResponse](s, MethodDesc{
		Name: wire.SchemaMethod, Idempotency: IdempotencyNoSideEffects,
	})
}

// HealthMethod returns the method by which every instance of a service says how it is. All
// instances answer a call, and the first answer is its response: [UnaryMethod.Gather] returns all
// of them, and [WithInstance] asks one.
func HealthMethod(s *ServiceDesc) *UnaryMethod[*natscallv1.GetHealthRequest, *natscallv1.GetHealthResponse] {
	return NewUnaryMethod[natscallv1.GetHealthRequest, natscallv1.GetHealthResponse](s, MethodDesc{
		Name: wire.HealthMethod, Idempotency: IdempotencyNoSideEffects,
	})
}

// schemaGroup is the queue group of the schema method. It is the same for all instances, so that
// one of them answers, whatever groups their calls have.
const schemaGroup = "_schema"

// ownLimits are those of the calls of the own methods.
var ownLimits = admission.Limits{Running: 4, Waiting: 256}

// ownSizes are those of their messages. A schema is asked for in parts.
var ownSizes = sizeLimits{send: defaultMaxSize, receive: 1 << 20}

// ownMethods are the methods that a service has beside those of its .proto file.
type ownMethods struct{ *service }

func (s ownMethods) endpoints() []*endpoint {
	files, health := SchemaMethod(s.desc), HealthMethod(s.desc)
	return []*endpoint{
		s.endpoint(&files.method, schemaGroup, s.serveSchema),
		s.endpoint(&health.method, "", s.serveHealth),
	}
}

func (s ownMethods) endpoint(m *method, group string, serve func(*Call, proto.Message) (proto.Message, error)) *endpoint {
	invoke := func(_ context.Context, call *Call) error {
		req, err := call.served.request()
		if err != nil {
			return err
		}
		call.response, err = serve(call, req)
		return err
	}
	return &endpoint{
		service: s.service, method: m, own: true, invoke: invoke, subject: names.Join(s.server.options.prefix, m.subject),
		queueGroup: group, admission: admission.NewMethod(ownLimits),
	}
}

// serveHealth answers how the instance is.
func (s ownMethods) serveHealth(*Call, proto.Message) (proto.Message, error) {
	h := membership(s).health()
	out := &natscallv1.GetHealthResponse{
		Service: h.Service, Instance: h.Instance, Reason: h.Reason, TakesCalls: h.TakesCalls,
		Status: natscallv1.HealthStatus_HEALTH_STATUS_NOT_SERVING, Since: timestamppb.New(h.Since),
	}
	if h.Serving {
		out.Status = natscallv1.HealthStatus_HEALTH_STATUS_SERVING
	}
	return out, nil
}

// serveSchema answers with a file of the schema, or a part of it.
func (s ownMethods) serveSchema(call *Call, req proto.Message) (proto.Message, error) {
	in := req.(*natscallv1.GetSchemaRequest)
	switch {
	case s.options.noSchema:
		return nil, Errorf(CodeUnimplemented, "%s serves no schema (rpc.WithoutSchema)", s.desc.Name)
	case s.profile.schema == nil:
		return nil, Errorf(CodeUnimplemented, "%s has no schema: it was made without a Protobuf descriptor", s.desc.Name)
	}
	file := s.profile.schema.Find(in.GetHash())
	if file == nil {
		return nil, Errorf(CodeNotFound, "%s has no file with the hash %q here: another instance may have other files; the service is defined in %s with the hash %q",
			s.desc.Name, wire.Truncate(in.GetHash(), maxHash), s.profile.schema.Find("").Path, s.profile.schema.Hash())
	}
	data, err := file.Encode()
	if err != nil {
		s.server.options.logger.Error("natscall: a file of the schema is not as it should be", "file", file.Path, "error", err)
	}
	if data == nil {
		return nil, Errorf(CodeInternal, "%s cannot be encoded", file.Path)
	}
	return s.part(call, file, data, in)
}

// maxHash is how much of a hash that nobody knows an error repeats.
const maxHash = 100

func (s ownMethods) part(call *Call, file *schema.File, data []byte, in *natscallv1.GetSchemaRequest) (*natscallv1.GetSchemaResponse, error) {
	if in.GetOffset() > uint64(len(data)) {
		return nil, Errorf(CodeOutOfRange, "offset %d: %s has %d bytes", in.GetOffset(), file.Path, len(data))
	}
	out := &natscallv1.GetSchemaResponse{Hash: file.Hash, Path: file.Path, Size: uint64(len(data)), Imports: file.Imports}
	part := data[in.GetOffset():]
	limit := len(part)
	if in.GetLimit() > 0 {
		limit = min(limit, int(min(in.GetLimit(), 1<<30)))
	}
	if call.served.plain {
		room := s.plainRoom(call.served.codec, out)
		if room <= 0 {
			return nil, Errorf(CodeResourceExhausted, "%s: the list of its imports does not fit into a NATS message", file.Path)
		}
		limit = min(limit, room)
	}
	out.File = part[:limit]
	return out, nil
}

// plainHead is more than the header of a plain response has.
const plainHead = 512

// plainRoom returns how many bytes of a file fit into a plain response, beside what it has already.
func (s ownMethods) plainRoom(codec Codec, out *natscallv1.GetSchemaResponse) int {
	room := int(s.server.nc.MaxPayload()) - plainHead
	if codec != CodecJSON {
		return room - proto.Size(out)
	}
	text, err := protojson.Marshal(out)
	if err != nil {
		return 0
	}
	return (room - len(text)) / 4 * 3 // Base64
}

// WithoutSchema makes the services of a server, or one service, keep their .proto files to
// themselves: calls of [SchemaMethod] end with CodeUnimplemented, and tools need the files. Without
// it everybody who may publish to the subject gets them.
func WithoutSchema() ServerServiceOption {
	return forServices(func(o *serviceOptions) error {
		o.noSchema = true
		return nil
	})
}
