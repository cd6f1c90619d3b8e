package rpcotel

import (
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/rpcconv"

	"github.com/natscall/natscall/rpc"
)

// TestNames compares the names with those of the conventions.
func TestNames(t *testing.T) {
	for ours, theirs := range map[attribute.Key]attribute.Key{
		systemKey: semconv.RPCSystemNameKey, methodKey: semconv.RPCMethodKey, statusKey: semconv.RPCResponseStatusCodeKey,
		errorKey: semconv.ErrorTypeKey, addressKey: semconv.ServerAddressKey, messagingSystemKey: semconv.MessagingSystemKey,
		operationNameKey: semconv.MessagingOperationNameKey, operationTypeKey: semconv.MessagingOperationTypeKey,
		destinationKey:         semconv.MessagingDestinationNameKey,
		requestMetadata + "x":  semconv.RPCRequestMetadata("x").Key,
		responseMetadata + "x": semconv.RPCResponseMetadata("x").Key,
		schemaURL:              semconv.SchemaURL,
	} {
		if ours != theirs {
			t.Errorf("%s, the conventions have %s", ours, theirs)
		}
	}
	for _, operation := range []attribute.KeyValue{semconv.MessagingOperationTypeSend, semconv.MessagingOperationTypeProcess} {
		server := operation == semconv.MessagingOperationTypeProcess
		if got := messaging(server)[2]; got != operation {
			t.Errorf("%v, the conventions have %v", got, operation)
		}
	}
	meter := noop.NewMeterProvider().Meter("")
	client, err := rpcconv.NewClientCallDuration(meter)
	if err != nil {
		t.Fatal(err)
	}
	server, err := rpcconv.NewServerCallDuration(meter)
	if err != nil {
		t.Fatal(err)
	}
	for side, theirs := range map[string]interface{ Name() string }{"client": client, "server": server} {
		makers := instruments{side: side}
		if ours := makers.name(durationMetric); ours != theirs.Name() {
			t.Errorf("%s, the conventions have %s", ours, theirs.Name())
		}
	}
}

func TestServerAddress(t *testing.T) {
	for subject, want := range map[string]string{
		"order.v1.OrderService.PlaceOrder":                "order.v1.OrderService",
		"eu.order.v1.OrderService.PlaceOrder":             "eu.order.v1.OrderService",
		"order.v1.OrderService._i.abc123.call.PlaceOrder": "order.v1.OrderService",
		"orders.place": "orders.place",
	} {
		if got := serverAddress(subject, "order.v1.OrderService/PlaceOrder"); got != want {
			t.Errorf("%s: %s, want %s", subject, got, want)
		}
	}
}

// TestUnknownCode: a code that is none of gRPC's has a name all the same.
func TestUnknownCode(t *testing.T) {
	m := newMethod("x.X/Do", rpc.KindUnary, true)
	if got := statusName(99); got != "CODE_99" || len(m.ended(99)) != 1 {
		t.Errorf("the name is %s", got)
	}
}
