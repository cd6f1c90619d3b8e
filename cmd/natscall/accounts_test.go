package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/natscall/natscall/rpc"
)

// accountsConfig has the services in one account and their clients in another.
const accountsConfig = `accounts: {
	SVC: {
		jetstream: enabled
		exports: $SVC_exports
		users: [
			{user: inventory, password: x, permissions: $inventory}
			{user: order, password: x, permissions: $order}
			{user: spy, password: x}
		]
	}
	APP: {
		imports: $APP_imports
		users: [{user: shopper, password: x, permissions: $shopper}, {user: tool, password: x, permissions: $tool}]
	}
}`

const shopCalls = "--call inventory.v1.InventoryService --call order.v1.OrderService --call order.v1.OrderFeedService --discover"

// acrossAccounts makes every call, and discovery, from one account to another. Unary calls have
// several answers, as in batches, only where the exports say so.
func acrossAccounts(t *testing.T, open func(t *testing.T) *shop, prefix string, unaryStreams bool) {
	s := open(t)
	s.spy = s.connect("spy").nc
	must(t, s.serveInventory("inventory"))
	must(t, s.serveOrders("order"))
	probes := merged(inventoryProbes(), s.orderProbes(), s.probesOf(inventoryRoot), s.probesOf(orderRoot), s.probesOf(feedRoot))
	opts := []rpc.ClientOption{rpc.WithSubjectPrefix(prefix)}
	if unaryStreams {
		opts = append(opts, rpc.WithBatching(16<<10))
		probes["many at once"] = manyAtOnce(probes["GetStock"])
	} else {
		for root := range callers {
			delete(probes, "large "+root)
		}
	}
	s.run(t, s.connect("shopper", opts...), probes)
	s.run(t, s.connect("tool"), discoveryProbes())
	old := open(t)
	old.serveOld()
	for root := range callers {
		old.run(t, old.connect("shopper", opts...), map[string]probe{root: instancesProbe(root)})
	}
}

// manyAtOnce makes calls that share NATS messages.
func manyAtOnce(call probe) probe {
	return func(ctx context.Context, p *peer) error {
		errs := make(chan error, 256)
		for range cap(errs) {
			go func() { errs <- call(ctx, p) }()
		}
		var all error
		for range cap(errs) {
			all = errors.Join(all, <-errs)
		}
		return all
	}
}

// TestAccounts runs the shop with the exports and imports that the command prints, and with users
// that may do what it prints and nothing else.
func TestAccounts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, prefix string
		unaryStreams bool
	}{
		{"same subjects", "", false},
		{"renamed", "ext.shop", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			args, users := "--accounts "+shopCalls, output(t, shopUsers+" "+shopFiles)
			if test.prefix != "" { // the clients see other subjects than the services
				args += " --import-prefix " + test.prefix
				clients := output(t, "--prefix "+test.prefix+" "+shopUsers+" "+shopFiles)
				users = users[:strings.Index(users, "# shopper")] + clients[strings.Index(clients, "# shopper"):]
			}
			if test.unaryStreams {
				args += " --unary-streams"
			}
			printed := users + "\n" + output(t, args+" "+shopFiles)
			acrossAccounts(t, func(t *testing.T) *shop {
				return newShop(t, func(o *server.Options) {
					configured := configured(t, printed, accountsConfig)
					o.Accounts, o.Users = configured.Accounts, configured.Users
				})
			}, test.prefix, test.unaryStreams)
		})
	}
}

// TestMissingImport takes one import away at a time, each in an account of its own: none may be
// taken away without something that breaks.
func TestMissingImport(t *testing.T) {
	t.Parallel()
	needs := maps.Clone(shopperNeeds)
	maps.Copy(needs, toolNeeds)
	needs[feedRoot+"._i.*.*"] = "large response" // large requests are for --unary-streams
	needs[inventoryRoot+"._i.*.*"], needs[orderRoot+"._i.*.*"] = "WatchStock", "PickOrder"
	printed := output(t, shopUsers+" "+shopFiles) + output(t, "--accounts "+shopCalls+" "+shopFiles)
	printed = strings.ReplaceAll(printed, ", accounts: [APP]", "") // there are many
	exports, imports, _ := strings.Cut(printed, "APP_imports = [\n")
	lines := slices.Collect(strings.Lines(strings.TrimSuffix(imports, "]\n")))
	config := "SVC: {jetstream: enabled, exports: $SVC_exports, users: [{user: inventory, password: x}, {user: order, password: x}, {user: spy, password: x}]}\n"
	var missing []string
	for i, line := range lines {
		_, subject, _ := strings.Cut(line, "subject: \"")
		subject, _, _ = strings.Cut(subject, "\"")
		missing = append(missing, subject)
		exports += fmt.Sprintf("APP%d_imports = [\n%s]\n", i, strings.Join(slices.Delete(slices.Clone(lines), i, i+1), ""))
		config += fmt.Sprintf("APP%d: {imports: $APP%d_imports, users: [{user: shopper_%d, password: x}]}\n", i, i, i)
	}
	// The permissions of users are variables that this configuration does not use.
	exports = exports[strings.Index(exports, "SVC_exports"):]
	options := func(o *server.Options) {
		configured := configured(t, exports, "accounts: {"+config+"}")
		o.Accounts, o.Users = configured.Accounts, configured.Users
	}
	s, old := newShop(t, options), newShop(t, options)
	s.spy = s.connect("spy").nc
	must(t, s.serveInventory("inventory"))
	must(t, s.serveOrders("order"))
	old.serveOld()
	probes := merged(inventoryProbes(), s.orderProbes(), discoveryProbes(), s.probesOf(inventoryRoot), s.probesOf(orderRoot), s.probesOf(feedRoot), oneProbes(), ownProbes())
	checkNeeds(t, needs, missing)
	var trying sync.WaitGroup
	for i, subject := range missing {
		what, where := needs[subject], s
		probe := probes[what]
		if probe == nil {
			where, probe = old, instancesProbe(strings.TrimPrefix(what, "instances "))
		}
		p := where.connect(fmt.Sprint("shopper_", i))
		trying.Go(func() {
			// Nothing says that a message goes nowhere, so this is how long some of them wait.
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if err := probe(ctx, p); err == nil {
				t.Errorf("%s works without the import of %s", what, subject)
			}
		})
	}
	trying.Wait()
}

// operator is a NATS server in operator mode, with accounts and users made of what the command
// prints.
type operator struct {
	*testing.T
	key      nkeys.KeyPair
	resolver *server.MemAccResolver
	accounts map[string]nkeys.KeyPair
	users    map[string]jwt.UserPermissionLimits
}

func newKey(t *testing.T, create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
	t.Helper()
	key, err := create()
	must(t, err)
	public, err := key.PublicKey()
	must(t, err)
	return key, public
}

func valid(t *testing.T, claims interface{ Validate(*jwt.ValidationResults) }) {
	t.Helper()
	var results jwt.ValidationResults
	claims.Validate(&results)
	for _, issue := range results.Issues {
		t.Errorf("%s", issue.Description)
	}
}

// account makes an account.
func (o *operator) account(name string, edit func(*jwt.AccountClaims)) string {
	o.Helper()
	key, public := newKey(o.T, nkeys.CreateAccount)
	claims := jwt.NewAccountClaims(public)
	claims.Name = name
	edit(claims)
	valid(o.T, claims)
	token, err := claims.Encode(o.key)
	must(o.T, err)
	must(o.T, o.resolver.Store(public, token))
	o.accounts[name] = key
	return public
}

// login returns the credentials of a user: of the shop's, with what the command has printed.
func (o *operator) login(user string) []nats.Option {
	o.Helper()
	key, public := newKey(o.T, nkeys.CreateUser)
	claims := jwt.NewUserClaims(public)
	if limits, ok := o.users[user]; ok {
		claims.UserPermissionLimits = limits
	}
	valid(o.T, claims)
	account := "SVC"
	if user == "shopper" || user == "tool" {
		account = "APP"
	}
	token, err := claims.Encode(o.accounts[account])
	must(o.T, err)
	seed, err := key.Seed()
	must(o.T, err)
	return []nats.Option{nats.UserJWTAndSeed(token, string(seed)), nats.CustomInboxPrefix(inboxOf(user))}
}

// TestClaims runs the shop on a NATS server in operator mode, where permissions, exports and
// imports are the JWT claims that the command prints.
func TestClaims(t *testing.T) {
	t.Parallel()
	acrossAccounts(t, func(t *testing.T) *shop {
		o := &operator{T: t, resolver: new(server.MemAccResolver), accounts: map[string]nkeys.KeyPair{}}
		decode(t, output(t, "--json "+shopUsers+" "+shopFiles), &o.users)
		var public string
		if o.key, public = newKey(t, nkeys.CreateOperator); public == "" {
			t.Fatal("no operator")
		}
		system := o.account("SYS", func(*jwt.AccountClaims) {})
		var crossing struct {
			Exports jwt.Exports
			Imports jwt.Imports
		}
		from := o.account("SVC", func(c *jwt.AccountClaims) {
			decode(t, output(t, "--accounts --json "+shopCalls+" --from "+c.Subject+" "+shopFiles), &crossing)
			c.Exports = crossing.Exports
			c.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit}
		})
		o.account("APP", func(c *jwt.AccountClaims) { c.Imports = crossing.Imports })
		if crossing.Imports[0].Account != from {
			t.Errorf("imports from %s, want %s", crossing.Imports[0].Account, from)
		}
		trusted := jwt.NewOperatorClaims(public)
		trusted.SystemAccount = system
		s := newShop(t, func(options *server.Options) {
			options.TrustedOperators = []*jwt.OperatorClaims{trusted}
			options.AccountResolver, options.SystemAccount = o.resolver, system
		})
		s.login = o.login
		return s
	}, "", false)
}

// decode reads JSON that has no fields which v does not know.
func decode(t *testing.T, text string, v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	must(t, d.Decode(v))
}
