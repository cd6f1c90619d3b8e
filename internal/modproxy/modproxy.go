// Package modproxy makes a module proxy of a checkout, or of a revision of it. With it tests do
// what users do, who have no checkout: natscall's modules come from the proxy, and so does what
// they require of each other.
package modproxy

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// Root is the path of the main module. Those of the others begin with it.
const Root = "github.com/natscall/natscall"

// Module is a module that has releases.
type Module struct {
	Path    string
	Version string // the next release
	Dir     string // in the checkout
}

// Folder is the module's folder in the repository, with slashes; it is empty for the main module.
func (m Module) Folder() string { return strings.TrimPrefix(strings.TrimPrefix(m.Path, Root), "/") }

// Tag is the tag of the module's version.
func (m Module) Tag() string { return path.Join(m.Folder(), m.Version) }

// File is the path in the repository, with slashes, of a file of the module.
func (m Module) File(name string) string { return path.Join(m.Folder(), name) }

func (m Module) version() module.Version { return module.Version{Path: m.Path, Version: m.Version} }

// Modules returns the modules that the go.work of a checkout lists, the main module first. The
// version of each is the one that the others require, which go.work replaces, or else that of the
// main module.
func Modules(checkout string) ([]Module, error) {
	out, err := goCommand("work", "edit", "-json", filepath.Join(checkout, "go.work"))
	if err != nil {
		return nil, err
	}
	var work struct {
		Use     []struct{ DiskPath string }
		Replace []struct {
			Old struct{ Path, Version string }
		}
	}
	if err := json.Unmarshal(out, &work); err != nil {
		return nil, err
	}
	versions := make(map[string]string)
	for _, replace := range work.Replace {
		versions[replace.Old.Path] = replace.Old.Version
	}
	var modules []Module
	for _, use := range work.Use {
		m := Module{Path: path.Join(Root, use.DiskPath), Dir: filepath.Join(checkout, use.DiskPath)}
		m.Version = versions[m.Path]
		if m.Version == "" {
			m.Version = versions[Root]
		}
		modules = append(modules, m)
	}
	return modules, nil
}

// Write adds a version of each of the modules, as its folder is, to the files of a module proxy
// (https://go.dev/ref/mod#goproxy-protocol).
func Write(dir string, modules []Module) error {
	for _, m := range modules {
		mod, err := os.ReadFile(filepath.Join(m.Dir, "go.mod"))
		if err != nil {
			return err
		}
		err = m.write(dir, string(mod), "2026-01-01T00:00:00Z", func(w io.Writer) error {
			return zip.CreateFromDir(w, m.version(), m.Dir)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", m.Path, err)
		}
	}
	return nil
}

// write adds the module's version to the proxy in dir.
func (m Module) write(dir, mod, time string, createZip func(io.Writer) error) error {
	dir = filepath.Join(dir, filepath.FromSlash(m.Path), "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		".info": fmt.Sprintf(`{"Version": %q, "Time": %q}`, m.Version, time),
		".mod":  mod,
	} {
		if err := os.WriteFile(filepath.Join(dir, m.Version+name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := createFile(filepath.Join(dir, m.Version+".zip"), createZip); err != nil {
		return err
	}
	list, err := os.OpenFile(filepath.Join(dir, "list"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer list.Close()
	_, err = fmt.Fprintln(list, m.Version)
	return err
}

func createFile(name string, write func(io.Writer) error) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := write(file); err != nil {
		return err
	}
	return file.Close()
}

// Environ returns an environment in which the go command gets natscall's modules from the proxy in
// a folder, and all others from where this machine gets them. It keeps modules under gopath: the
// cache of this machine must not have the proxy's versions, which are no releases.
func Environ(dir, gopath string) ([]string, error) {
	out, err := goCommand("env", "-json", "GOCACHE", "GONOSUMDB", "GOPROXY")
	if err != nil {
		return nil, err
	}
	var env struct{ GOCACHE, GONOSUMDB, GOPROXY string }
	if err := json.Unmarshal(out, &env); err != nil {
		return nil, err
	}
	return append(os.Environ(),
		"GOPATH="+gopath, "GOBIN=", "GOMODCACHE=", "GOWORK=off",
		"GOCACHE="+env.GOCACHE,
		"GOPROXY=file://"+filepath.ToSlash(dir)+","+env.GOPROXY,
		"GONOSUMDB="+strings.Trim(env.GONOSUMDB+","+Root, ","),
		// The module cache is to be removable, and what is compiled in it, in a
		// folder of another name each time, comes out of the build cache.
		"GOFLAGS=-modcacherw -trimpath",
	), nil
}

func goCommand(args ...string) ([]byte, error) {
	out, err := exec.Command("go", args...).Output()
	if exit, ok := err.(*exec.ExitError); ok {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, exit.Stderr)
	}
	return out, err
}
