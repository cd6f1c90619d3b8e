package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/natscall/natscall/rpc"
)

// shopperNeeds says what a shopper cannot do without each of the subjects that it may publish to.
var shopperNeeds = map[string]string{
	"inventory.v1.InventoryService.AddStock":    "AddStock",
	"inventory.v1.InventoryService.GetStock":    "GetStock",
	"inventory.v1.InventoryService.ListStock":   "ListStock",
	"inventory.v1.InventoryService.Reserve":     "Reserve",
	"inventory.v1.InventoryService.Confirm":     "Confirm",
	"inventory.v1.InventoryService.Release":     "Release",
	"inventory.v1.InventoryService.WatchStock":  "WatchStock",
	"inventory.v1.InventoryService.ImportStock": "ImportStock",
	"order.v1.OrderService.PlaceOrder":          "PlaceOrder",
	"order.v1.OrderService.GetOrder":            "GetOrder",
	"order.v1.OrderService.ListOrders":          "ListOrders",
	"order.v1.OrderService.PickOrder":           "PickOrder",
	"order.v1.OrderFeedService.ListFeed":        "ListFeed",
	"orders.new":                                "OrderPlaced",

	"inventory.v1.InventoryService._all.cancel":    "cancel inventory.v1.InventoryService",
	"inventory.v1.InventoryService._all.alive":     "alive inventory.v1.InventoryService",
	"inventory.v1.InventoryService._all.instances": "instances inventory.v1.InventoryService",
	"inventory.v1.InventoryService._i.*.*":         "large inventory.v1.InventoryService",
	"order.v1.OrderService._all.cancel":            "cancel order.v1.OrderService",
	"order.v1.OrderService._all.alive":             "alive order.v1.OrderService",
	"order.v1.OrderService._all.instances":         "instances order.v1.OrderService",
	"order.v1.OrderService._i.*.*":                 "large order.v1.OrderService",
	"order.v1.OrderFeedService._all.cancel":        "cancel order.v1.OrderFeedService",
	"order.v1.OrderFeedService._all.alive":         "alive order.v1.OrderFeedService",
	"order.v1.OrderFeedService._all.instances":     "instances order.v1.OrderFeedService",
	"order.v1.OrderFeedService._i.*.*":             "large order.v1.OrderFeedService",

	"inventory.v1.InventoryService._i.*.call.AddStock":    "one inventory.v1.InventoryService/AddStock",
	"inventory.v1.InventoryService._i.*.call.GetStock":    "one inventory.v1.InventoryService/GetStock",
	"inventory.v1.InventoryService._i.*.call.ListStock":   "one inventory.v1.InventoryService/ListStock",
	"inventory.v1.InventoryService._i.*.call.Reserve":     "one inventory.v1.InventoryService/Reserve",
	"inventory.v1.InventoryService._i.*.call.Confirm":     "one inventory.v1.InventoryService/Confirm",
	"inventory.v1.InventoryService._i.*.call.Release":     "one inventory.v1.InventoryService/Release",
	"inventory.v1.InventoryService._i.*.call.WatchStock":  "one inventory.v1.InventoryService/WatchStock",
	"inventory.v1.InventoryService._i.*.call.ImportStock": "one inventory.v1.InventoryService/ImportStock",
	"order.v1.OrderService._i.*.call.PlaceOrder":          "one order.v1.OrderService/PlaceOrder",
	"order.v1.OrderService._i.*.call.GetOrder":            "one order.v1.OrderService/GetOrder",
	"order.v1.OrderService._i.*.call.ListOrders":          "one order.v1.OrderService/ListOrders",
	"order.v1.OrderService._i.*.call.PickOrder":           "one order.v1.OrderService/PickOrder",
	"order.v1.OrderFeedService._i.*.call.ListFeed":        "one order.v1.OrderFeedService/ListFeed",
}

// orderNeeds is the same for what the order service calls.
var orderNeeds = map[string]string{
	"inventory.v1.InventoryService.Reserve":        "Reserve",
	"inventory.v1.InventoryService.Confirm":        "Confirm",
	"inventory.v1.InventoryService.Release":        "Release",
	"orders.new":                                   "OrderPlaced",
	"inventory.v1.InventoryService._all.cancel":    "cancel inventory.v1.InventoryService",
	"inventory.v1.InventoryService._all.alive":     "alive inventory.v1.InventoryService",
	"inventory.v1.InventoryService._all.instances": "instances inventory.v1.InventoryService",
	"inventory.v1.InventoryService._i.*.*":         "large inventory.v1.InventoryService",

	"inventory.v1.InventoryService._i.*.call.Reserve": "one inventory.v1.InventoryService/Reserve",
	"inventory.v1.InventoryService._i.*.call.Confirm": "one inventory.v1.InventoryService/Confirm",
	"inventory.v1.InventoryService._i.*.call.Release": "one inventory.v1.InventoryService/Release",

	"order.v1.OrderService._all.instances":     "peers order.v1.OrderService",
	"order.v1.OrderFeedService._all.instances": "peers order.v1.OrderFeedService",
}

// toolNeeds is the same for a tool.
var toolNeeds = map[string]string{
	"$SRV.*":                    "list",
	"$SRV.*.InventoryService":   "stats InventoryService",
	"$SRV.*.InventoryService.*": "one InventoryService",
	"$SRV.*.OrderService":       "stats OrderService",
	"$SRV.*.OrderService.*":     "one OrderService",
	"$SRV.*.OrderFeedService":   "stats OrderFeedService",
	"$SRV.*.OrderFeedService.*": "one OrderFeedService",

	"inventory.v1.InventoryService._schema":           "schema inventory.v1.InventoryService",
	"inventory.v1.InventoryService._health":           "health inventory.v1.InventoryService",
	"inventory.v1.InventoryService._i.*.call._schema": "schema of one inventory.v1.InventoryService",
	"inventory.v1.InventoryService._i.*.call._health": "health of one inventory.v1.InventoryService",
	"inventory.v1.InventoryService._all.call._health": "health of all inventory.v1.InventoryService",
	"inventory.v1.InventoryService._all.instances":    "peers inventory.v1.InventoryService",
	"order.v1.OrderService._schema":                   "schema order.v1.OrderService",
	"order.v1.OrderService._health":                   "health order.v1.OrderService",
	"order.v1.OrderService._i.*.call._schema":         "schema of one order.v1.OrderService",
	"order.v1.OrderService._i.*.call._health":         "health of one order.v1.OrderService",
	"order.v1.OrderService._all.call._health":         "health of all order.v1.OrderService",
	"order.v1.OrderService._all.instances":            "peers order.v1.OrderService",
	"order.v1.OrderFeedService._schema":               "schema order.v1.OrderFeedService",
	"order.v1.OrderFeedService._health":               "health order.v1.OrderFeedService",
	"order.v1.OrderFeedService._i.*.call._schema":     "schema of one order.v1.OrderFeedService",
	"order.v1.OrderFeedService._i.*.call._health":     "health of one order.v1.OrderFeedService",
	"order.v1.OrderFeedService._all.call._health":     "health of all order.v1.OrderFeedService",
	"order.v1.OrderFeedService._all.instances":        "peers order.v1.OrderFeedService",
}

// without returns a copy of permissions that lack a subject.
func without(p *server.Permissions, subject string) *server.Permissions {
	other := func(from *server.SubjectPermission) *server.SubjectPermission {
		allow := slices.DeleteFunc(slices.Clone(from.Allow), func(s string) bool { return s == subject })
		allow = append(allow, "nothing") // an empty list would allow all
		return &server.SubjectPermission{Allow: allow, Deny: from.Deny}
	}
	return &server.Permissions{Publish: other(p.Publish), Subscribe: other(p.Subscribe), Response: p.Response}
}

// variants are the users of the shop, and for each subject that one of them may use a user that may
// not use it.
type variants struct {
	users []*server.User
	names map[string]string // of the users, by user and subject
}

func variantsOf(users []*server.User) variants {
	v := variants{users, make(map[string]string)}
	for _, u := range slices.Clone(users) {
		if u.Permissions == nil {
			continue
		}
		for _, subject := range slices.Concat(u.Permissions.Publish.Allow, u.Permissions.Subscribe.Allow) {
			name := u.Username + "_" + subject
			v.names[u.Username+" "+subject] = name
			v.users = append(v.users, &server.User{Username: name, Password: "x", Permissions: without(u.Permissions, subject)})
		}
	}
	return v
}

// TestShop runs the shop with exactly what the command prints, and then takes subjects away, one at
// a time: none of them may be taken away without something that breaks.
func TestShop(t *testing.T) {
	t.Parallel()
	options := configured(t, output(t, shopUsers+" "+shopFiles), usersConfig)
	v := variantsOf(options.Users)
	users := func(o *server.Options) { o.Users = v.users }
	s := newShop(t, users)
	s.spy = s.connect("spy").nc
	must(t, s.serveInventory("inventory"))
	must(t, s.serveOrders("order"))
	old := newShop(t, users)
	old.serveOld()

	calls := merged(inventoryProbes(), s.orderProbes(), s.probesOf(inventoryRoot), s.probesOf(orderRoot), s.probesOf(feedRoot), oneProbes())
	newMethods := map[string]probe{}
	for root := range callers {
		newMethods["instances "+root] = instancesProbe(root)
	}
	t.Run("all", func(t *testing.T) {
		s.run(t, s.connect("shopper"), calls)
		old.run(t, old.connect("shopper"), newMethods)
		tried := map[string]probe{}
		for _, name := range orderNeeds {
			if probe, ok := calls[name]; ok {
				tried[name] = probe
			}
		}
		s.run(t, s.connect("order"), tried)
		s.run(t, s.connect("tool"), merged(discoveryProbes(), ownProbes()))
	})
	t.Run("published order", func(t *testing.T) { must(t, s.publishOrder(testContext(t))) })
	for user, needs := range map[string]map[string]string{"shopper": shopperNeeds, "order": orderNeeds, "tool": toolNeeds} {
		i := slices.IndexFunc(options.Users, func(u *server.User) bool { return u.Username == user })
		checkNeeds(t, needs, options.Users[i].Permissions.Publish.Allow)
		for subject, what := range needs {
			t.Run(user+" without "+subject, func(t *testing.T) {
				where, probe := s, merged(calls, discoveryProbes(), ownProbes())[what]
				if probe == nil {
					where, probe = old, newMethods[what]
				}
				if err := probe(testContext(t), where.connect(v.names[user+" "+subject])); err == nil {
					t.Errorf("%s works all the same", what)
				}
			})
		}
	}
	t.Run("no inbox", func(t *testing.T) {
		for _, user := range []string{"shopper _INBOX_shopper.>", "tool _INBOX_tool.>", "order _INBOX.>"} {
			what := map[string]string{"s": "GetStock", "t": "list", "o": "Release"}[user[:1]]
			if err := merged(calls, discoveryProbes(), ownProbes())[what](testContext(t), s.connect(v.names[user])); err == nil {
				t.Errorf("%s works without it: %s", what, user)
			}
		}
	})
	t.Run("services", func(t *testing.T) {
		for user, serve := range map[string]func(string, ...rpc.ServerOption) error{"inventory": s.serveInventory, "order": s.serveOrders} {
			i := slices.IndexFunc(options.Users, func(u *server.User) bool { return u.Username == user })
			for _, subject := range options.Users[i].Permissions.Subscribe.Allow {
				if strings.HasPrefix(subject, "_INBOX") {
					continue // that of JetStream, without which the services cannot be made
				}
				err := serve(v.names[user+" "+subject])
				if name, _, _ := strings.Cut(subject, " "); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(strings.TrimSuffix(name, "*.>"), ".*")) {
					t.Errorf("%s starts without %s: %v", user, subject, err)
				}
			}
		}
	})
}

// checkNeeds makes sure that every subject in the output, but for those of JetStream, is in the
// table.
func checkNeeds(t *testing.T, needs map[string]string, allowed []string) {
	t.Helper()
	for _, subject := range allowed {
		switch {
		case strings.HasPrefix(subject, "$JS.") || strings.HasPrefix(subject, "$KV."):
		case needs[subject] == "":
			t.Errorf("nothing is known to break without %s", subject)
		}
	}
	for _, subject := range slices.Sorted(maps.Keys(needs)) {
		if !slices.Contains(allowed, subject) {
			t.Errorf("the command does not print %s", subject)
		}
	}
}
