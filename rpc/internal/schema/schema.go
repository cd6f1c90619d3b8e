// Package schema has the .proto files of a service as its instances serve them: each is found by a
// hash.
package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/internal/describe"
)

// Schema is the file that defines a service with all that it imports. All methods may be called
// concurrently.
type Schema struct {
	top      *File
	files    map[string]*File // by hash
	comments func() (map[string]*descriptorpb.SourceCodeInfo, error)
}

// File is a file of a schema.
type File struct {
	Hash    string
	Path    string
	Imports []*natscallv1.SchemaImport

	desc protoreflect.FileDescriptor
	of   *Schema
}

// New returns the schema of the service that a file defines. comments are those of
// describe.EncodeComments; they are decoded when they are first needed.
func New(f protoreflect.FileDescriptor, comments string) *Schema {
	s := &Schema{files: map[string]*File{}}
	s.comments = sync.OnceValues(func() (map[string]*descriptorpb.SourceCodeInfo, error) {
		return describe.DecodeComments(comments)
	})
	hashes := map[string]string{} // by path
	for _, desc := range describe.Imported(f) {
		file := &File{Path: desc.Path(), desc: desc, of: s}
		for i := range desc.Imports().Len() {
			path := desc.Imports().Get(i).Path()
			file.Imports = append(file.Imports, &natscallv1.SchemaImport{Path: path, Hash: hashes[path]})
		}
		file.Hash = file.hash()
		hashes[file.Path] = file.Hash
		s.top, s.files[file.Hash] = file, file
	}
	return s
}

// Hash returns the hash of the file that defines the service. It covers all files that the file
// imports, but those of Protobuf itself.
func (s *Schema) Hash() string { return s.top.Hash }

// Find returns the file with a hash, or nil. "" is the file that defines the service.
func (s *Schema) Find(hash string) *File {
	if hash == "" {
		return s.top
	}
	return s.files[hash]
}

// hashSize is the size of a hash in bytes: enough to be the only one with its value.
const hashSize = 16

// hash returns the hash of a file whose imports have theirs.
func (f *File) hash() string {
	sum := sha256.New()
	data, err := proto.MarshalOptions{Deterministic: true, AllowPartial: true}.Marshal(f.proto())
	if err != nil { // only a string that is not UTF-8, which no compiler lets through
		data = []byte(f.Path)
	}
	sum.Write(data)
	for _, i := range f.Imports {
		if !describe.IsStandard(i.GetPath()) {
			sum.Write([]byte(i.GetHash()))
		}
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)[:hashSize])
}

// proto returns the file without its comments.
func (f *File) proto() *descriptorpb.FileDescriptorProto {
	out := protodesc.ToFileDescriptorProto(f.desc)
	out.SourceCodeInfo = nil
	return out
}

// Encode returns the file with its comments, encoded. If the comments cannot be read, it has none,
// and the error says why.
func (f *File) Encode() ([]byte, error) {
	out := protodesc.ToFileDescriptorProto(f.desc) // with the comments that the descriptor has
	comments, failed := f.of.comments()
	if info := comments[f.Path]; info != nil {
		out.SourceCodeInfo = info
	}
	data, err := proto.MarshalOptions{Deterministic: true, AllowPartial: true}.Marshal(out)
	if err != nil {
		return nil, err
	}
	return data, failed
}
