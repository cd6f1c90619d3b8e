package tool

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	"github.com/natscall/natscall/rpc"
)

// Source says where the schema of a service comes from: from files, or else from the service.
type Source struct {
	Prefix string // of the subjects

	files, folders []string
}

// Register adds the flags to a command.
func (s *Source) Register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&s.Prefix, "prefix", "", "`subject` before all others of the service, as given to rpc.WithSubjectPrefix")
	file := func(name string) error {
		s.files = append(s.files, name)
		return nil
	}
	flags.Func("proto", "`file` with the service, a .proto file or descriptor set, instead of what it says of itself; may be repeated", file)
	flags.StringArrayVarP(&s.folders, "proto-path", "I", nil, "`folder` with the files of --proto and what they import; may be repeated (default .)")
	if flags.Lookup("descriptor-set") == nil { // describe writes one
		flags.Func("descriptor-set", "the same as --proto `file`", file)
	}
}

// FromFiles reports whether the schema comes from files.
func (s *Source) FromFiles() bool { return len(s.files) > 0 }

// Read reads the files.
func (s *Source) Read() (*schema.Schema, error) {
	folders := s.folders
	if len(folders) == 0 {
		folders = []string{"."}
	}
	read, err := schema.FromFiles(s.files, folders)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem.UsageWithNext("--proto names files, and -I the folders with what they import", "--proto: %w", err)
	}
	return read, err
}

// services returns the services that the files define, as they would show themselves.
func (s *Source) services(read *schema.Schema) []*discover.Service {
	var out []*discover.Service
	for _, sd := range read.Services() {
		out = append(out, described(sd, s.Prefix))
	}
	return out
}

func described(sd protoreflect.ServiceDescriptor, prefix string) *discover.Service {
	desc := rpc.NewServiceDesc(sd)
	out := &discover.Service{
		Name: desc.Name, Micro: desc.MicroName, Description: desc.Description,
		Root: join(prefix, desc.SubjectPrefix, desc.Name),
	}
	for i := range sd.Methods().Len() {
		md := sd.Methods().Get(i)
		out.Methods = append(out.Methods, discover.Method{
			Name: string(md.Name()), Request: string(md.Input().FullName()), Response: string(md.Output().FullName()),
		})
	}
	return out
}

// join joins the parts of a subject that are not empty.
func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ".")
}
