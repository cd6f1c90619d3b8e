package rpcotel

import (
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"

	"github.com/natscall/natscall/rpc"
)

// The names of everything that is recorded stand in this file. Those of OpenTelemetry's conventions
// for RPC and messaging still move; a test compares them with the version that schemaURL names.

// scope is the name of the instrumentation.
const scope = "github.com/natscall/natscall/rpc/rpcotel"

const schemaURL = "https://opentelemetry.io/schemas/1.43.0"

// system is the value of rpc.system.name.
const system = "natscall"

// Attributes of the conventions.
const (
	systemKey          = attribute.Key("rpc.system.name")
	methodKey          = attribute.Key("rpc.method")
	statusKey          = attribute.Key("rpc.response.status_code")
	errorKey           = attribute.Key("error.type")
	addressKey         = attribute.Key("server.address")
	requestMetadata    = "rpc.request.metadata."
	responseMetadata   = "rpc.response.metadata."
	messagingSystemKey = attribute.Key("messaging.system")
	operationNameKey   = attribute.Key("messaging.operation.name")
	operationTypeKey   = attribute.Key("messaging.operation.type")
	destinationKey     = attribute.Key("messaging.destination.name")
	messagingSystem    = "nats" // not a registered value yet
)

// Attributes of our own.
const (
	instanceKey        = attribute.Key("natscall.instance")
	executionKey       = attribute.Key("natscall.execution")
	callIDKey          = attribute.Key("natscall.call.id")
	queueTimeKey       = attribute.Key("natscall.queue.duration")
	reasonKey          = attribute.Key("natscall.shed.reason")
	attemptEvent       = "natscall.attempt"
	attemptNumberKey   = attribute.Key("natscall.attempt.number")
	attemptIDKey       = attribute.Key("natscall.attempt.id")
	attemptSubjectKey  = attribute.Key("natscall.attempt.subject")
	attemptInstanceKey = attribute.Key("natscall.attempt.instance")
	attemptHedgeKey    = attribute.Key("natscall.attempt.hedge")
)

// Metrics. Those with a % are of clients and of servers.
const (
	durationMetric   = "rpc.%s.call.duration" // of the conventions, which have no other
	activeMetric     = "natscall.%s.active_calls"
	requestsMetric   = "natscall.%s.request.messages"
	requestSize      = "natscall.%s.request.size"
	requestsPerCall  = "natscall.%s.requests_per_call"
	responsesMetric  = "natscall.%s.response.messages"
	responseSize     = "natscall.%s.response.size"
	responsesPerCall = "natscall.%s.responses_per_call"
	retriesMetric    = "natscall.client.retries"
	hedgesMetric     = "natscall.client.hedges"
	failedMetric     = "natscall.client.failed_calls"
	queueMetric      = "natscall.server.queue.duration"
	queuedMetric     = "natscall.server.queued_calls"
	shedMetric       = "natscall.server.shed_calls"
	answeredMetric   = "natscall.server.answered_calls"
	refusedAnswers   = "natscall.server.refused_answers"
	serviceMetadata  = "natscall.service" // the key of the full name in the metadata of a service
)

// statusNames are the codes as gRPC and its telemetry spell them.
var statusNames = func() (names [rpc.CodeUnauthenticated + 1]string) {
	for code := range names {
		names[code] = strings.ToUpper(rpc.Code(code).String())
	}
	names[rpc.CodeCanceled] = "CANCELLED"
	return names
}()

// statusName returns the value of rpc.response.status_code.
func statusName(code rpc.Code) string {
	if int(code) < len(statusNames) {
		return statusNames[code]
	}
	return strings.ToUpper(code.String())
}

// executionName returns the value of natscall.execution, such as "not_run".
func executionName(x rpc.Execution) string { return strings.ReplaceAll(x.String(), " ", "_") }

// isError reports whether a code makes a span an error: on a client all but OK, on a server only
// those for which the caller is not to blame.
func isError(code rpc.Code, server bool) bool {
	if !server {
		return code != rpc.CodeOK
	}
	switch code {
	case rpc.CodeUnknown, rpc.CodeDeadlineExceeded, rpc.CodeUnimplemented, rpc.CodeInternal, rpc.CodeUnavailable, rpc.CodeDataLoss:
		return true
	}
	return false
}

// status returns the status of a span.
func status(code rpc.Code, server bool) codes.Code {
	if isError(code, server) {
		return codes.Error
	}
	return codes.Unset
}

// serverAddress returns what a client addresses: the root of the service's subjects, or the subject
// of a method that has one of its own.
func serverAddress(subject, method string) string {
	if root, _, ok := strings.Cut(subject, "._i."); ok {
		return root
	}
	return strings.TrimSuffix(subject, "."+method[strings.LastIndexByte(method, '/')+1:])
}
