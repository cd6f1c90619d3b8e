package rpc_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcschema"
	"github.com/natscall/natscall/rpc/rpctest"
)

var orderDesc = &rpc.ServiceDesc{Name: orderv1nats.OrderServiceName}

// serveOrderSchema serves the order service.
func serveOrderSchema(t testing.TB, nc *nats.Conn, opts ...rpc.ServiceOption) *rpc.Server {
	t.Helper()
	s := rpc.NewServer(nc)
	must(t, orderv1nats.RegisterOrderServiceServer(s, orderv1nats.UnimplementedOrderServiceServer{}, opts...))
	must(t, s.Start(testContext(t)))
	t.Cleanup(func() { shutdown(t, s) })
	return s
}

// commentOf returns the leading comment of a declaration.
func commentOf(t testing.TB, set *descriptorpb.FileDescriptorSet, name protoreflect.FullName) string {
	t.Helper()
	files, err := protodesc.NewFiles(set)
	must(t, err)
	d, err := files.FindDescriptorByName(name)
	must(t, err)
	return d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments
}

// TestSchema: a client gets the files of a service with their comments, whatever the queue groups
// of the instances and the form of the requests are.
func TestSchema(t *testing.T) {
	srv := rpctest.NewServer(t)
	for name, groups := range map[string][]rpc.ServiceOption{
		"one group":  {rpc.WithQueueGroup("q"), rpc.WithQueueGroup("q")},
		"two groups": {rpc.WithQueueGroup("q"), rpc.WithQueueGroup("audit")},
	} {
		t.Run(name, func(t *testing.T) {
			prefix := strings.ReplaceAll(name, " ", "-")
			for _, group := range groups {
				s := rpc.NewServer(srv.Connect(), rpc.WithSubjectPrefix(prefix))
				must(t, orderv1nats.RegisterOrderServiceServer(s, orderv1nats.UnimplementedOrderServiceServer{}, group))
				must(t, s.Start(testContext(t)))
				defer shutdown(t, s)
			}
			for form, opts := range map[string][]rpc.ClientOption{
				"envelope": nil, "JSON": {rpc.WithCodec(rpc.CodecJSON)}, "plain": {rpc.WithPlainRequests()},
				"plain JSON": {rpc.WithPlainRequests(), rpc.WithCodec(rpc.CodecJSON)}, "batched": {rpc.WithBatching(1 << 12)},
			} {
				set, err := rpcschema.Fetch(testContext(t), dial(t, srv.Connect(), append(opts, rpc.WithSubjectPrefix(prefix))...), orderDesc)
				must(t, err)
				var paths []string
				for _, f := range set.GetFile() {
					paths = append(paths, f.GetName())
				}
				if last := paths[len(paths)-1]; last != "order/v1/order.proto" || !strings.Contains(strings.Join(paths, " "), "natscall/v1/options.proto") {
					t.Errorf("%s: the files are %q", form, paths)
				}
				for _, name := range []protoreflect.FullName{"order.v1.OrderService.PlaceOrder", "order.v1.Order"} {
					if commentOf(t, set, name) == "" {
						t.Errorf("%s: %s has no comment", form, name)
					}
				}
			}
		})
	}
}

// TestSchemaWithoutGroup: it works where every instance gets every call.
func TestSchemaWithoutGroup(t *testing.T) {
	srv := rpctest.NewServer(t)
	for range 2 {
		serve(t, srv.Connect(), &funcs{}, rpc.WithoutQueueGroup())
	}
	set, err := rpcschema.Fetch(testContext(t), dial(t, srv.Connect()), &testDesc)
	must(t, err)
	if n := len(set.GetFile()); n != 1 || set.GetFile()[0].GetName() != "google/protobuf/wrappers.proto" {
		t.Errorf("got %d files", n)
	}
}

// TestPlainSchema: a plain client follows the imports by their hashes, part by part.
func TestPlainSchema(t *testing.T) {
	const maxPayload = 4 << 10
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.MaxPayload = maxPayload }))
	nc := srv.Connect()
	serveOrderSchema(t, srv.Connect())
	ask := func(req *natscallv1.GetSchemaRequest) *natscallv1.GetSchemaResponse {
		t.Helper()
		data, err := protojson.Marshal(req)
		must(t, err)
		m, err := nc.RequestWithContext(testContext(t), orderv1nats.OrderServiceName+"._schema", data)
		must(t, err)
		res := new(natscallv1.GetSchemaResponse)
		must(t, protojson.Unmarshal(m.Data, res))
		return res
	}
	for name, limit := range map[string]uint32{"whole parts": 0, "small parts": 100} {
		t.Run(name, func(t *testing.T) {
			var data []byte
			parts := 0
			for {
				part := ask(&natscallv1.GetSchemaRequest{Offset: uint64(len(data)), Limit: limit})
				data = append(data, part.GetFile()...)
				parts++
				if limit > 0 && len(part.GetFile()) > int(limit) {
					t.Errorf("a part has %d bytes", len(part.GetFile()))
				}
				if uint64(len(data)) >= part.GetSize() {
					break
				}
			}
			var file descriptorpb.FileDescriptorProto
			must(t, proto.Unmarshal(data, &file))
			if parts < 3 || file.GetName() != "order/v1/order.proto" || len(file.GetSourceCodeInfo().GetLocation()) == 0 {
				t.Errorf("got %s with %d locations in %d parts", file.GetName(), len(file.GetSourceCodeInfo().GetLocation()), parts)
			}
		})
	}
	top := ask(&natscallv1.GetSchemaRequest{})
	for _, i := range top.GetImports() {
		if file := ask(&natscallv1.GetSchemaRequest{Hash: i.GetHash()}); file.GetPath() != i.GetPath() || file.GetHash() != i.GetHash() {
			t.Errorf("asked for %v, got %v", i, file)
		}
	}
	if len(top.GetImports()) == 0 {
		t.Error("the file imports nothing")
	}
	set, err := rpcschema.Fetch(testContext(t), dial(t, nc), orderDesc)
	must(t, err)
	_, err = protodesc.NewFiles(set)
	must(t, err)
	// Without a limit the response exceeds max_payload, and travels as a stream.
	res, err := rpc.SchemaMethod(orderDesc).Call(testContext(t), dial(t, nc), new(natscallv1.GetSchemaRequest))
	must(t, err)
	if len(res.GetFile()) < maxPayload || uint64(len(res.GetFile())) != res.GetSize() {
		t.Errorf("got %d of %d bytes", len(res.GetFile()), res.GetSize())
	}
}

// TestSchemaErrors: each wrong question has an answer.
func TestSchemaErrors(t *testing.T) {
	srv := rpctest.NewServer(t)
	c := dial(t, srv.Connect())
	serveOrderSchema(t, srv.Connect())
	bare := rpc.ServiceDesc{Name: "test.v1.Bare", MicroName: "Bare", Version: "0.0.0"}
	s := rpc.NewServer(srv.Connect())
	must(t, rpc.Register(s, &bare, t, nil))
	must(t, registerTest(s, &funcs{}, rpc.WithoutSchema()))
	must(t, s.Start(testContext(t)))
	defer shutdown(t, s)
	for name, test := range map[string]struct {
		desc *rpc.ServiceDesc
		req  *natscallv1.GetSchemaRequest
		code rpc.Code
		text string
	}{
		"unknown hash": {orderDesc, &natscallv1.GetSchemaRequest{Hash: "sha256:0"}, rpc.CodeNotFound, "order/v1/order.proto"},
		"long hash":    {orderDesc, &natscallv1.GetSchemaRequest{Hash: strings.Repeat("x", 1<<16)}, rpc.CodeNotFound, "xxx"},
		"offset":       {orderDesc, &natscallv1.GetSchemaRequest{Offset: 1 << 60}, rpc.CodeOutOfRange, "bytes"},
		"none":         {&bare, nil, rpc.CodeUnimplemented, "without a Protobuf descriptor"},
		"kept":         {&testDesc, nil, rpc.CodeUnimplemented, "rpc.WithoutSchema"},
	} {
		t.Run(name, func(t *testing.T) {
			req := test.req
			if req == nil {
				req = new(natscallv1.GetSchemaRequest)
			}
			_, err := rpc.SchemaMethod(test.desc).Call(testContext(t), c, req)
			if rpc.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.text) || len(err.Error()) > 1000 {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestToolsAndLimits: what a server allows for its own messages and calls does not keep schema and
// health from tools.
func TestToolsAndLimits(t *testing.T) {
	for name, option := range map[string]rpc.ServerOption{
		"size":          rpc.WithMaxMessageSize(1),
		"timeout":       rpc.WithTimeout(time.Nanosecond),
		"longest":       rpc.WithMaxTimeout(time.Nanosecond),
		"concurrency":   rpc.WithMaxConcurrency(1),
		"without queue": rpc.WithMaxQueue(0),
	} {
		t.Run(name, func(t *testing.T) {
			srv := rpctest.NewServer(t)
			s := rpc.NewServer(srv.Connect(), option)
			must(t, orderv1nats.RegisterOrderServiceServer(s, orderv1nats.UnimplementedOrderServiceServer{}))
			must(t, s.Start(testContext(t)))
			defer shutdown(t, s)
			c := dial(t, srv.Connect())
			for form, opts := range map[string][]rpc.CallOption{"envelope": nil, "plain": {rpc.WithPlainRequests()}} {
				if _, err := rpcschema.Fetch(testContext(t), c, orderDesc, opts...); err != nil {
					t.Errorf("schema, %s: %v", form, err)
				}
				if _, err := rpc.HealthMethod(orderDesc).Call(testContext(t), c, new(natscallv1.GetHealthRequest), opts...); err != nil {
					t.Errorf("health, %s: %v", form, err)
				}
			}
		})
	}
}

// TestSchemaOfTwoVersions: while a new version is rolled out, all files come from one instance.
func TestSchemaOfTwoVersions(t *testing.T) {
	srv := rpctest.NewServer(t)
	c := dial(t, srv.Connect())
	hashes := map[string]bool{}
	for i := range 2 {
		desc := rpc.ServiceDesc{Name: "order.v1.OrderService", MicroName: "OrderService", Version: "1.0.0", File: edited(t, fmt.Sprint("Field", i))}
		s := rpc.NewServer(srv.Connect())
		must(t, rpc.Register(s, &desc, t, nil))
		must(t, s.Start(testContext(t)))
		defer shutdown(t, s)
	}
	for range 50 {
		set, err := rpcschema.Fetch(testContext(t), c, orderDesc)
		must(t, err)
		_, err = protodesc.NewFiles(set)
		must(t, err)
		hashes[set.GetFile()[len(set.GetFile())-1].GetMessageType()[0].GetName()] = true
	}
	if len(hashes) != 2 {
		t.Errorf("the files of %d versions have come", len(hashes))
	}
}

// edited returns the file of the order service with another name for its first message.
func edited(t testing.TB, name string) protoreflect.FileDescriptor {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("order/v1/order.proto"), Package: proto.String("order.v1"), Syntax: proto.String("proto3"),
		Dependency:  []string{"edited.proto"},
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String(name)}},
	}
	imported, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("edited.proto"), MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("In" + name)}},
	}, nil)
	must(t, err)
	files, err := protodesc.NewFiles(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(imported), file}})
	must(t, err)
	out, err := files.FindFileByPath(file.GetName())
	must(t, err)
	return out
}

// TestSchemaHash: the hash covers imports and not comments.
func TestSchemaHash(t *testing.T) {
	srv := rpctest.NewServer(t)
	hash := func(file protoreflect.FileDescriptor, comments string) string {
		t.Helper()
		desc := rpc.ServiceDesc{Name: "order.v1.OrderService", MicroName: "OrderService", Version: "1.0.0", File: file, Comments: comments}
		s := rpc.NewServer(srv.Connect())
		must(t, rpc.Register(s, &desc, t, nil))
		must(t, s.Start(testContext(t)))
		defer shutdown(t, s)
		res, err := rpc.SchemaMethod(&desc).Call(testContext(t), dial(t, srv.Connect()), new(natscallv1.GetSchemaRequest))
		must(t, err)
		return res.GetHash()
	}
	a := hash(orderv1.File_order_v1_order_proto, "")
	if b := hash(orderv1.File_order_v1_order_proto, "not Base64"); a != b {
		t.Errorf("with other comments it is %s, not %s", b, a)
	}
	one, two := protodesc.ToFileDescriptorProto(edited(t, "A")), protodesc.ToFileDescriptorProto(edited(t, "A"))
	if x, y := hash(importing(t, one, "In"), ""), hash(importing(t, two, "Out"), ""); x == y {
		t.Errorf("with another import it is %s too", x)
	}
}

// importing returns a file whose import has one message with a name.
func importing(t testing.TB, file *descriptorpb.FileDescriptorProto, name string) protoreflect.FileDescriptor {
	t.Helper()
	files, err := protodesc.NewFiles(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		{Name: proto.String("edited.proto"), MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String(name)}}}, file,
	}})
	must(t, err)
	out, err := files.FindFileByPath(file.GetName())
	must(t, err)
	return out
}

// large returns a file of the order service that takes several calls, with a comment.
func large(t testing.TB, comment string) protoreflect.FileDescriptor {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("order/v1/order.proto"), Syntax: proto.String("proto3"),
		SourceCodeInfo: &descriptorpb.SourceCodeInfo{Location: []*descriptorpb.SourceCodeInfo_Location{
			{Path: []int32{4, 0}, Span: []int32{1, 1, 1}, LeadingComments: &comment},
		}},
	}
	for i := range 5000 {
		file.MessageType = append(file.MessageType, &descriptorpb.DescriptorProto{Name: proto.String(fmt.Sprint("Message", i))})
	}
	out, err := protodesc.NewFile(file, nil)
	must(t, err)
	return out
}

// TestSchemaPartsOfOneInstance: files with one hash may have other comments, so all parts come from
// the same instance.
func TestSchemaPartsOfOneInstance(t *testing.T) {
	srv := rpctest.NewServer(t)
	c := dial(t, srv.Connect())
	comments := map[string]int{}
	for _, comment := range []string{"short", "longer than that"} {
		desc := rpc.ServiceDesc{Name: "order.v1.OrderService", MicroName: "OrderService", Version: "1.0.0", File: large(t, comment)}
		s := rpc.NewServer(srv.Connect())
		must(t, rpc.Register(s, &desc, t, nil))
		must(t, s.Start(testContext(t)))
		defer shutdown(t, s)
	}
	for range 20 {
		set, err := rpcschema.Fetch(testContext(t), c, orderDesc)
		must(t, err)
		if n := len(set.GetFile()[0].GetMessageType()); n != 5000 {
			t.Errorf("it has %d messages", n)
		}
		comments[commentOf(t, set, "Message0")]++
	}
	if len(comments) != 2 {
		t.Errorf("the comments were %v", comments)
	}
}

// TestWrongSchema: what a server that is broken or hostile answers is an error, after few calls.
func TestWrongSchema(t *testing.T) {
	type answer = natscallv1.GetSchemaResponse
	file := func(name, imports string) *answer {
		data, err := proto.Marshal(&descriptorpb.FileDescriptorProto{Name: &name, Dependency: strings.Fields(imports)})
		must(t, err)
		out := &answer{Hash: name, Path: name, File: data, Size: uint64(len(data))}
		for _, path := range strings.Fields(imports) {
			out.Imports = append(out.Imports, &natscallv1.SchemaImport{Path: path, Hash: path})
		}
		return out
	}
	cycle := map[string]*answer{"": file("a", "b"), "b": file("b", "a")}
	cut := file("a", "")
	cut.File = cut.File[:2]
	untold, longer, other := file("a", "b"), file("a", ""), file("b", "")
	untold.Imports, longer.Size = nil, 1
	for name, test := range map[string]struct {
		answer func(*natscallv1.GetSchemaRequest) *answer
		code   rpc.Code
	}{
		"huge": {func(*natscallv1.GetSchemaRequest) *answer {
			return &answer{Hash: "a", Path: "a", Size: 1 << 63, File: []byte("x")}
		}, rpc.CodeResourceExhausted},
		"cycle":            {func(r *natscallv1.GetSchemaRequest) *answer { return cycle[r.GetHash()] }, rpc.CodeDataLoss},
		"untold import":    {func(*natscallv1.GetSchemaRequest) *answer { return untold }, rpc.CodeDataLoss},
		"more than it has": {func(*natscallv1.GetSchemaRequest) *answer { return longer }, rpc.CodeDataLoss},
		"nothing":          {func(*natscallv1.GetSchemaRequest) *answer { return new(answer) }, rpc.CodeDataLoss},
		"other file": {func(r *natscallv1.GetSchemaRequest) *answer {
			if r.GetHash() == "" {
				return file("a", "b c")
			}
			return other // for c too
		}, rpc.CodeDataLoss},
		"part of another file": {func(r *natscallv1.GetSchemaRequest) *answer {
			if r.GetOffset() == 0 {
				return cut
			}
			return other
		}, rpc.CodeDataLoss},
	} {
		t.Run(name, func(t *testing.T) {
			nc := rpctest.Connect(t)
			_, err := nc.Subscribe(orderv1nats.OrderServiceName+"._schema", func(m *nats.Msg) {
				req := new(natscallv1.GetSchemaRequest)
				if proto.Unmarshal(m.Data, req) == nil {
					data, _ := proto.Marshal(test.answer(req))
					_ = m.Respond(data)
				}
			})
			must(t, err)
			set, err := rpcschema.Fetch(testContext(t), dial(t, nc, rpc.WithPlainRequests()), orderDesc)
			if rpc.CodeOf(err) != test.code {
				t.Errorf("got %v, %v", set, err)
			}
		})
	}
}
