package rpc

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Subjects are the NATS subjects by which clients and instances of a service reach each other for
// the calls of one method, as permissions and account exports name them. docs/protocol.md says what
// travels on each. Where a token differs between instances or calls it is the wildcard "*".
//
// Replies, and the frames of a server, go to the inbox of the client.
type Subjects struct {
	// Request is where clients publish requests, and instances listen.
	Request string
	// QueueGroup is the one in which instances listen to Request; "" means in none.
	QueueGroup string

	// These are where a client publishes what it has to say about its calls: that it gives up,
	// whether somebody still works on them, and which instances there are. They are empty for a
	// one-way method, of whose calls nothing is known after they are sent.
	Cancel, Alive, Instances string
	// Frames is where a client publishes its part of streams and of messages that exceed
	// max_payload, and asks an instance whether it is there. It is empty for a one-way method.
	Frames string

	// One is where requests to one instance go, and All where those to all of them go
	// ([WithInstance], [UnaryMethod.Gather]). A call that may run twice is sent to One if an
	// instance was silent; where that is not permitted any instance may get it. No other calls need
	// them. All is empty for methods that cannot be gathered.
	One, All string

	// Control is what instances listen to beside Request, and Peers what they publish to beside
	// replies: an instance that is not healthy asks the others.
	Control []string
	Peers   string
	// Discovery is what instances listen to in order to be found, and what tools publish to. Tools
	// is what these publish to for the schema and the health of the service.
	Discovery, Tools []string
}

func newSubjects(m *method, prefix string) (Subjects, error) {
	root, request := names.Join(prefix, m.root), names.Join(prefix, m.subject)
	instance := names.Join(root, wire.InstanceToken, "*")
	out := Subjects{
		Request:    request,
		QueueGroup: m.service.queueGroup(),
		One:        names.Join(instance, wire.CallToken, m.desc.Name),
		Control: []string{
			names.Join(root, wire.AllWildcard), names.Join(instance, ">"),
			names.Join(root, wire.SchemaMethod), names.Join(root, wire.HealthMethod),
		},
		Peers:     names.Join(root, wire.AllToken, wire.InstancesToken),
		Discovery: verbSubjects(m.service.MicroName, "*"),
		Tools: []string{
			names.Join(root, wire.SchemaMethod), names.Join(root, wire.HealthMethod),
			names.Join(instance, wire.CallToken, wire.SchemaMethod), names.Join(instance, wire.CallToken, wire.HealthMethod),
			names.Join(root, wire.AllToken, wire.CallToken, wire.HealthMethod), names.Join(root, wire.AllToken, wire.InstancesToken),
		},
	}
	if m.kind != KindOneWay {
		out.Cancel, out.Alive = names.Join(root, wire.CancelToken), names.Join(root, wire.AliveToken)
		out.Instances = names.Join(root, wire.AllToken, wire.InstancesToken)
		out.Frames = names.Join(instance, "*")
	}
	if m.kind == KindUnary {
		out.All = names.Join(root, wire.AllToken, wire.CallToken, m.desc.Name)
	}
	err := errors.Join(
		named("prefix", names.CheckPrefix(prefix)),
		named("the root of its subjects", names.CheckSubject(root)),
		named("subject", names.CheckSubject(request)),
		m.service.check(),
	)
	if err != nil {
		return Subjects{}, fmt.Errorf("rpc: method %s: %w", m.FullName(), err)
	}
	return out, nil
}

// verbSubjects are the subjects of discovery: `$SRV.<verb>`, also with the service's name, and with
// its name and id.
func verbSubjects(name, id string) []string {
	all := micro.APIPrefix + ".*"
	return []string{all, all + "." + name, all + "." + name + "." + id}
}
