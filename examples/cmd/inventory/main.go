// Command inventory serves inventory.v1.InventoryService.
package main

import (
	"github.com/natscall/natscall/examples/internal/app"
	"github.com/natscall/natscall/examples/inventory"
)

func main() {
	app.Command{
		Name: "inventory",
		About: `inventory serves inventory.v1.InventoryService: the stock of a shop, kept in JetStream.

Start as many as you like, they share the work. Ctrl-C finishes what is being worked on, then ends.

  nats-server -js &
  inventory &
  nats req inventory.v1.InventoryService.AddStock '{"product_id":"apple","quantity":100}'
  nats req inventory.v1.InventoryService.ListStock '{}'`,
		Run: inventory.Run,
	}.Main()
}
