package permissions

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/natscall/natscall/rpc"
)

// user is somebody who connects to NATS, and what it does.
type user struct {
	name               string
	serve, call        []string // names as in pick
	discover           bool
	inbox, queue       string
	allowPub, allowSub []string
	setting            // that of all users
}

// setting is what applies to all users.
type setting struct {
	instances bool          // they call one instance, and all instances, too
	within    time.Duration // how long after a request an answer may come
}

// grant is a subject that is to be permitted.
type grant struct {
	subject string
	queue   string // only in this queue group; "" means any or none
	why     string
}

// String returns what a NATS server reads: a queue group stands behind its subject.
func (g grant) String() string { return strings.TrimSuffix(g.subject+" "+g.queue, " ") }

// permissions are what a user may do.
type permissions struct {
	publish, subscribe []grant
	answers            int // to each request; -1 is any number, 0 means that it serves nothing
	within             time.Duration
}

var userName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

// isUsed reports whether the user does anything.
func (u *user) isUsed() bool { return len(u.serve)+len(u.call) > 0 || u.discover }

// permissions returns what the user needs to do what it does.
func (u *user) permissions(services []service) (permissions, error) {
	served, err := pick(services, u.serve)
	if err != nil {
		return permissions{}, err
	}
	called, err := pick(services, u.call)
	if err != nil {
		return permissions{}, err
	}
	p := permissions{within: u.within}
	for _, m := range called {
		p.call(m, u.instances)
	}
	for _, m := range called {
		p.follow(m)
	}
	if u.discover {
		for _, s := range services {
			p.discover(s)
		}
	}
	for _, subject := range u.allowPub {
		p.publish = add(p.publish, grant{subject: subject, why: "--allow-pub"})
	}
	if len(called) > 0 || u.discover {
		p.subscribe = add(p.subscribe, grant{subject: u.inbox + ".>", why: "answers"})
	}
	for _, m := range served {
		p.serve(m, u.queue)
	}
	for _, m := range served {
		p.listen(m)
	}
	for _, subject := range u.allowSub {
		subject, queue, _ := strings.Cut(subject, " ")
		p.subscribe = add(p.subscribe, grant{subject, queue, "--allow-sub"})
	}
	return p, nil
}

// call adds what a client needs to call a method.
func (p *permissions) call(m method, instances bool) {
	s := m.subjects
	p.publish = add(p.publish, grant{subject: s.Request, why: "calls " + m.name})
	if instances || m.kind != rpc.KindOneWay {
		p.publish = add(p.publish, grant{subject: s.One, why: "calls " + m.name + " of one instance, if another was silent or busy"})
	}
	if instances {
		p.publish = add(p.publish, grant{subject: s.All, why: "calls " + m.name + " of all instances"})
	}
}

// follow adds what a client needs to follow its calls of a method.
func (p *permissions) follow(m method) {
	s := m.subjects
	p.publish = add(p.publish, grant{subject: s.Cancel, why: "gives up calls of " + m.service})
	p.publish = add(p.publish, grant{subject: s.Alive, why: "notices that an instance has died"})
	p.publish = add(p.publish, grant{subject: s.Instances, why: "notices that no instance has a method"})
	p.publish = add(p.publish, grant{subject: s.Frames, why: "streams, and messages over max_payload"})
}

// serve adds what an instance needs to be called. An empty queue group is that of the service.
func (p *permissions) serve(m method, queue string) {
	s := m.subjects
	if queue == "" {
		queue = s.QueueGroup
	}
	p.subscribe = add(p.subscribe, grant{s.Request, queue, "serves " + m.name})
	if p.answers == 0 {
		p.answers = 1
	}
	if m.kind != rpc.KindOneWay {
		p.answers = -1 // streams, and responses over max_payload
	}
}

// listen adds what an instance needs to follow the calls of a method, and to be found.
func (p *permissions) listen(m method) {
	for _, subject := range m.subjects.Control {
		why := "what clients say about calls of " + m.service
		switch {
		case strings.HasSuffix(subject, "._schema"):
			why = "serves the .proto files of " + m.service
		case strings.HasSuffix(subject, "._health"):
			why = "says how it is"
		}
		p.subscribe = add(p.subscribe, grant{subject: subject, why: why})
	}
	for _, subject := range m.subjects.Discovery {
		p.subscribe = add(p.subscribe, grant{subject: subject, why: "is found by tools"})
	}
	p.publish = add(p.publish, grant{subject: m.subjects.Peers, why: "asks other instances, when it is not healthy"})
}

// discover adds what a tool needs to find the instances of a service.
func (p *permissions) discover(s service) {
	for _, subject := range s.methods[0].subjects.Discovery {
		p.publish = add(p.publish, grant{subject: subject, why: "finds instances"})
	}
	for _, subject := range s.methods[0].subjects.Tools {
		p.publish = add(p.publish, grant{subject: subject, why: "asks instances of " + s.name + " for .proto files and health"})
	}
}

// add adds a grant unless it is there or has no subject.
func add(grants []grant, g grant) []grant {
	same := func(other grant) bool { return other.subject == g.subject && other.queue == g.queue }
	if g.subject == "" || slices.ContainsFunc(grants, same) {
		return grants
	}
	return append(grants, g)
}

// checkPattern returns what is wrong with a subject, which may have wildcards, so that NATS would
// not match it with what it is meant for.
func checkPattern(subject string) error {
	tokens := strings.Split(subject, ".")
	for i, token := range tokens {
		switch {
		case token == "":
			return fmt.Errorf("%q has an empty token", subject)
		case token == ">" && i < len(tokens)-1:
			return fmt.Errorf("%q has the wildcard > before its last token", subject)
		case len(token) > 1 && strings.ContainsAny(token, "*>"):
			return fmt.Errorf("%q has a wildcard that is only a part of a token", subject)
		case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
			return fmt.Errorf("%q has other characters than printable ASCII without spaces", subject)
		}
	}
	return nil
}

// checkInbox returns what is wrong with the prefix of an inbox (nats.CustomInboxPrefix).
func checkInbox(prefix string) error {
	if strings.ContainsAny(prefix, "*>") {
		return fmt.Errorf("%q has a wildcard", prefix)
	}
	return checkPattern(prefix)
}

// checkSubscription is checkPattern for what may have a queue group behind it.
func checkSubscription(text string) error {
	subject, queue, has := strings.Cut(text, " ")
	if err := checkPattern(subject); err != nil {
		return err
	}
	if has {
		return checkPattern(queue)
	}
	return nil
}

// checkName returns what is wrong with the name of a user.
func checkName(name string) error {
	if !userName.MatchString(name) {
		return errors.New("must be letters, digits and underscores, and begin with a letter")
	}
	return nil
}
