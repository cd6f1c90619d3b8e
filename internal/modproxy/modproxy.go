// Package modproxy makes a module proxy of a checkout. With it tests do what users do, who have no
// checkout: natscall's modules come from the proxy, and so does what they require of each other.
package modproxy

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Root is the path of the main module. Those of the others begin with it.
const Root = "github.com/natscall/natscall"

// Module is a module that has releases.
type Module struct {
	Path    string
	Version string // the next release
	Dir     string // in the checkout
}

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

// Write writes the files of a module proxy into a folder
// (https://go.dev/ref/mod#goproxy-protocol), which has one version of each of the modules.
func Write(dir string, modules []Module) error {
	for _, m := range modules {
		if err := m.write(filepath.Join(dir, filepath.FromSlash(m.Path), "@v")); err != nil {
			return fmt.Errorf("%s: %w", m.Path, err)
		}
	}
	return nil
}

func (m Module) write(dir string) error {
	mod, err := os.ReadFile(filepath.Join(m.Dir, "go.mod"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"list":              m.Version + "\n",
		m.Version + ".info": fmt.Sprintf(`{"Version": %q, "Time": "2026-01-01T00:00:00Z"}`, m.Version),
		m.Version + ".mod":  string(mod),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	file, err := os.Create(filepath.Join(dir, m.Version+".zip"))
	if err != nil {
		return err
	}
	defer file.Close()
	archive := zip.NewWriter(file)
	if err := m.zip(archive); err != nil {
		return err
	}
	return archive.Close()
}

// zip adds what belongs to the module: all files but those of nested modules and those whose names
// start with a dot, such as .git.
func (m Module) zip(archive *zip.Writer) error {
	files := os.DirFS(m.Dir)
	return fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") || isModule(files, name)):
			return fs.SkipDir
		case !entry.Type().IsRegular() || strings.HasPrefix(entry.Name(), "."):
			return nil
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		w, err := archive.Create(m.Path + "@" + m.Version + "/" + name)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
}

func isModule(root fs.FS, dir string) bool {
	_, err := fs.Stat(root, dir+"/go.mod")
	return err == nil
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
