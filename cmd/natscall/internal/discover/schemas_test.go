package discover

import (
	"strings"
	"testing"
)

// TestSchemaGroups: the schema of the newest version comes first.
func TestSchemaGroups(t *testing.T) {
	for _, test := range []struct{ name, instances, want string }{
		{"one", "a 1.0.0 x, b 1.0.0 x", "x: a b"},
		{"versions are numbers", "a 1.9.0 x, b 1.10.0 y", "y: b, x: a"},
		{"what is released is newer", "a 1.0.0-rc.1 x, b 1.0.0 y", "y: b, x: a"},
		{"candidates are numbered", "a 1.0.0-rc.10 x, b 1.0.0-rc.9 y", "x: a, y: b"},
		{"builds are numbered", "a 1.0.0+9 x, b 1.0.0+10 y", "y: b, x: a"},
		{"a build is no candidate", "a 1.0.0-rc.1 x, b 1.0.0+1 y, c 1.0.0 z", "y: b, z: c, x: a"},
		{"builds", "a 1.0.0+1 x, b 1.0.0+2 y", "y: b, x: a"},
		{"of one version the most", "a 1.0.0 x, b 1.0.0 y, c 1.0.0 y", "y: b c, x: a"},
		{"the newest of a group counts", "a 1.0.0 x, b 2.0.0 y, c 3.0.0 x", "x: c a, y: b"},
		{"none is last", "a 2.0.0 , b 1.0.0 x", "x: b, : a"},
		{"nobody", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := new(Service)
			for one := range strings.SplitSeq(test.instances, ", ") {
				if f := strings.Split(one, " "); len(f) == 3 {
					s.Instances = append(s.Instances, Instance{ID: f[0], Version: f[1], Schema: f[2]})
				}
			}
			var got []string
			for _, g := range s.SchemaGroups() {
				text := g.Hash + ":"
				for _, i := range g.Instances {
					text += " " + i.ID
				}
				got = append(got, text)
			}
			if text := strings.Join(got, ", "); text != test.want {
				t.Errorf("got %q, want %q", text, test.want)
			}
		})
	}
}
