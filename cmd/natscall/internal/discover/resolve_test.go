package discover

import (
	"strings"
	"testing"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// someServices are those of a few teams; one runs twice.
func someServices() []*Service {
	methods := func(names ...string) []Method {
		out := make([]Method, len(names))
		for i, name := range names {
			out[i].Name = name
		}
		return out
	}
	return []*Service{
		{Name: "order.v1.OrderService", Micro: "OrderService", Root: "order.v1.OrderService", Methods: methods("PlaceOrder", "Get")},
		{Name: "order.v1.OrderService", Micro: "OrderService", Root: "test.order.v1.OrderService", Methods: methods("PlaceOrder", "Get")},
		{Name: "order.v2.OrderService", Micro: "Orders", Root: "order.v2.OrderService", Methods: methods("PlaceOrder")},
		{Name: "stock.v1.StockService", Micro: "StockService", Root: "east.stock.v1.StockService", Methods: methods("Get", "Count")},
		{Name: "stock.v1.StockService", Micro: "StockService", Root: "west.stock.v1.StockService", Methods: methods("Get", "Count")},
		{Name: "stock.v1.StockService", Micro: "StockService", Root: "west.old.stock.v1.StockService", Methods: methods("Get", "Count")},
		{Name: "tick", Micro: "tick", Methods: methods("tock")},
	}
}

func TestFind(t *testing.T) {
	for _, test := range []struct{ name, prefix, root, err, next string }{
		{"order.v1.OrderService", "", "order.v1.OrderService", "", ""},
		{"order.v1.OrderService", "test", "test.order.v1.OrderService", "", ""},
		{"v2.orderservice", "", "order.v2.OrderService", "", ""},
		{"Orders", "", "order.v2.OrderService", "", ""},
		{"tick", "", "", "", ""},
		{"OrderService", "", "", `"OrderService" means several services`, "order.v1.OrderService, order.v1.OrderService --prefix test, order.v2.OrderService"},
		{"StockService", "", "", `"StockService" means several services`, "stock.v1.StockService --prefix east, stock.v1.StockService --prefix west, stock.v1.StockService --prefix west.old"},
		{"StockService", "west", "west.stock.v1.StockService", "", ""},
		{"StockService", "west.old", "west.old.stock.v1.StockService", "", ""},
		{"StockService", "wes", "", `there is no service "StockService" with the subject prefix "wes"`, "did you mean stock.v1.StockService --prefix"},
		{"StokService", "", "", `there is no service "StokService"`, "did you mean stock.v1.StockService --prefix east or"},
		{"x.y.Payments", "", "", `there is no service "x.y.Payments"`, "there are order.v1.OrderService, "},
	} {
		t.Run(test.name+" "+test.prefix, func(t *testing.T) {
			s, err := Find(someServices(), test.name, test.prefix)
			if !checkError(t, err, test.err, test.next) && s.Root != test.root {
				t.Errorf("%s, want %s", s.Root, test.root)
			}
		})
	}
}

func TestFindMethod(t *testing.T) {
	for _, test := range []struct{ name, prefix, root, method, err, next string }{
		{"order.v1.OrderService/PlaceOrder", "", "order.v1.OrderService", "PlaceOrder", "", ""},
		{"order.v1.OrderService.PlaceOrder", "", "order.v1.OrderService", "PlaceOrder", "", ""},
		{"order.v1.OrderService/placeorder", "test", "test.order.v1.OrderService", "PlaceOrder", "", ""},
		{"Count", "east", "east.stock.v1.StockService", "Count", "", ""},
		{"Count", "west", "west.stock.v1.StockService", "Count", "", ""},
		{"tock", "", "", "tock", "", ""},
		{"Count", "", "", "", `several services have a method "Count"`, "stock.v1.StockService/Count --prefix east, stock.v1.StockService/Count --prefix west"},
		{"PlaceOrder", "", "", "", `several services have a method "PlaceOrder"`, "order.v2.OrderService/PlaceOrder"},
		{"order.v1.OrderService/Place", "", "", "", `service order.v1.OrderService has no method "Place"`, "its methods are PlaceOrder, Get"},
		{"Tock2", "", "", "", `no service has a method "Tock2"`, "did you mean tick/tock?"},
		{"order.v2.OrderService", "", "", "", "order.v2.OrderService is a service: say which method, as in order.v2.OrderService/PlaceOrder", ""},
	} {
		t.Run(test.name+" "+test.prefix, func(t *testing.T) {
			s, m, err := FindMethod(someServices(), test.name, test.prefix)
			if !checkError(t, err, test.err, test.next) && (s.Root != test.root || m.Name != test.method) {
				t.Errorf("%s %s, want %s %s", s.Root, m.Name, test.root, test.method)
			}
		})
	}
	if _, err := Find(nil, "x", ""); !strings.Contains(problem.Of(err).Next, "no service answers") {
		t.Errorf("without services: %v", err)
	}
}

// checkError compares an error with what it should say, and reports whether there is one.
func checkError(t *testing.T, err error, want, next string) bool {
	t.Helper()
	if err == nil {
		if want != "" {
			t.Errorf("no error, want %s", want)
		}
		return want != ""
	}
	if want == "" || !strings.Contains(err.Error(), want) || !strings.Contains(problem.Of(err).Next, next) {
		t.Errorf("error %q, next %q; want %q and %q", err, problem.Of(err).Next, want, next)
	}
	return true
}
