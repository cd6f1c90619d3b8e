package rpcvalidate_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcvalidate"
	bookingv1 "github.com/natscall/natscall/rpc/rpcvalidate/internal/gen/booking/v1"
	"github.com/natscall/natscall/rpc/rpcvalidate/internal/gen/booking/v1/bookingv1nats"
)

// The code of docs/validation.md comes from this file.

func ExampleValidation_Server() {
	nc, stop := start()
	defer stop()
	ctx := context.Background()

	validation, err := rpcvalidate.New()
	if err != nil {
		log.Fatal(err)
	}
	srv := rpc.NewServer(nc, validation.Server())
	if err := bookingv1nats.RegisterBookingServiceServer(srv, hotel{}); err != nil {
		log.Fatal(err) // also if rules do not compile
	}

	if err := srv.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer srv.Shutdown(ctx)
	client := rpc.NewClient(nc)
	defer client.Close()
	booking := bookingv1nats.NewBookingServiceClient(client)

	_, err = booking.Book(ctx, &bookingv1.BookRequest{Room: "sea-7", Guests: []*bookingv1.Guest{{}}})
	if broken, ok := rpc.Detail[*validate.Violations](err); ok {
		for _, v := range broken.GetViolations() {
			fmt.Println(protovalidate.FieldPathString(v.GetField()), "breaks", v.GetRuleId())
		}
	}
	var failed *rpc.Error
	if errors.As(err, &failed) {
		fmt.Println(failed.Code(), "and", failed.Execution())
	}
	// Output:
	// nights breaks uint32.gte_lte
	// guests[0].name breaks string.min_len
	// invalid_argument and not run
}

func ExampleValidation_Client() {
	nc, stop := start()
	defer stop()
	ctx := context.Background()
	validation, err := rpcvalidate.New()
	if err != nil {
		log.Fatal(err)
	}

	client := rpc.NewClient(nc, validation.Client())

	defer client.Close()
	booking := bookingv1nats.NewBookingServiceClient(client)
	_, err = booking.Cancel(ctx, &bookingv1.CancelRequest{Number: "42", Nights: 31}) // is not sent
	fmt.Println(rpc.CodeOf(err))
	// Output: invalid_argument
}

func ExampleNew() {
	validator, err := protovalidate.New(protovalidate.WithFailFast(), protovalidate.WithAllowUnknownFields())
	if err != nil {
		log.Fatal(err)
	}
	validation, err := rpcvalidate.New(
		rpcvalidate.WithValidator(validator),
		rpcvalidate.WithResponses(),
		rpcvalidate.WithFilter(func(method string) bool {
			return !strings.HasPrefix(method, "/legacy.")
		}),
	)
	fmt.Println(validation != nil, err)
	// Output: true <nil>
}

// hotel implements the booking service, as far as the examples need it.
type hotel struct {
	bookingv1nats.UnimplementedBookingServiceServer
}

func (hotel) Book(context.Context, *bookingv1.BookRequest) (*bookingv1.BookResponse, error) {
	return &bookingv1.BookResponse{Number: "42"}, nil
}

// start starts what a deployment has already: a NATS server.
func start() (nc *nats.Conn, stop func()) {
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true})
	if err != nil {
		log.Fatal(err)
	}
	ns.Start()
	nc, err = nats.Connect("", nats.InProcessServer(ns))
	if err != nil {
		log.Fatal(err)
	}
	return nc, func() { nc.Close(); ns.Shutdown(); ns.WaitForShutdown() }
}
