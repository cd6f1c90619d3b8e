// protoc-gen-go-natscall is a plugin of protoc and buf. For each .proto file
// with services it writes the Go code that joins them to the natscall runtime:
// a client, a server interface and their registration, in a package of its own
// beside the messages (for order/v1/order.proto the package orderv1nats), or,
// with the parameter package_suffix= (empty), in the package of the messages.
//
// The messages are written by protoc-gen-go, to which the parameters paths,
// module and M must be given as well. See docs/generate.md.
//
// Called with arguments it is for people: "protoc-gen-go-natscall proto -o DIR"
// writes the options file, --version and --help print what they say.
package main

import (
	"fmt"
	"go/token"
	"os"
	"runtime/debug"
	"strconv"

	"google.golang.org/protobuf/compiler/protogen"
)

const usage = `protoc-gen-go-natscall writes Go clients and servers on NATS for Protobuf services.

It is a plugin: buf or protoc runs it and talks to it over standard input and output. In buf.gen.yaml:

  plugins:
    - local: protoc-gen-go
      out: gen
      opt: paths=source_relative
    - local: protoc-gen-go-natscall
      out: gen
      opt: paths=source_relative

Parameters (opt). The first four are those of protoc-gen-go, and both plugins need the same:

  paths=source_relative   place the output beside its .proto file
  paths=import            place it by its Go import path (the default)
  module=PREFIX           leave out this beginning of the import path
  M<file>=<import path>   the Go import path of a .proto file
  package_suffix=SUFFIX   the end of the name of the package with the services (default nats);
                          empty: the services go into the package of the messages
  comments=false          leave the comments of the .proto files out of the code, where tools
                          such as natscall describe find them (default true)

For people:

  proto -o DIR  write the options that .proto files may import under DIR
  --version     print the version
  -h, --help    print this text
`

func main() {
	if args := os.Args[1:]; len(args) > 0 && args[0] == optionsCommand {
		os.Exit(writeOptions(args[1:], os.Stdout, os.Stderr)) // compilers give no arguments
	}
	if text := about(os.Args[1:], isTerminal(os.Stdin)); text != "" {
		fmt.Print(text)
		return
	}
	p := plugin{parameters{packageSuffix: defaultPackageSuffix, comments: true}}
	p.options().Run(p.generate)
}

// plugin is one run with its own parameters.
type plugin struct{ parameters }

// parameters are those that protogen does not know.
type parameters struct {
	packageSuffix string
	comments      bool // the code has those of the .proto files
}

func (p *plugin) options() protogen.Options {
	return protogen.Options{ParamFunc: p.setParameter, ImportRewriteFunc: realImport}
}

func (p *plugin) generate(gen *protogen.Plugin) error { return generate(gen, p.parameters) }

// about is what a person who runs the plugin by hand wants to read. It is empty
// when a compiler runs it.
func about(args []string, terminal bool) string {
	switch {
	case len(args) == 1 && args[0] == "--version":
		return "protoc-gen-go-natscall " + version() + "\n"
	case len(args) == 1 && (args[0] == "-h" || args[0] == "--help"), len(args) == 0 && terminal:
		return usage
	}
	return ""
}

// version is the version of the module that the plugin was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// setParameter is called with parameters that protogen does not know.
func (p *plugin) setParameter(name, value string) (err error) {
	switch name {
	case "package_suffix":
		if value != "" && !token.IsIdentifier("x"+value) {
			return fmt.Errorf("package_suffix %q: want letters, digits and \"_\", as in the name of a Go package", value)
		}
		p.packageSuffix = value
	case "comments":
		if p.comments, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("comments=%s: want true or false", value)
		}
	default:
		return fmt.Errorf("unknown parameter %q: want paths, module, M<file>, package_suffix or comments", name)
	}
	return nil
}
