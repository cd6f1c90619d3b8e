package main

import (
	"cmp"
	"fmt"
	"go/token"
	"path"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
)

// Numbers of fields in descriptor.proto, of files.
const (
	dependencyField  = 3
	fileOptionsField = 8
	goPackageField   = 11 // of the options
)

// samePackage is the way out where the messages cannot be imported.
const samePackage = "set the parameter package_suffix= (empty), which puts the services into the package of the messages"

// packageChecker checks that the generated code can import the messages, which
// protoc-gen-go also writes into packages that nothing can import.
type packageChecker struct {
	*problems
	names map[protogen.GoImportPath]protogen.GoPackageName // of the packages of messages
}

func (c packageChecker) check(gen *protogen.Plugin, services []*service) {
	checked := make(map[*protogen.File]bool)
	for _, s := range services {
		if !s.file.Generate {
			continue
		}
		if !checked[s.file] {
			checked[s.file] = true
			c.file(s)
		}
		for _, m := range s.methods {
			c.message(m, "request", m.Input)
			c.message(m, "response", m.Output)
		}
	}
	for _, f := range gen.Files {
		if f.Generate {
			c.optionsImport(gen, f)
		}
	}
}

// file checks the package of a file's messages and that of its services.
func (c packageChecker) file(s *service) {
	f, t := s.file, s.target
	if name := path.Base(t.file); strings.ContainsRune("_.-~+", rune(name[0])) {
		c.reportFile(f, nil, "the Go tools ignore or refuse files whose names start with %q, such as the generated %s; rename the .proto file", name[0], name)
	}
	shared := t.path == f.GoImportPath
	_, taken := c.names[t.path]
	switch reason := cmp.Or(importReason(string(f.GoImportPath)), importReason(string(t.path))); {
	case nameReason(f.GoPackageName) != "":
		c.reportGoPackage(f, "the package name %q %s; write another one after a semicolon, as in \"example.com/project/order/v1;orderv1\"",
			f.GoPackageName, nameReason(f.GoPackageName))
	case shared:
	case f.GoPackageName == "main":
		c.reportGoPackage(f, "the package of the services imports that of the messages, and nothing can import a package main; rename it or %s", samePackage)
	case reason != "":
		c.reportGoPackage(f, "the package of the services imports that of the messages, and the import path %s; write it in full, as in \"example.com/project/order/v1\", or %s", reason, samePackage)
	case nameReason(t.name) != "" || t.name == "main" || slices.Contains([]string{"internal", "testdata", "vendor"}, string(t.name)):
		c.reportFile(f, nil, "the services would go into a package named %q, which Go treats specially; set another package_suffix", t.name)
	case taken:
		c.reportGoPackage(f, "the services would go into the package %q, which has messages; set another package_suffix", string(t.path))
	}
}

// message checks that the generated code can import a message of another package.
func (c packageChecker) message(m *method, role string, message *protogen.Message) {
	imported, t := message.GoIdent.GoImportPath, m.service.target
	if imported == t.path || imported == m.service.file.GoImportPath {
		return // checked with its file
	}
	reason := cmp.Or(importReason(string(imported)), internalReason(string(imported), string(t.path)))
	if name := c.names[imported]; nameReason(name) != "" {
		reason = fmt.Sprintf("is named %q, which %s", name, nameReason(name))
	} else if name == "main" {
		reason = "is named main"
	}
	if reason != "" {
		c.report(m.declaration(), m.declaration().name(), "its %s %s cannot be imported: its Go package %q %s",
			role, message.Desc.FullName(), string(imported), reason)
	}
}

// optionsImport refuses another Go package for natscall's options than the one
// that has their code. The messages of f import it, so they would not compile.
func (c packageChecker) optionsImport(gen *protogen.Plugin, f *protogen.File) {
	want := protogen.GoImportPath(reflect.TypeFor[natscallv1.ServiceOptions]().PkgPath())
	imports := f.Desc.Imports()
	for i := range imports.Len() {
		imported := gen.FilesByPath[imports.Get(i).Path()]
		if imported.Desc.Package() != natscallv1.File_natscall_v1_options_proto.Package() || imported.GoImportPath == want {
			continue
		}
		c.reportFile(f, protoreflect.SourcePath{dependencyField, int32(i)},
			"the Go package of %s must be %q, not %q: in buf's managed mode list {file_option: go_package, path: %s} under managed.disable; otherwise leave the file's go_package as it is, without a parameter M for it",
			imported.Desc.Path(), string(want), string(imported.GoImportPath), strings.ReplaceAll(string(imported.Desc.Package()), ".", "/"))
	}
}

// reportGoPackage reports what is wrong with the Go package of a file, and names
// where it comes from.
func (c packageChecker) reportGoPackage(f *protogen.File, format string, args ...any) {
	option := f.Proto.GetOptions().GetGoPackage()
	culprit, path := fmt.Sprintf("go_package %q", option), protoreflect.SourcePath{fileOptionsField, goPackageField}
	if declared, _, _ := strings.Cut(option, ";"); declared != string(f.GoImportPath) {
		culprit, path = fmt.Sprintf("parameter M%s=%s", f.Desc.Path(), string(f.GoImportPath)), nil
	}
	c.reportFile(f, path, "%s: %s", culprit, fmt.Sprintf(format, args...))
}

// The functions below return why a name or path is wrong, or "" if it is not.

// nameReason looks at the name of a package.
func nameReason(name protogen.GoPackageName) string {
	switch {
	case !token.IsIdentifier(string(name)) || name == "_":
		return "is not an identifier"
	case name == "documentation":
		return "makes the Go tools ignore the file"
	}
	return ""
}

// importReason looks for what keeps every package of a module from importing
// path. The rules are those of the go command (CheckImportPath in
// golang.org/x/mod/module, and some more), with which a test compares.
func importReason(path string) string {
	switch {
	case path == "." || path == ".." || strings.HasPrefix(path, "./") || strings.HasPrefix(path, "../"):
		return "is relative"
	case strings.HasPrefix(path, "/"):
		return "is absolute"
	case strings.Contains("/"+path, "/vendor/"):
		return `has the element "vendor"`
	}
	for element := range strings.SplitSeq(path, "/") {
		if reason := elementReason(element); reason != "" {
			return reason
		}
	}
	if folder := path[strings.LastIndexByte(path, '/')+1:]; strings.ContainsRune("-~+", rune(folder[0])) {
		return fmt.Sprintf("ends with %q, which starts with %q", folder, folder[0])
	}
	return ""
}

// elementReason looks at an element of an import path.
func elementReason(element string) string {
	for _, r := range element {
		if r > '~' || !strings.ContainsRune("-._~+", r) && !token.IsIdentifier("x"+string(r)) {
			return fmt.Sprintf("has the character %q", r)
		}
	}
	base, _, _ := strings.Cut(element, ".")
	digits := base[strings.LastIndexByte(base, '~')+1:]
	switch {
	case element == "":
		return "has an empty element"
	case strings.HasSuffix(element, "."):
		return fmt.Sprintf("has the element %q, which ends with a dot", element)
	case slices.Contains(windowsDevices, strings.ToLower(base)):
		return fmt.Sprintf("has the element %q, which Go refuses as Windows keeps it for a device", element)
	case digits != base && digits != "" && strings.Trim(digits, "0123456789") == "":
		return fmt.Sprintf("has the element %q, which looks like a short name of Windows", element)
	}
	return ""
}

var windowsDevices = []string{
	"con", "prn", "aux", "nul",
	"com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9",
	"lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
}

// internalReason looks for an element "internal" that keeps importer from
// importing path.
func internalReason(path, importer string) string {
	elements := strings.Split(path, "/")
	for i, element := range slices.Backward(elements) {
		if element != "internal" {
			continue
		}
		if parent := strings.Join(elements[:i], "/"); !strings.HasPrefix(importer+"/", parent+"/") {
			return fmt.Sprintf("is internal to %q", parent)
		}
		return ""
	}
	return ""
}
