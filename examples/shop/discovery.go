package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// services is how many a replica of each program serves: the inventory, and
// orders with their feed.
const services = 3

// discovery prints what "nats micro ls" would find, and what each instance has
// done. It fails where the numbers are not those of the story.
func (s *story) discovery() error {
	stats, err := gather[micro.Stats](s.nc, "$SRV.STATS", replicas*services, 5*time.Second)
	if err != nil {
		return err
	}
	slices.SortFunc(stats, func(a, b micro.Stats) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	table := tabwriter.NewWriter(s.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "   NAME\tVERSION\tID\tENDPOINTS\tREQUESTS")
	placed := 0
	for _, instance := range stats {
		requests := 0
		for _, e := range instance.Endpoints {
			requests += e.NumRequests
			if e.Name == "PlaceOrder" {
				placed += e.NumRequests
			}
		}
		fmt.Fprintf(table, "   %s\t%s\t%s\t%d\t%d\n", instance.Name, instance.Version, instance.ID, len(instance.Endpoints), requests)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	s.say("%d requests to place an order, as many as were made.", placed)
	return expect(placed == int(s.placed.Load()), "PlaceOrder was called %d times, but the services counted %d", s.placed.Load(), placed)
}

// gather asks all services, and waits for want answers, for each some time.
func gather[T any](nc *nats.Conn, subject string, want int, wait time.Duration) ([]T, error) {
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only where nc has been closed
	if err := nc.PublishRequest(subject, sub.Subject, nil); err != nil {
		return nil, err
	}
	var out []T
	for len(out) < want {
		m, err := sub.NextMsg(wait)
		if err != nil {
			return nil, fmt.Errorf("%s: %d of %d services have answered: %w", subject, len(out), want, err)
		}
		var answer T
		if err := json.Unmarshal(m.Data, &answer); err != nil {
			return nil, fmt.Errorf("%s: %w", subject, err)
		}
		out = append(out, answer)
	}
	return out, nil
}

// say prints a line of the story.
func (s *story) say(format string, args ...any) { say(s.out, format, args...) }

func say(out io.Writer, format string, args ...any) { fmt.Fprintf(out, "   "+format+"\n", args...) }

// expect is the check of what the story says.
func expect(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}
