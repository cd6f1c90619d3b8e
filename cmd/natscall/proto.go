package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/rules"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
	"github.com/natscall/natscall/proto"
)

const protoLong = `Write natscall/v1/options.proto under a folder, which .proto files with natscall's options import,
and with --validate also buf/validate/validate.proto for the rules of protovalidate. The folder is
then a module of buf.yaml, or a -I of protoc.`

const protoExamples = `  natscall proto -o third_party/natscall
  natscall proto -o third_party/natscall --validate`

// protoCommand is the command that writes what .proto files import.
func protoCommand() *cobra.Command {
	var dir string
	var force, validate bool
	cmd := &cobra.Command{
		Use:     "proto [flags] -o DIR",
		Short:   "Write the files that .proto files with natscall's options import",
		Long:    protoLong,
		Example: protoExamples,
		Args:    tool.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return problem.Usage("flag -o is missing: it names the folder to write under")
			}
			err := writeFile(pathIn(dir, proto.OptionsPath), proto.Options, force, cmd.OutOrStdout())
			if err == nil && validate {
				err = writeFile(pathIn(dir, rules.Path), rules.Text, force, cmd.OutOrStdout())
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&dir, "output", "o", "", "`DIR` to write under; the file becomes DIR/"+proto.OptionsPath)
	cmd.Flags().BoolVar(&validate, "validate", false, "write "+rules.Path+", too")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "overwrite files that differ")
	return cmd
}

func pathIn(dir, path string) string { return filepath.Join(dir, filepath.FromSlash(path)) }

func writeFile(path string, data []byte, force bool, stdout io.Writer) error {
	old, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(old, data):
		return say(stdout, "%s is up to date\n", path)
	case err == nil && !force:
		return problem.Failure("-f overwrites it", "%s exists and differs", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o666); err != nil {
		return err
	}
	return say(stdout, "wrote %s\n", path)
}

func say(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format, args...)
	return err
}
