package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/natscall/natscall/proto"
)

// setupProto is the command that gives users the options file, so that they
// need neither a registry account nor a checkout of this repository.
func setupProto(flags *flag.FlagSet) func([]string, io.Writer) error {
	dir := flags.String("o", "", "the `DIR` to write under, such as third_party/natscall; the file becomes DIR/"+proto.OptionsPath)
	force := flags.Bool("f", false, "overwrite the file when it differs")
	return func(_ []string, stdout io.Writer) error {
		if *dir == "" {
			return usageError{errors.New("flag -o is missing: it names the folder to write under")}
		}
		return writeOptions(filepath.Join(*dir, filepath.FromSlash(proto.OptionsPath)), *force, stdout)
	}
}

func writeOptions(path string, force bool, stdout io.Writer) error {
	old, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(old, proto.Options):
		return say(stdout, "%s is up to date\n", path)
	case err == nil && !force:
		return fmt.Errorf("%s exists and differs; -f overwrites it", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	if err := os.WriteFile(path, proto.Options, 0o666); err != nil {
		return err
	}
	return say(stdout, "wrote %s\n", path)
}

func say(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format, args...)
	return err
}
