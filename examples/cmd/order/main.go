// Command order serves order.v1.OrderService and order.v1.OrderFeedService.
package main

import (
	"context"
	"flag"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/examples/internal/app"
	"github.com/natscall/natscall/examples/order"
)

func main() {
	lease := order.DefaultLease
	app.Command{
		Name: "order",
		About: `order serves order.v1.OrderService and order.v1.OrderFeedService: the orders of a shop, kept in JetStream.
It reserves and sells what is ordered with the inventory service, which must run too. It also places
the orders that are published on orders.new, which a JetStream stream keeps while no replica runs.

Start as many as you like, they share the work, and finish what one that crashed has left.
Ctrl-C finishes what is being worked on, then ends.

  nats-server -js &
  inventory & order &
  nats req inventory.v1.InventoryService.AddStock '{"product_id":"apple","quantity":100}'
  nats req order.v1.OrderService.PlaceOrder '{"request_id":"1","lines":[{"product_id":"apple","quantity":2}]}'
  nats pub orders.new '{"order_id":"2","product_id":"apple"}'
  nats sub orders.new`,
		Flags: func(fs *flag.FlagSet) {
			fs.Func("lease", "`time` after which another replica finishes an order on which nothing happens (default 5s)",
				func(v string) (err error) { lease, err = order.ParseLease(v); return err })
		},
		Run: func(ctx context.Context, nc *nats.Conn, s app.Settings) error {
			return order.Run(ctx, nc, order.Config{Settings: s, Lease: lease})
		},
	}.Main()
}
