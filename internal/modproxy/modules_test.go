package modproxy_test

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/natscall/natscall/internal/modproxy"
)

// TestModules checks what keeps modules from being released: a replace, and imports that compile in
// the checkout but not, or not for long, where modules have versions.
func TestModules(t *testing.T) {
	modules := listModules(t)
	owner := make(map[string]string) // modules by the packages that they have
	for _, m := range modules {
		for _, p := range listPackages(t, m) {
			owner[p.ImportPath] = m.Path
		}
	}
	if owner[modproxy.Root+"/rpc"] != modproxy.Root {
		t.Fatalf("go.work does not list the main module: %v", modules)
	}
	for _, m := range modules {
		mod := goJSON[goMod](t, m, "mod", "edit", "-json")[0]
		if mod.Module.Path != m.Path {
			t.Errorf("%s: go.mod calls the module %s", m.Path, mod.Module.Path)
		}
		for _, replace := range mod.Replace {
			t.Errorf("%s: go.mod replaces %s, so go install refuses the module; go.work is the place for that", m.Path, replace.Old.Path)
		}
		for _, p := range listPackages(t, m) {
			for _, name := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
				other := owner[name]
				if other != "" && other != m.Path && slices.Contains(strings.Split(name, "/"), "internal") {
					t.Errorf("%s imports %s of the module %s, whose next version may not have it", p.ImportPath, name, other)
				}
			}
		}
	}
}

// TestInstall installs the commands of all modules as users do, by path and version.
func TestInstall(t *testing.T) {
	proxy, gopath := t.TempDir(), t.TempDir()
	modules := listModules(t)
	if err := modproxy.Write(proxy, modules); err != nil {
		t.Fatal(err)
	}
	env, err := modproxy.Environ(proxy, gopath)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		for _, p := range listPackages(t, m) {
			if p.Name != "main" {
				continue
			}
			t.Run(strings.TrimPrefix(p.ImportPath, modproxy.Root+"/"), func(t *testing.T) {
				install := exec.CommandContext(t.Context(), "go", "install", p.ImportPath+"@"+m.Version)
				install.Dir, install.Env = t.TempDir(), env
				if out, err := install.CombinedOutput(); err != nil {
					t.Fatalf("%v: %v\n%s", install.Args, err, out)
				}
				info, err := buildinfo.ReadFile(filepath.Join(gopath, "bin", path.Base(p.ImportPath)))
				if err != nil {
					t.Fatal(err)
				}
				if info.Main.Path != m.Path || info.Main.Version != m.Version {
					t.Errorf("it is made of %s %s, want %s %s", info.Main.Path, info.Main.Version, m.Path, m.Version)
				}
			})
		}
	}
}

func listModules(t *testing.T) []modproxy.Module {
	t.Helper()
	modules, err := modproxy.Modules("../..")
	if err != nil {
		t.Fatal(err)
	}
	return modules
}

// goMod is what the tests read of a go.mod.
type goMod struct {
	Module  struct{ Path string }
	Replace []struct{ Old struct{ Path string } }
}

// goPackage is what the tests read of a package.
type goPackage struct {
	ImportPath, Name                   string
	Imports, TestImports, XTestImports []string
}

func listPackages(t *testing.T, m modproxy.Module) []goPackage {
	t.Helper()
	return goJSON[goPackage](t, m, "list", "-json", "./...")
}

// goJSON returns the JSON values that a go command prints in the folder of a module.
func goJSON[T any](t *testing.T, m modproxy.Module, args ...string) []T {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Stderr = m.Dir, t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	var values []T
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var value T
		if err := d.Decode(&value); err != nil {
			t.Fatalf("%v: %v", cmd.Args, err)
		}
		values = append(values, value)
	}
	return values
}
