package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// Unmarshal reads a message from JSON. Its errors name the fields that there are, where one does
// not exist, and lines and columns where the JSON is malformed.
func Unmarshal(data []byte, m proto.Message, types *Types) error {
	err := protojson.UnmarshalOptions{Resolver: types}.Unmarshal(data, m)
	if err == nil {
		return nil
	}
	md := m.ProtoReflect().Descriptor()
	template := "`natscall call --template` prints what the request looks like"
	if syntax := checkSyntax(data); syntax != nil {
		return problem.Failure(template, "malformed JSON: %w", syntax)
	}
	if !isSpecial(md) && !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return problem.Failure(template, "%s: a message is an object of JSON, as in {}, and this is none", md.FullName())
	}
	if unknown := findUnknown(data, md, string(md.Name())); unknown != nil {
		return unknown
	}
	return problem.Failure(template, "%s: %s", md.FullName(), cleaned(err))
}

// cleaned takes the name of the package out of an error of protojson, which has blanks of varying
// kind behind it so that nobody depends on it.
func cleaned(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(text, "proto: ")
}

// checkSyntax returns what is wrong with JSON, and where.
func checkSyntax(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	var value json.RawMessage
	err := d.Decode(&value)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line, column := position(data, int(syntax.Offset))
		return fmt.Errorf("line %d, column %d: %w", line, column, err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it ends too early: a quote or brace is missing")
	}
	return err
}

// position returns the line and column of the byte before an offset.
func position(data []byte, offset int) (line, column int) {
	before := data[:min(max(offset-1, 0), len(data))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}

// findUnknown returns an error that names a field which a message does not have, or nil if there is
// none. path leads to the message.
func findUnknown(data []byte, md protoreflect.MessageDescriptor, path string) error {
	var object map[string]json.RawMessage
	if isSpecial(md) || json.Unmarshal(data, &object) != nil {
		return nil // what is no object is another error
	}
	for _, name := range sorted(object) {
		fd := fieldOf(md, name)
		if fd == nil {
			return unknownField(md, name, path)
		}
		if err := findInField(object[name], fd, path+"."+name); err != nil {
			return err
		}
	}
	return nil
}

func findInField(data []byte, fd protoreflect.FieldDescriptor, path string) error {
	if fd.IsMap() {
		var values map[string]json.RawMessage
		if fd.MapValue().Message() == nil || json.Unmarshal(data, &values) != nil {
			return nil
		}
		for _, key := range sorted(values) {
			if err := findUnknown(values[key], fd.MapValue().Message(), fmt.Sprintf("%s[%q]", path, key)); err != nil {
				return err
			}
		}
		return nil
	}
	if fd.Message() == nil {
		return nil
	}
	var values []json.RawMessage
	if !fd.IsList() || json.Unmarshal(data, &values) != nil {
		return findUnknown(data, fd.Message(), path)
	}
	for i, value := range values {
		if err := findUnknown(value, fd.Message(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	return nil
}

// fieldOf returns the field that a name in JSON stands for: as Protobuf's JSON writes it, or as the
// .proto file does.
func fieldOf(md protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := md.Fields().ByJSONName(name); fd != nil {
		return fd
	}
	return md.Fields().ByTextName(name)
}

func unknownField(md protoreflect.MessageDescriptor, name, path string) error {
	fields := make([]string, md.Fields().Len())
	for i := range fields {
		fields[i] = md.Fields().Get(i).JSONName()
	}
	next := string(md.FullName()) + " has no fields"
	if len(fields) > 0 {
		next = fmt.Sprintf("the fields of %s are %s", md.FullName(), strings.Join(fields, ", "))
	}
	return problem.Failure(next, "unknown field %q in %s", name, path)
}

// isSpecial reports whether the JSON of a message is not an object with its fields.
func isSpecial(md protoreflect.MessageDescriptor) bool {
	return md.FullName().Parent() == "google.protobuf" && md.Name() != "Empty"
}

func sorted(object map[string]json.RawMessage) []string {
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
