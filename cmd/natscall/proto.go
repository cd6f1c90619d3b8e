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
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
	"github.com/natscall/natscall/proto"
)

// protoCommand is the command that writes what .proto files import.
func protoCommand() *cobra.Command {
	var dir string
	var force bool
	cmd := &cobra.Command{
		Use:     "proto -o DIR",
		Short:   "Write the files that .proto files with natscall's options import",
		Example: "  natscall proto -o third_party/natscall",
		Args:    tool.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return problem.Usage("flag -o is missing: it names the folder to write under")
			}
			return writeFile(filepath.Join(dir, filepath.FromSlash(proto.OptionsPath)), proto.Options, force, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&dir, "output", "o", "", "`DIR` to write under; the file becomes DIR/"+proto.OptionsPath)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "overwrite a file that differs")
	return cmd
}

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
