// Command shop is the order and inventory services in one process, with a NATS
// server of its own and some customers: the shortest way to see them work.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/natscall/natscall/examples/order"
)

const help = `shop starts a NATS server with JetStream on a free port of this machine, two replicas of the order
service and two of the inventory, and tells what happens as customers place orders. It needs
nothing else, not even the NATS server at $NATS_URL, leaves nothing behind, and fails where
something is not as it says.

  go run ./examples/shop           tells the story and ends
  go run ./examples/shop -serve    then stays up for the nats command, until Ctrl-C
  go run ./examples/shop -observe 10s    shows what can be seen of the services under load

Flags:
`

// storyTime is many times what the story takes, so that a shop in which
// something hangs says so.
const storyTime = time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute returns the exit code: 1 where something failed, 2 where a flag is wrong.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("shop", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	serve := fs.Bool("serve", false, "stay up until Ctrl-C")
	load := fs.Duration("observe", 0, "put the shop under load for `some time`, and print traces, metrics and logs of all processes")
	module := fs.String("prometheus", "", "`package@version` of the Prometheus that go builds for -observe where there is none on PATH")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, help)
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return 0
	case err == nil && fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
		fallthrough
	case err != nil:
		fmt.Fprintf(stderr, "shop: %v\nRun \"go run ./examples/shop -h\" for help.\n", err)
		return 2
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	tell := func() error { return run(ctx, stdout, log, *serve) }
	if *load > 0 {
		tell = func() error { return observeShop(ctx, stdout, log, observing{*load, *module, *serve}) }
	}
	if err := tell(); err != nil {
		fmt.Fprintf(stderr, "shop: %v\n", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, out io.Writer, log *slog.Logger, serve bool) (err error) {
	s, err := openShop(log, order.DefaultLease)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := tellStory(ctx, out, s); err != nil {
		return err
	}
	if serve {
		fmt.Fprintf(out, "\nThe shop is open at %s. Try, in another terminal:\n%s\nCtrl-C closes it.\n", s.url(), s.commands())
		<-ctx.Done()
		return nil
	}
	fmt.Fprintf(out, "\nThe shop was at %s, and closes. With -serve it stays open, for example for:\n%s", s.url(), s.commands())
	return nil
}

// commands are what to try.
func (s *shop) commands() string {
	return fmt.Sprintf(`
  export NATS_URL=%s
  nats micro ls
  nats micro stats OrderService
  nats req inventory.v1.InventoryService.ListStock '{}'
  nats req inventory.v1.InventoryService.WatchStock '{}' --replies=0 --timeout=20s -H Natscall-Timeout:20000
  nats req order.v1.OrderService.PlaceOrder '{"request_id":"mine-1","lines":[{"product_id":"apple","quantity":1}]}'
  nats req order.v1.OrderService.ListOrders '{}'
  nats sub orders.new
  nats pub orders.new '{"order_id":"mine-2","product_id":"67890"}'
  nats req order.v1.OrderService.GetOrder '{"order_id":"mine-2"}'
  nats stream info orders-new
  nats req order.v1.OrderFeedService.ListFeed '{}'
  nats kv get inventory apple --raw
`, s.url())
}
