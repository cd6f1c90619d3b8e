package inventory

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
)

// TestHealth: replicas without their bucket say so. As all of them lack it, they go on.
func TestHealth(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.run()
	nc := w.srv.Connect()
	client := rpc.NewClient(nc)
	defer client.Close()
	method := rpc.HealthMethod(&rpc.ServiceDesc{Name: inventoryv1nats.InventoryServiceName})
	await := func(is func(*natscallv1.GetHealthResponse) bool) {
		t.Helper()
		for same := 0; same < 2; {
			same = 0
			var said *natscallv1.GetHealthResponse
			for answer := range method.Gather(t.Context(), client, new(natscallv1.GetHealthRequest)).All() {
				if said = answer.Response; is(said) {
					same++
				}
			}
			if t.Context().Err() != nil {
				t.Fatalf("the last word is %v", said)
			}
		}
	}
	await(func(h *natscallv1.GetHealthResponse) bool {
		return h.GetStatus() == natscallv1.HealthStatus_HEALTH_STATUS_SERVING
	})
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteKeyValue(t.Context(), "inventory"); err != nil {
		t.Fatal(err)
	}
	await(func(h *natscallv1.GetHealthResponse) bool {
		return h.GetStatus() == natscallv1.HealthStatus_HEALTH_STATUS_NOT_SERVING && strings.Contains(h.GetReason(), "bucket inventory") && h.GetTakesCalls()
	})
}
