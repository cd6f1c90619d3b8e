package permissions

import (
	"strings"

	"github.com/natscall/natscall/rpc"
)

// crossing is a service, or a part of one, that one account exports and another imports.
type crossing struct {
	subject string // in the exporting account
	local   string // in the importing one
	stream  bool   // a request may have more than one answer
	why     string
}

// borders are what crosses the border between two accounts.
type borders struct {
	from, to      string // the exporting and the importing account
	prefix, local string // of subjects, in each of them
	unary         bool   // unary calls may have several answers, as batches have
	instances     bool   // clients call one instance, and all instances, too
}

// crossings returns what has to cross the border for calls of methods, and for the discovery of
// services. No two of them overlap: a NATS server delivers twice what is imported twice.
//
// Each has the response type that it needs and no more. A NATS server keeps something for each
// request until it is answered, or for minutes where more than one answer may come.
func (b borders) crossings(called []method, discovered []service) []crossing {
	var out []crossing
	add := func(subject string, stream bool, why string) {
		for i := range out {
			if out[i].subject == subject {
				out[i].stream = out[i].stream || stream
				return
			}
		}
		if subject != "" {
			out = append(out, crossing{subject, b.localOf(subject), stream, why})
		}
	}
	for _, m := range called {
		s := m.subjects
		stream := m.kind > rpc.KindOneWay || m.kind == rpc.KindUnary && b.unary
		add(s.Request, stream, "calls of "+m.name)
		if b.instances || m.kind != rpc.KindOneWay {
			add(s.One, stream, "calls of "+m.name+" of one instance, if another was silent or busy")
		}
		if b.instances {
			add(s.All, true, "calls of "+m.name+" of all instances")
		}
		add(s.Cancel, false, "calls that are given up")
		add(s.Alive, false, "which calls are still worked on")
		add(s.Instances, true, "which instances there are")
		add(s.Frames, true, "streams, and responses over max_payload")
	}
	for _, s := range discovered {
		for _, subject := range s.methods[0].subjects.Discovery {
			add(subject, true, "discovery")
		}
		for _, subject := range s.methods[0].subjects.Tools {
			add(subject, true, ".proto files and health of "+s.name)
		}
	}
	return out
}

// localOf returns the subject in the importing account. Those of discovery are the same in all.
func (b borders) localOf(subject string) string {
	if strings.HasPrefix(subject, "$") || b.local == b.prefix {
		return subject
	}
	if b.prefix != "" {
		subject = strings.TrimPrefix(subject, b.prefix+".")
	}
	return strings.TrimPrefix(b.local+"."+subject, ".")
}
