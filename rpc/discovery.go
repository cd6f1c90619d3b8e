package rpc

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// This is an ADR-32 responder that replaces micro.AddService: the same subjects and replies, with
// numbers that are right for concurrent handlers.

// verbSubjects are the subjects of discovery: `$SRV.<verb>`, also with the service's name, and with
// its name and id.
func (s *service) verbSubjects() []string {
	all := micro.APIPrefix + ".*"
	return []string{all, all + "." + s.identity.Name, all + "." + s.identity.Name + "." + s.identity.ID}
}

// onVerb is the callback for discovery.
func (s *service) onVerb(m *nats.Msg) {
	if m.Reply == "" {
		return
	}
	verb, _, _ := strings.Cut(strings.TrimPrefix(m.Subject, micro.APIPrefix+"."), ".")
	answer := s.answerVerb(verb)
	if answer == nil {
		return // a verb that is not ADR-32's, or newer
	}
	err := s.publishJSON(m.Reply, answer)
	if stats, ok := answer.(micro.Stats); ok && errors.Is(err, nats.ErrMaxPayload) {
		err = s.publishJSON(m.Reply, bareStats(stats)) // the numbers at least
	}
	if err != nil {
		s.server.options.logger.Error("natscall: a discovery answer was not sent", "subject", m.Subject, "error", err)
	}
}

func (s *service) publishJSON(reply string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.server.nc.Publish(reply, data)
}

// bareStats leaves out the fields that may be long.
func bareStats(stats micro.Stats) micro.Stats {
	for _, e := range stats.Endpoints {
		e.LastError, e.Data = "", nil
	}
	return stats
}

func (s *service) answerVerb(verb string) any {
	switch verb {
	case micro.PingVerb.String():
		return micro.Ping{ServiceIdentity: s.identity, Type: micro.PingResponseType}
	case micro.InfoVerb.String():
		return s.info()
	case micro.StatsVerb.String():
		return s.statistics()
	}
	return nil
}

// checkInfo refuses a service whose INFO does not fit into a message: no listing would show it.
func (s *service) checkInfo() error {
	data, err := json.Marshal(s.info())
	if limit := s.server.nc.MaxPayload(); err == nil && limit > 0 && int64(len(data)) > limit {
		err = fmt.Errorf("discovery of %s needs %d bytes, the NATS server's max_payload is %d: less metadata, please", s.desc.Name, len(data), limit)
	}
	return err
}

func (s *service) info() micro.Info {
	info := micro.Info{ServiceIdentity: s.identity, Type: micro.InfoResponseType, Description: s.desc.Description}
	info.Endpoints = make([]micro.EndpointInfo, 0, len(s.endpoints)) // never null in JSON
	for _, e := range s.endpoints {
		info.Endpoints = append(info.Endpoints, micro.EndpointInfo{
			Name: e.method.Name, Subject: e.subject, QueueGroup: e.queueGroup, Metadata: e.metadata(),
		})
	}
	return info
}

func (e *endpoint) metadata() map[string]string {
	m := map[string]string{}
	for k, v := range e.method.Metadata {
		m[k] = v
	}
	m["natscall.method"] = e.method.FullName()
	m["natscall.kind"] = e.method.kind.String()
	m["natscall.request"] = e.method.requestName()
	m["natscall.response"] = e.method.responseName()
	if e.method.Idempotency != IdempotencyUnknown {
		m["natscall.idempotency"] = e.method.Idempotency.String()
	}
	return m
}

func (s *service) statistics() micro.Stats {
	stats := micro.Stats{ServiceIdentity: s.identity, Type: micro.StatsResponseType, Started: s.started}
	stats.Endpoints = make([]*micro.EndpointStats, 0, len(s.endpoints))
	load := s.load()
	for _, e := range s.endpoints {
		one := &micro.EndpointStats{Name: e.method.Name, Subject: e.subject, QueueGroup: e.queueGroup}
		e.stats.snapshot(one, load[e])
		stats.Endpoints = append(stats.Endpoints, one)
	}
	return stats
}

// schemaHash identifies the contents of a .proto file, so that tools see which replicas run which
// version of it.
func schemaHash(f protoreflect.FileDescriptor) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(f))
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:8])
}
