// Package rpcschema gets the .proto files of a service from its instances, for tools, gateways and
// other programs that learn of services at run time.
//
//	set, err := rpcschema.Fetch(ctx, client, &rpc.ServiceDesc{Name: "order.v1.OrderService"})
//	files, err := protodesc.NewFiles(set)
//
// With the descriptors, rpc.NewMethod makes methods that can be called.
package rpcschema

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
)

// These bound how many files a service may have, their size in bytes together, and how many calls
// it takes to get them, as they come from others.
const (
	maxFiles = 10_000
	maxSize  = 256 << 20
	maxCalls = 100_000
)

// Fetch returns the file that defines a service, as the last one, and all files that it imports,
// each after what it imports, with their comments. Only the name and the subject prefix of s are
// used. All files come from one instance: any, or the one of [rpc.WithInstance]. If it has gone
// meanwhile, Fetch fails. The options apply to each of the calls, one a file, but for
// rpc.ResponseInstance.
//
// The error is an *rpc.Error. CodeUnimplemented means that the service serves no schema
// ([rpc.WithoutSchema]), CodeDataLoss that what came is not what was asked for.
func Fetch(ctx context.Context, c *rpc.Client, s *rpc.ServiceDesc, opts ...rpc.CallOption) (*descriptorpb.FileDescriptorSet, error) {
	f := &fetch{client: c, method: rpc.SchemaMethod(s), done: map[string]string{}}
	f.opts = append(slices.Clip(opts), rpc.ResponseInstance(&f.instance))
	top, err := f.file(ctx, "")
	if err != nil {
		return nil, err
	}
	if err := f.add(ctx, top); err != nil {
		return nil, err
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	return &f.set, nil
}

// fetch is a schema of which some files have come.
type fetch struct {
	client *rpc.Client
	method *rpc.UnaryMethod[*natscallv1.GetSchemaRequest, *natscallv1.GetSchemaResponse]
	opts   []rpc.CallOption
	set    descriptorpb.FileDescriptorSet
	done   map[string]string // hashes by path, of files that have come or are asked for

	instance string // that has answered
	calls    int    // that were made
	size     uint64 // of what has come
}

// check makes sure that each file stands after all that it imports.
func (f *fetch) check() error {
	has := map[string]bool{}
	for _, file := range f.set.GetFile() {
		for _, path := range file.GetDependency() {
			if !has[path] {
				return rpc.Errorf(rpc.CodeDataLoss, "schema: %s imports %s, which has not come before it", file.GetName(), path)
			}
		}
		has[file.GetName()] = true
	}
	return nil
}

// add adds a file, and what it imports before it.
func (f *fetch) add(ctx context.Context, res *natscallv1.GetSchemaResponse) error {
	file := new(descriptorpb.FileDescriptorProto)
	if err := proto.Unmarshal(res.GetFile(), file); err != nil {
		return rpc.Errorf(rpc.CodeDataLoss, "schema: %s is not a valid file: %w", res.GetPath(), err)
	}
	if file.GetName() != res.GetPath() || file.GetName() == "" {
		return rpc.Errorf(rpc.CodeDataLoss, "schema: the file %q came as %q", file.GetName(), res.GetPath())
	}
	f.done[res.GetPath()] = res.GetHash()
	for _, i := range res.GetImports() {
		if err := f.addImport(ctx, res.GetPath(), i); err != nil {
			return err
		}
	}
	f.set.File = append(f.set.File, file)
	return nil
}

func (f *fetch) addImport(ctx context.Context, by string, i *natscallv1.SchemaImport) error {
	switch hash, has := f.done[i.GetPath()]; {
	case has && hash == i.GetHash():
		return nil
	case has:
		return rpc.Errorf(rpc.CodeDataLoss, "schema: two different files are %s", i.GetPath())
	case i.GetHash() == "":
		return rpc.Errorf(rpc.CodeNotFound, "schema: the service does not have %s, which %s imports", i.GetPath(), by)
	case len(f.done) >= maxFiles:
		return rpc.Errorf(rpc.CodeResourceExhausted, "schema: it has more than %d files", maxFiles)
	}
	res, err := f.file(ctx, i.GetHash())
	if err != nil {
		return err
	}
	if res.GetPath() != i.GetPath() {
		return rpc.Errorf(rpc.CodeDataLoss, "schema: %s came where %s was asked for", res.GetPath(), i.GetPath())
	}
	return f.add(ctx, res)
}

// partSize is how much of a file is asked for at a time, in bytes. It fits into a NATS message of
// any server, so a tool needs no permissions for streams.
const partSize = 32 << 10

// file gets a file by its hash.
func (f *fetch) file(ctx context.Context, hash string) (*natscallv1.GetSchemaResponse, error) {
	whole, err := f.call(ctx, &natscallv1.GetSchemaRequest{Hash: hash, Limit: partSize})
	if err != nil {
		return nil, err
	}
	for uint64(len(whole.GetFile())) < whole.GetSize() {
		part, err := f.call(ctx, &natscallv1.GetSchemaRequest{Hash: whole.GetHash(), Offset: uint64(len(whole.GetFile())), Limit: partSize})
		switch {
		case err != nil:
			return nil, err
		case len(part.GetFile()) == 0:
			return nil, rpc.Errorf(rpc.CodeDataLoss, "schema: a part of %s has nothing", whole.GetPath())
		case part.GetHash() != whole.GetHash() || part.GetSize() != whole.GetSize():
			return nil, rpc.Errorf(rpc.CodeDataLoss, "schema: a part of %s is that of another file", whole.GetPath())
		}
		whole.File = append(whole.GetFile(), part.GetFile()...)
	}
	switch {
	case hash != "" && whole.GetHash() != hash:
		return nil, rpc.Errorf(rpc.CodeDataLoss, "schema: the hash of %s is %q, not %q", whole.GetPath(), whole.GetHash(), hash)
	case uint64(len(whole.GetFile())) != whole.GetSize():
		return nil, rpc.Errorf(rpc.CodeDataLoss, "schema: %s has more than its %d bytes", whole.GetPath(), whole.GetSize())
	}
	return whole, nil
}

// call makes a call. All after the first one go to the instance that has answered that: others may
// have a file with the same hash and other comments.
func (f *fetch) call(ctx context.Context, req *natscallv1.GetSchemaRequest) (*natscallv1.GetSchemaResponse, error) {
	if f.calls++; f.calls > maxCalls {
		return nil, rpc.Errorf(rpc.CodeResourceExhausted, "schema: it takes more than %d calls", maxCalls)
	}
	res, err := f.method.Call(ctx, f.client, req, f.opts...)
	if err != nil {
		return nil, err
	}
	if f.size += uint64(len(res.GetFile())); f.size > maxSize || res.GetSize() > maxSize {
		return nil, rpc.Errorf(rpc.CodeResourceExhausted, "schema: its files are larger than %d bytes", maxSize)
	}
	if f.calls == 1 && f.instance != "" {
		f.opts = append(f.opts, rpc.WithInstance(f.instance))
	}
	return res, nil
}
