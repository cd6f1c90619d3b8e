package main

import (
	"fmt"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"github.com/natscall/natscall/internal/modproxy"
)

// checkVersion refuses what is no version of these modules.
func checkVersion(version string) error {
	switch {
	case !semver.IsValid(version) || semver.Canonical(version) != version:
		return fmt.Errorf("version %q: want a semantic version such as v0.2.0 or v0.2.0-rc.1", version)
	case module.IsPseudoVersion(version): // the go command ignores such a tag
		return fmt.Errorf("version %s has the form that the go command gives to commits without a tag: "+
			"want one such as v0.2.0 or v0.2.0-rc.1", version)
	case semver.Compare(semver.Major(version), "v1") > 0:
		return fmt.Errorf("version %s: from v2 on the paths of modules end with the major version, as %s/%s; "+
			"change them first", version, modproxy.Root, semver.Major(version))
	}
	return nil
}

// checkTags refuses a version that has a tag, and one that is not after those that it comes from.
func checkTags(version string, modules []modproxy.Module, all, merged []string) error {
	exists := make(map[string]bool)
	for _, tag := range all {
		exists[tag] = true
	}
	for _, m := range modules {
		m.Version = version
		if exists[m.Tag()] {
			return fmt.Errorf("the tag %s exists: a version never changes once it has been released, so take the next", m.Tag())
		}
	}
	if last := latest(merged); semver.Compare(version, last) <= 0 {
		return fmt.Errorf("%s is not after %s, which this branch has released", version, last)
	}
	return nil
}

// latest returns the highest version of the tags, or "". Those of the main module, such as v0.1.0,
// are enough, since it gets each version; others may be of something else.
func latest(tags []string) string {
	var last string
	for _, tag := range tags {
		if semver.IsValid(tag) && semver.Compare(tag, last) > 0 {
			last = tag
		}
	}
	return last
}
