package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
)

// TestTerminalWidth: in terminals of all widths the tables fit, and no row is broken; what is most
// important stays.
func TestTerminalWidth(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.ok("call", "AddStock", `{"productId": "apple", "quantity": 1}`)
	c.run("call", "GetStock", `{"productId": "none"}`)
	must(t, c.shop.serveOrders("order", rpc.WithSubjectPrefix("a.rather.long.prefix.of.subjects")))
	for _, test := range []struct {
		command, all string // what is there in any width
		rows         int
	}{
		{"ls", "ventoryService", 6},
		{"ls InventoryService", "WatchStock", 11},
		{"ps", "serving", 6},
		{"ps --watch --count 1", "serving", 6},
		{"health", "serving", 6},
		{"ping", "ventoryService", 6},
		{"stats InventoryService", "ImportStock", 9},
	} {
		for _, columns := range []int{40, 80, 120, 250} {
			t.Run(fmt.Sprint(test.command, " ", columns), func(t *testing.T) {
				t.Parallel()
				out := terminal{newScreen(), columns, 50}
				var stderr bytes.Buffer
				if status := run(testContext(t), append(strings.Fields(test.command), "--server", c.url), nil, out, &stderr); status != problem.StatusOK {
					t.Fatalf("exit status %d: %s", status, &stderr)
				}
				rows := 0
				for line := range strings.Lines(out.String()) {
					line = strings.TrimRight(line, "\r\n")
					if got := text.StringWidthWithoutEscSequences(line); got > columns {
						t.Errorf("a line has %d columns: %q", got, line)
					}
					if !strings.ContainsAny(line, "╭├╰") && strings.TrimSpace(line) != "" && !strings.Contains(line, "\x1b[?1049l") {
						rows++
					}
				}
				if rows != test.rows {
					t.Errorf("there are %d rows, want %d:\n%s", rows, test.rows, out)
				}
				if !strings.Contains(out.String(), test.all) {
					t.Errorf("there is no %s:\n%s", test.all, out)
				}
			})
		}
	}
}

// TestLongReason: a reason that a narrow terminal has no room for stands below the table.
func TestLongReason(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	srv := s.newServer(s.connect("inventory").nc)
	must(t, inventoryv1nats.RegisterInventoryServiceServer(srv, inventoryv1nats.UnimplementedInventoryServiceServer{}))
	must(t, s.start(srv))
	reason := "the disk is full, and the one beside it is on its way to being so"
	must(t, srv.SetHealth("", errors.New(reason)))
	for columns, want := range map[int]string{60: inventoryRoot + " " + srv.Instance(inventoryRoot) + ": \x1b[31;1m" + reason, 200: "│ " + reason + " │"} {
		out := terminal{newScreen(), columns, 24}
		if status := run(testContext(t), []string{"health", "--server", s.srv.URL()}, nil, out, io.Discard); status != problem.StatusFailure {
			t.Errorf("exit status %d", status)
		}
		if text := out.String(); !strings.Contains(text, want) || strings.Count(text, reason) != 1 {
			t.Errorf("%d columns:\n%s", columns, text)
		}
	}
}

// TestPrefixes: services of one name under several prefixes are told apart, and judged one by one.
func TestPrefixes(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	c := &console{t, s, s.srv.URL()}
	must(t, s.serveInventory("inventory"))
	blue := s.newServer(s.connect("inventory").nc, rpc.WithSubjectPrefix("blue"))
	serveEmpty(t, blue)
	must(t, s.start(blue))
	must(t, blue.SetHealth("", fmt.Errorf("painted")))
	var all []struct{ Service, Prefix, Health, Status string }
	c.read(&all, "ps", "--json")
	if len(all) != 2 || all[0].Prefix != "" || all[0].Health != "SERVING" || all[1].Prefix != "blue" || all[1].Health != "NOT_SERVING" {
		t.Errorf("ps: %+v", all)
	}
	for _, command := range []string{"ps", "health --any", "ping", "stats"} {
		text := c.run(strings.Fields(command)...).stdout
		if header, _, _ := strings.Cut(text, "\n"); !strings.Contains(header, "  PREFIX  ") || !strings.Contains(text, "  blue  ") {
			t.Errorf("%s prints\n%s", command, text)
		}
	}
	if text := c.ok("ps"); strings.Contains(text, "different schemas") || !strings.Contains(text, "inventory.v1.InventoryService --prefix blue ") {
		t.Errorf("ps prints\n%s", text)
	}
	// One of the name is well, but none of those under the prefix.
	for args, want := range map[string]int{
		"--any": problem.StatusFailure, "InventoryService --any": problem.StatusOK, "InventoryService --any --prefix blue": problem.StatusFailure,
	} {
		if r := c.run(append([]string{"health"}, strings.Fields(args)...)...); r.status != want {
			t.Errorf("health %s: exit status %d:\n%s%s", args, r.status, r.stdout, r.stderr)
		}
	}
	if text := c.ok("ping", "InventoryService", "--prefix", "blue"); !strings.Contains(text, "  blue  ") {
		t.Errorf("ping prints\n%s", text)
	}
}

// serveEmpty serves an inventory whose schema is another one, since it lacks all methods but one.
func serveEmpty(t *testing.T, srv *rpc.Server) {
	t.Helper()
	serveSource(t, srv, "inventory.v1", "1.0.0", `message Empty {} service InventoryService { rpc GetStock(Empty) returns (Empty); }`, handlers{
		"GetStock": func(context.Context, *rpc.Stream) error { return nil },
	})
}

// TestSilent: an instance that says what it is and not what it does is shown with what is known.
func TestSilent(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	nc := c.shop.connect("other").nc
	identity := micro.ServiceIdentity{Name: "Mute", ID: "mute-1", Version: "1.2.3", Metadata: map[string]string{"natscall.service": "mute.v1.Mute", "natscall.schema": "sha256:0123456789"}}
	_, err := nc.Subscribe("$SRV.INFO", func(m *nats.Msg) {
		_ = m.Respond([]byte(quotedJSON(t, micro.Info{ServiceIdentity: identity})))
	})
	must(t, err)
	must(t, nc.Flush())
	text := c.ok("ps")
	row := ""
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "mute.v1.Mute  ") {
			row = strings.Join(strings.Fields(line), " ")
		}
	}
	if row != "mute.v1.Mute mute-1 - - - - - - - - - - - 1.2.3 01234567" || !strings.Contains(text, "mute.v1.Mute mute-1: does not say what it does") {
		t.Errorf("ps prints %q in\n%s", row, text)
	}
	var all []map[string]any
	c.read(&all, "ps", "Mute", "--json")
	if len(all) != 1 || all[0]["no_statistics"] != true || all[0]["started"] != nil {
		t.Errorf("ps --json: %v", all)
	}
	if text := c.ok("ps", "Mute", "--watch", "--count", "2", "--interval", "1ms"); strings.Count(text, "does not say") != 2 {
		t.Errorf("ps --watch prints\n%s", text)
	}
}
