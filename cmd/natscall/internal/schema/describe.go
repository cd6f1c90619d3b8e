package schema

import (
	"fmt"
	"strings"

	"github.com/jhump/protoreflect/v2/protoprint"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Text returns descriptors as they stand in a .proto file, with their comments.
func Text(descriptors ...protoreflect.Descriptor) (string, error) {
	printer := protoprint.Printer{OmitComments: protoprint.CommentsDetached}
	var out []string
	for _, d := range descriptors {
		text, err := printer.PrintProtoToString(d)
		if err != nil {
			return "", fmt.Errorf("%s: %w", d.FullName(), err)
		}
		text = strings.ReplaceAll(text, "\r\n", "\n") // of comments in a file from Windows
		out = append(out, strings.TrimRight(text, "\n")+"\n")
	}
	return strings.Join(out, "\n"), nil
}

// Comment returns the comment before a descriptor, or "".
func Comment(d protoreflect.Descriptor) string {
	at := d.ParentFile().SourceLocations().ByDescriptor(d)
	text := strings.ReplaceAll(at.LeadingComments, "\r\n", "\n")
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// Messages returns messages with those that they contain, each once and behind the first one that
// contains it, and their enums. What is declared within one of them is a part of its text, and what
// google.protobuf defines is known to everybody: both are left out.
func Messages(of ...protoreflect.MessageDescriptor) []protoreflect.Descriptor {
	var out []protoreflect.Descriptor
	seen := map[protoreflect.FullName]bool{}
	var add func(d protoreflect.Descriptor)
	add = func(d protoreflect.Descriptor) {
		if seen[d.FullName()] || d.FullName().Parent() == "google.protobuf" {
			return
		}
		seen[d.FullName()] = true
		if !seen[d.Parent().FullName()] || d.Parent() == d.ParentFile() {
			out = append(out, d)
		}
		for _, field := range fieldTypes(d) {
			add(field)
		}
	}
	for _, md := range of {
		add(md)
	}
	return out
}

// fieldTypes returns the messages and enums that the fields of a message have.
func fieldTypes(d protoreflect.Descriptor) []protoreflect.Descriptor {
	md, ok := d.(protoreflect.MessageDescriptor)
	if !ok {
		return nil
	}
	var out []protoreflect.Descriptor
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if fd.Message() != nil {
			out = append(out, fd.Message())
		}
		if fd.Enum() != nil {
			out = append(out, fd.Enum())
		}
	}
	return out
}
