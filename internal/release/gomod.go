package main

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"

	"github.com/natscall/natscall/internal/modproxy"
)

// checkListed refuses go.mod files of modules that go.work does not list: they would get no
// version, and the main module no longer has what is in their folders. Those below a folder
// internal are not for users.
func checkListed(files []string, modules []modproxy.Module) error {
	for _, file := range files {
		folder := strings.TrimPrefix(path.Dir(file), ".")
		listed := slices.ContainsFunc(modules, func(m modproxy.Module) bool { return m.Folder() == folder })
		if listed || isApart(folder) {
			continue
		}
		return fmt.Errorf("go.work does not list the module of %s, so it would not be released: go work use ./%s", file, folder)
	}
	return nil
}

// isApart reports whether no user of natscall can import what is in a folder.
func isApart(folder string) bool {
	return slices.ContainsFunc(strings.Split(folder, "/"), func(name string) bool {
		return name == "internal" || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
	})
}

// setRequirements makes a go.mod require each of the released modules that it requires in the new
// version. It returns the paths of these.
func setRequirements(name string, text []byte, released map[string]string) ([]byte, []string, error) {
	mod, err := modfile.Parse(name, text, nil)
	if err != nil {
		return nil, nil, err
	}
	for _, replace := range mod.Replace {
		return nil, nil, fmt.Errorf("%s replaces %s, so go install would refuse the module: go.work is the place for that", name, replace.Old.Path)
	}
	var required []string
	for _, require := range mod.Require {
		path := require.Mod.Path
		if !isOurs(path) {
			continue
		}
		version, ok := released[path]
		if !ok {
			return nil, nil, fmt.Errorf("%s requires %s, which go.work does not list: it would have no such version", name, path)
		}
		required = append(required, path)
		if err := mod.AddRequire(path, version); err != nil {
			return nil, nil, err
		}
	}
	text, err = mod.Format()
	return text, required, err
}

// setReplacements makes a go.work replace the new versions of the modules that it replaces.
func setReplacements(text []byte, released map[string]string) ([]byte, error) {
	work, err := modfile.ParseWork("go.work", text, nil)
	if err != nil {
		return nil, err
	}
	for _, replace := range work.Replace {
		version, ok := released[replace.Old.Path]
		if !ok || version == replace.Old.Version {
			continue
		}
		// The line is changed in its place, so that the file keeps its order and comments.
		for i, token := range replace.Syntax.Token {
			if token == replace.Old.Version {
				replace.Syntax.Token[i] = version
			}
		}
	}
	return modfile.Format(work.Syntax), nil
}

// setSums replaces the lines of a go.sum that are about natscall's modules.
func setSums(text []byte, sums map[module.Version]string) ([]byte, error) {
	lines := make(map[module.Version][]string)
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) != 3 {
			return nil, fmt.Errorf("go.sum has the line %q: want a path, a version and a hash", line)
		}
		if !isOurs(fields[0]) {
			key := module.Version{Path: fields[0], Version: fields[1]}
			lines[key] = append(lines[key], fields[2])
		}
	}
	for key, sum := range sums {
		lines[key] = []string{sum}
	}
	keys := make([]module.Version, 0, len(lines))
	for key := range lines {
		keys = append(keys, key)
	}
	module.Sort(keys) // the order of the go command
	var out bytes.Buffer
	for _, key := range keys {
		for _, sum := range lines[key] {
			fmt.Fprintf(&out, "%s %s %s\n", key.Path, key.Version, sum)
		}
	}
	return out.Bytes(), nil
}

func isOurs(path string) bool {
	return path == modproxy.Root || strings.HasPrefix(path, modproxy.Root+"/")
}

// inOrder sorts modules so that each stands after those that it requires.
func inOrder(modules []modproxy.Module, requires map[string][]string) ([]modproxy.Module, error) {
	const visiting, done = 1, 2
	state := make(map[string]int)
	byPath := make(map[string]modproxy.Module)
	for _, m := range modules {
		byPath[m.Path] = m
	}
	var ordered []modproxy.Module
	var visit func(path string) error
	visit = func(path string) error {
		switch state[path] {
		case done:
			return nil
		case visiting: // the sum of each would have to stand in the other
			return fmt.Errorf("%s requires itself, through other modules: no version of it can have a go.sum", path)
		}
		state[path] = visiting
		for _, required := range requires[path] {
			if err := visit(required); err != nil {
				return err
			}
		}
		state[path] = done
		ordered = append(ordered, byPath[path])
		return nil
	}
	for _, m := range modules {
		if err := visit(m.Path); err != nil {
			return nil, err
		}
	}
	return ordered, nil
}
