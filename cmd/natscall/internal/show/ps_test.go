package show

import (
	"fmt"
	"strings"
	"testing"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
)

// TestJoined: instances that only others know are added, to the same service or as a new one, and
// none twice, even if the answers say different things of its subjects.
func TestJoined(t *testing.T) {
	service := func(name, root string, ids ...string) *discover.Service {
		s := &discover.Service{Name: name, Root: root}
		for _, id := range ids {
			s.Instances = append(s.Instances, discover.Instance{ID: id})
		}
		return s
	}
	for _, test := range []struct {
		name          string
		there, others []*discover.Service
		want          string
	}{
		{"all known", []*discover.Service{service("a", "a", "1", "2")}, []*discover.Service{service("a", "a", "2", "1")}, "a a 1 2"},
		{"one more", []*discover.Service{service("a", "a", "1")}, []*discover.Service{service("a", "a", "2", "1")}, "a a 1 2"},
		{"another service", []*discover.Service{service("a", "a", "1")}, []*discover.Service{service("b", "b", "2")}, "a a 1, b b 2"},
		{"another prefix", []*discover.Service{service("a", "a", "1")}, []*discover.Service{service("a", "x.a", "2")}, "a a 1, a x.a 2"},
		{"known by another root", []*discover.Service{service("a", "a", "1")}, []*discover.Service{service("a", "x.a", "1")}, "a a 1"},
		{"nobody else", []*discover.Service{service("a", "a", "1")}, nil, "a a 1"},
		{"nobody at first", nil, []*discover.Service{service("a", "a", "1")}, "a a 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, s := range joined(test.there, test.others) {
				text := fmt.Sprint(s.Name, " ", s.Root)
				for _, i := range s.Instances {
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
