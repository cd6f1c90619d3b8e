package describe

import (
	"encoding/base64"
	"fmt"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// protoc-gen-go leaves comments out of the descriptors in Go code. So the plugin writes them into
// the code of the services: a FileDescriptorSet of which each file has only its path and its source
// info, compressed and in Base64. The compressor is a pinned library and not Go's own, whose output
// changes between Go versions.

// maxComments bounds what comments may take when they are decompressed.
const maxComments = 64 << 20

var zstdCoder = sync.OnceValues(func() (*zstd.Encoder, *zstd.Decoder) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err) // of an invalid option, which is constant
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxComments))
	if err != nil {
		panic(err) // likewise
	}
	return e, d
})

// EncodeComments returns the comments of a file, and of those files that define the messages of its
// services. Files of Protobuf itself, and those that are imported for options only, would be large
// and are left out. It is empty if there are none.
func EncodeComments(f protoreflect.FileDescriptor) (string, error) {
	set := new(descriptorpb.FileDescriptorSet)
	used := filesOf(f)
	for _, file := range Imported(f) {
		if info := commentsOf(file); info != nil && used[file.Path()] {
			set.File = append(set.File, &descriptorpb.FileDescriptorProto{Name: proto.String(file.Path()), SourceCodeInfo: info})
		}
	}
	if len(set.File) == 0 {
		return "", nil
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(set)
	if err != nil {
		return "", fmt.Errorf("%s: comments: %w", f.Path(), err)
	}
	encoder, _ := zstdCoder()
	return base64.StdEncoding.EncodeToString(encoder.EncodeAll(data, nil)), nil
}

// DecodeComments returns the source info of each file, by its path, that EncodeComments has found.
func DecodeComments(text string) (map[string]*descriptorpb.SourceCodeInfo, error) {
	if text == "" {
		return nil, nil
	}
	compressed, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("comments: %w", err)
	}
	_, decoder := zstdCoder()
	data, err := decoder.DecodeAll(compressed, nil)
	if err != nil {
		return nil, fmt.Errorf("comments: %w", err)
	}
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(data, set); err != nil {
		return nil, fmt.Errorf("comments: %w", err)
	}
	out := make(map[string]*descriptorpb.SourceCodeInfo, len(set.GetFile()))
	for _, file := range set.GetFile() {
		out[file.GetName()] = file.GetSourceCodeInfo()
	}
	return out, nil
}

// commentsOf returns the source info of what has comments in a file, nil if nothing has.
func commentsOf(f protoreflect.FileDescriptor) *descriptorpb.SourceCodeInfo {
	info := new(descriptorpb.SourceCodeInfo)
	for i := range f.SourceLocations().Len() {
		at := f.SourceLocations().Get(i)
		if at.LeadingComments == "" && at.TrailingComments == "" && len(at.LeadingDetachedComments) == 0 {
			continue
		}
		info.Location = append(info.Location, &descriptorpb.SourceCodeInfo_Location{
			Path: at.Path, Span: spanOf(at),
			LeadingComments: optional(at.LeadingComments), TrailingComments: optional(at.TrailingComments),
			LeadingDetachedComments: at.LeadingDetachedComments,
		})
	}
	if len(info.Location) == 0 {
		return nil
	}
	return info
}

func spanOf(at protoreflect.SourceLocation) []int32 {
	if at.StartLine == at.EndLine {
		return []int32{int32(at.StartLine), int32(at.StartColumn), int32(at.EndColumn)}
	}
	return []int32{int32(at.StartLine), int32(at.StartColumn), int32(at.EndLine), int32(at.EndColumn)}
}

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// filesOf returns the paths of a file and of those that define the messages of its services, but
// for those of Protobuf itself.
func filesOf(f protoreflect.FileDescriptor) map[string]bool {
	files := map[string]bool{f.Path(): true}
	seen := map[protoreflect.FullName]bool{}
	var visit func(protoreflect.MessageDescriptor)
	visit = func(m protoreflect.MessageDescriptor) {
		if m == nil || m.IsPlaceholder() || seen[m.FullName()] || IsStandard(m.ParentFile().Path()) {
			return
		}
		seen[m.FullName()], files[m.ParentFile().Path()] = true, true
		for i := range m.Fields().Len() {
			field := m.Fields().Get(i)
			visit(field.Message())
			if enum := field.Enum(); enum != nil && !enum.IsPlaceholder() && !IsStandard(enum.ParentFile().Path()) {
				files[enum.ParentFile().Path()] = true
			}
		}
	}
	for i := range f.Services().Len() {
		for j := range f.Services().Get(i).Methods().Len() {
			method := f.Services().Get(i).Methods().Get(j)
			visit(method.Input())
			visit(method.Output())
		}
	}
	return files
}

// Imported returns a file and all files that it imports, directly or not, each after what it
// imports. Files whose descriptors are not there (placeholders) are left out.
func Imported(f protoreflect.FileDescriptor) (all []protoreflect.FileDescriptor) {
	seen := map[string]bool{} // by path: a file may be imported in very many ways
	var visit func(protoreflect.FileDescriptor)
	visit = func(f protoreflect.FileDescriptor) {
		if f.IsPlaceholder() || seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			visit(f.Imports().Get(i).FileDescriptor)
		}
		all = append(all, f)
	}
	visit(f)
	return all
}

// IsStandard reports whether a file is one of those that come with Protobuf.
func IsStandard(path string) bool { return strings.HasPrefix(path, "google/protobuf/") }
