package rpc

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/natscall/natscall/rpc/internal/loglimit"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// refusedAnswers are the answers that NATS does not let a server publish. Nobody can tell its
// callers: they are told in the log and in the statistics.
type refusedAnswers struct {
	count atomic.Int64
	log   loglimit.Limit
}

// refusedLogInterval is the time between two records about refused answers.
const refusedLogInterval = time.Minute

// add counts an answer to a subject, and now and then logs which permission is missing. stream says
// that the answer is a frame of a stream. What only clients publish, such as one that shares the
// connection, is no answer. Of other subjects that is not known.
func (r *refusedAnswers) add(log *slog.Logger, subject string, stream bool) {
	if strings.Contains(subject, "."+wire.AllToken+".") || strings.Contains(subject, "."+wire.InstanceToken+".") {
		return
	}
	r.count.Add(1)
	if unlogged, ok := r.log.Next(); ok {
		log.Error("natscall: the NATS user of the service may not publish to a subject; if it is that of an answer, its caller gets none",
			"subject", subject, "missing", missingPermission(subject, stream), "unlogged", unlogged)
	}
}

// missingPermission returns what the permissions of a service lack, in the words of nats-server's
// configuration.
func missingPermission(subject string, stream bool) string {
	root, _, _ := strings.Cut(subject, ".")
	if root == "$JS" {
		return `publish: { allow: ["$JS.ACK.>"] }`
	}
	responses := "true"
	if stream {
		responses = `{ max: -1, expires: "1m" }`
	}
	return fmt.Sprintf("allow_responses: %s, or publish: { allow: [%q] }", responses, root+".>")
}
