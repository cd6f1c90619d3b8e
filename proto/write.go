package proto

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrDiffers is returned when a file that may not be overwritten has another text.
var ErrDiffers = errors.New("exists and differs")

// WriteOptions writes [Options] to dir/[OptionsPath], as [WriteFile] does.
func WriteOptions(dir string, force bool) (path string, written bool, err error) {
	return WriteFile(dir, OptionsPath, Options, force)
}

// WriteFile writes text to dir/name, where name has slashes, and returns the path of the file. It
// makes the folders. A file with this text already stays as it is, and written is false. A file
// with another text is overwritten if force is set; otherwise the error wraps [ErrDiffers].
func WriteFile(dir, name string, text []byte, force bool) (path string, written bool, err error) {
	path = filepath.Join(dir, filepath.FromSlash(name))
	old, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(old, text):
		return path, false, nil
	case err == nil && !force:
		return path, false, fmt.Errorf("%s %w", path, ErrDiffers)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return path, false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return path, false, err
	}
	if err := os.WriteFile(path, text, 0o666); err != nil {
		return path, false, err
	}
	return path, true, nil
}
