package rpctap_test

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/rpctap"
)

func ExampleCalls() {
	calls := rpctap.NewCalls()
	// Subscriptions to order.v1.OrderService.> and _INBOX.> give such messages.
	for _, m := range []*nats.Msg{
		{Subject: "order.v1.OrderService.GetOrder", Reply: "_INBOX.1", Data: []byte(`{"order_id":"42"}`)},
		{Subject: "_INBOX.1", Data: []byte(`{"order":{"order_id":"42"}}`)},
	} {
		e := calls.Observe(m, time.Now())
		fmt.Println(e.From, e.Kind, e.Call.Subject.Method, e.Codec, string(e.Messages[0].Data))
	}
	// Output:
	// client plain GetOrder json {"order_id":"42"}
	// server plain GetOrder json {"order":{"order_id":"42"}}
}
