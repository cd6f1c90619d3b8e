package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// This is an ADR-32 responder that replaces micro.AddService: the same subjects and replies, with
// numbers that are right for concurrent handlers.
type responder struct{ *service }

// onVerb is the callback for discovery.
func (r responder) onVerb(m *nats.Msg) {
	if m.Reply == "" {
		return
	}
	verb, _, _ := strings.Cut(strings.TrimPrefix(m.Subject, micro.APIPrefix+"."), ".")
	answer := r.answerVerb(verb)
	if answer == nil {
		return // a verb that is not ADR-32's, or newer
	}
	err := r.publishJSON(m.Reply, answer)
	if errors.Is(err, nats.ErrMaxPayload) {
		err = r.publishJSON(m.Reply, r.bare(answer))
	}
	if err != nil {
		r.server.options.logger.Error("natscall: a discovery answer was not sent", "subject", m.Subject, "error", err)
	}
}

func (r responder) publishJSON(reply string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return r.server.nc.Publish(reply, data)
}

// bare leaves out what may be long: of statistics the numbers are left at least.
func (r responder) bare(answer any) any {
	switch answer := answer.(type) {
	case micro.Ping:
		answer.ServiceIdentity = r.briefly(answer.Metadata)
		return answer
	case micro.Info:
		answer.ServiceIdentity = r.briefly(answer.Metadata)
		return answer
	case micro.Stats:
		answer.ServiceIdentity = r.briefly(answer.Metadata)
		for _, e := range answer.Endpoints {
			e.LastError, e.Data = "", nil
		}
		return answer
	}
	return answer
}

const (
	notServing = "natscall.not_serving" // metadata: why the service does not serve
	longReason = "the reason is long: ask _health for it"
)

// briefly returns the identity that has metadata, with a short reason if it has one.
func (r responder) briefly(metadata map[string]string) micro.ServiceIdentity {
	if metadata[notServing] == "" {
		return r.identity
	}
	return r.because(longReason)
}

func (r responder) answerVerb(verb string) any {
	switch verb {
	case micro.PingVerb.String():
		return micro.Ping{ServiceIdentity: r.listed(), Type: micro.PingResponseType}
	case micro.InfoVerb.String():
		return r.info()
	case micro.StatsVerb.String():
		return r.statistics()
	}
	return nil
}

// listed returns the identity, with the reason if the service does not serve.
func (r responder) listed() micro.ServiceIdentity {
	if !r.steps.ready.Load() {
		return r.identity
	}
	reason := membership(r).health().Reason
	if reason == "" {
		return r.identity
	}
	return r.because(reason)
}

// because returns the identity with the reason why the service does not serve.
func (r responder) because(reason string) micro.ServiceIdentity {
	out := r.identity
	out.Metadata = maps.Clone(out.Metadata)
	out.Metadata[notServing] = reason
	return out
}

// checkInfo refuses a service whose INFO does not fit into a message: no listing would show it.
func (r responder) checkInfo() error {
	info := r.info()
	info.ServiceIdentity = r.because(longReason) // as long as it gets
	data, err := json.Marshal(info)
	if limit := r.server.nc.MaxPayload(); err == nil && limit > 0 && int64(len(data)) > limit {
		err = fmt.Errorf("discovery of %s needs %d bytes, the NATS server's max_payload is %d: too much discovery metadata, too long a description, or too many methods", r.desc.Name, len(data), limit)
	}
	return err
}

func (r responder) info() micro.Info {
	info := micro.Info{ServiceIdentity: r.listed(), Type: micro.InfoResponseType, Description: r.desc.Description}
	info.Endpoints = make([]micro.EndpointInfo, 0, len(r.endpoints)) // never null in JSON
	for _, e := range r.endpoints {
		info.Endpoints = append(info.Endpoints, micro.EndpointInfo{
			Name: e.method.desc.Name, Subject: e.subject, QueueGroup: e.queueGroup, Metadata: e.metadata(),
		})
	}
	return info
}

func (r responder) statistics() micro.Stats {
	stats := micro.Stats{ServiceIdentity: r.listed(), Type: micro.StatsResponseType, Started: r.started}
	stats.Endpoints = make([]*micro.EndpointStats, 0, len(r.endpoints))
	load, health := r.load(), membership(r).health()
	for _, e := range r.endpoints {
		one := &micro.EndpointStats{Name: e.method.desc.Name, Subject: e.subject, QueueGroup: e.queueGroup}
		now := load[e]
		now.health = health
		now.answersRefused = r.server.async.answers.count.Load()
		now.estimate = e.workers().Estimate(e.admission).Mean
		e.stats.snapshot(one, now)
		stats.Endpoints = append(stats.Endpoints, one)
	}
	return stats
}
