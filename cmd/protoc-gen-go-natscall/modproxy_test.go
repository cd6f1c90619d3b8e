package main

import (
	"archive/zip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// proxyVersion is the version that moduleProxy has of the checkout.
const proxyVersion = "v0.0.1"

// moduleProxy makes a module proxy of files (https://go.dev/ref/mod#goproxy-protocol)
// that has the checkout as the only release of natscall, and returns its URL.
// So a test can run the commands of users, who have no checkout.
func moduleProxy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	root := filepath.FromSlash(modulePath + "/@v/")
	writeFiles(t, filepath.Join(dir, root), map[string]string{
		"list":                 proxyVersion + "\n",
		proxyVersion + ".info": fmt.Sprintf(`{"Version": %q, "Time": "2026-01-01T00:00:00Z"}`, proxyVersion),
		proxyVersion + ".mod":  readFile(t, moduleRoot+"/go.mod"),
	})
	file, err := os.Create(filepath.Join(dir, root, proxyVersion+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	archive := zip.NewWriter(file)
	if err := addModule(archive, os.DirFS(moduleRoot)); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return fileURL(dir)
}

// addModule adds what belongs to the module: all files but those of nested
// modules and those whose names start with a dot, such as .git.
func addModule(archive *zip.Writer, module fs.FS) error {
	return fs.WalkDir(module, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") || isModule(module, name)):
			return fs.SkipDir
		case !entry.Type().IsRegular() || strings.HasPrefix(entry.Name(), "."):
			return nil
		}
		text, err := fs.ReadFile(module, name)
		if err != nil {
			return err
		}
		w, err := archive.Create(modulePath + "@" + proxyVersion + "/" + name)
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

func fileURL(dir string) string {
	return "file://" + filepath.ToSlash(dir)
}
