// Package permissions prints what NATS has to permit to services and to those who call them.
package permissions

import (
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/schema"
)

// permissionFlags are the flags of `natscall permissions`.
type permissionFlags struct {
	folders  []string
	prefix   string
	json     bool
	accounts bool
	border   borders
	setting  setting
	users    []*user // the first is that of the flags before the first --user
}

const long = `Print what NATS has to permit to services, their clients and tools, from .proto files or descriptor
sets: as nats-server configuration, or with --json as JWT claims.

Each --user begins a user, and the flags behind it say what this one does. Without users it prints
one of each kind. What a service or client does besides, such as JetStream, is added with
--allow-pub and --allow-sub.`

const examples = `  # a service, and a client of one of its methods
  natscall permissions -I proto \
    --user orders --serve order.v1.OrderService \
    --user shop --inbox _INBOX_shop --call order.v1.OrderService/PlaceOrder \
    proto/order/v1/order.proto

  # exports and imports of two accounts
  natscall permissions --accounts --from SVC --to APP --call order.v1.OrderService -I proto proto/order/v1/order.proto`

// Command is the command that prints what NATS has to permit. What a method needs is known to
// package rpc alone (rpc.Subjects); this command says who needs what of it.
func Command() *cobra.Command {
	p := &permissionFlags{users: []*user{{name: "user", inbox: strings.TrimSuffix(nats.InboxPrefix, ".")}}}
	cmd := &cobra.Command{
		Use:     "permissions [flags] FILE...",
		Short:   "Print what NATS has to permit, from .proto files or descriptor sets",
		Long:    long,
		Example: examples,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, files []string) error {
			return p.print(files, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false // in the order of what they are about
	p.defineUser(flags)
	flags.FuncP("proto-path", "I", "`folder` with the .proto files and what they import; may be repeated (default .)", appendTo(&p.folders, nil))
	flags.StringVar(&p.prefix, "prefix", "", "`subject` before all others, as given to rpc.WithSubjectPrefix")
	flags.BoolVar(&p.json, "json", false, "print the JSON of JWT claims instead of nats-server configuration")
	flags.BoolVar(&p.setting.instances, "instances", false, "allow calls to all instances (Gather), and one-way messages to one")
	flags.DurationVar(&p.setting.within, "within", 2*time.Minute, "`time` in which a request is to be answered; a stream renews it with each heartbeat")
	p.defineBorder(flags)
	return cmd
}

// defineBorder defines the flags that are about two accounts.
func (p *permissionFlags) defineBorder(flags *pflag.FlagSet) {
	flags.BoolVar(&p.accounts, "accounts", false, "print exports and imports of accounts instead of permissions, for what --call and --discover name")
	flags.StringVar(&p.border.from, "from", "SVC", "with --accounts: the `account` of the services; with --json its public key")
	flags.StringVar(&p.border.to, "to", "APP", "with --accounts: the `account` of the clients")
	flags.Func("import-prefix", "with --accounts: the `prefix` of the clients, if it is another one than that of the services", func(v string) error {
		p.border.local = v
		return checkPattern(v)
	})
	flags.BoolVar(&p.border.unary, "unary-streams", false, "with --accounts: let unary calls have several answers, for rpc.WithBatching and requests over max_payload; NATS then keeps something for each call for minutes")
}

// defineUser defines the flags that are about the user of the --user before them.
func (p *permissionFlags) defineUser(flags *pflag.FlagSet) {
	last := func() *user { return p.users[len(p.users)-1] }
	flags.Func("user", "begin a user with this `name`; the flags about users that follow are about this one", func(name string) error {
		p.users = append(p.users, &user{name: name, inbox: p.users[0].inbox})
		return checkName(name)
	})
	flags.Func("serve", "`service` that the user serves; may be repeated", func(v string) error {
		return appendTo(&last().serve, nil)(v)
	})
	flags.Func("call", "`service` that the user calls, or one method of it as in order.v1.OrderService/GetOrder; may be repeated", func(v string) error {
		return appendTo(&last().call, nil)(v)
	})
	flags.BoolFunc("discover", "the user is a tool that finds the services, such as nats micro", func(string) error {
		last().discover = true
		return nil
	})
	flags.Func("inbox", "`prefix` of the user's inboxes, as given to nats.CustomInboxPrefix (default _INBOX)", func(v string) error {
		last().inbox = v
		return checkInbox(v)
	})
	flags.Func("queue", "`group` of the services that the user serves, as given to rpc.WithQueueGroup", func(v string) error {
		last().queue = v
		return checkPattern(v)
	})
	flags.Func("allow-pub", "another `subject` that the user may publish to; may be repeated", func(v string) error {
		return appendTo(&last().allowPub, checkPattern)(v)
	})
	flags.Func("allow-sub", "another `subject` that the user may subscribe to; may be repeated", func(v string) error {
		return appendTo(&last().allowSub, checkSubscription)(v)
	})
}

// appendTo returns a flag's function that adds its value to a list.
func appendTo(list *[]string, check func(string) error) func(string) error {
	return func(v string) error {
		*list = append(*list, v)
		if check == nil {
			return nil
		}
		return check(v)
	}
}

// print prints what the flags ask for.
func (p *permissionFlags) print(files []string, w io.Writer) error {
	if len(files) == 0 {
		return problem.Usage("no files are given: .proto files or descriptor sets")
	}
	if p.setting.within <= 0 {
		return problem.Usage("--within %v: it must be more than nothing, as in 2m", p.setting.within)
	}
	if len(p.folders) == 0 {
		p.folders = []string{"."}
	}
	described, err := schema.Services(files, p.folders)
	if err != nil {
		return err
	}
	services, err := describe(described, p.prefix)
	if err != nil {
		return err
	}
	if p.accounts {
		return p.printAccounts(services, w)
	}
	return p.printPermissions(services, w)
}

func (p *permissionFlags) printPermissions(services []service, w io.Writer) error {
	users := p.users
	if !users[0].isUsed() {
		users = users[1:]
	}
	if len(users) == 0 {
		users = p.everyKind(services)
	}
	seen := make(map[string]bool)
	allowed := make([]permissions, len(users))
	for i, u := range users {
		if !u.isUsed() || seen[u.name] {
			return problem.Usage("--user %s: it does nothing, or is there twice", u.name)
		}
		seen[u.name] = true
		u.setting = p.setting
		var err error
		if allowed[i], err = u.permissions(services); err != nil {
			return err
		}
	}
	if p.json {
		return printUserClaims(w, users, allowed)
	}
	return printUsers(w, users, allowed)
}

// everyKind returns a user of each kind, for all services.
func (p *permissionFlags) everyKind(services []service) []*user {
	all, inbox := namesOf(services), p.users[0].inbox
	return []*user{
		{name: "service", serve: all, queue: p.users[0].queue},
		{name: "client", call: all, inbox: inbox},
		{name: "tool", discover: true, inbox: inbox},
	}
}

func (p *permissionFlags) printAccounts(services []service, w io.Writer) error {
	u := p.users[0]
	if len(p.users) > 1 || len(u.serve) > 0 {
		return problem.Usage("--accounts is about what is called: it goes with --call and --discover, not with --user and --serve")
	}
	if !u.isUsed() {
		u.call = namesOf(services)
	}
	called, err := pick(services, u.call)
	if err != nil {
		return err
	}
	b := p.border
	b.prefix, b.instances = p.prefix, p.setting.instances
	if b.local == "" {
		b.local = b.prefix
	}
	var discovered []service
	if u.discover {
		discovered = services
	}
	all := b.crossings(called, discovered)
	if p.json {
		if !nkeys.IsValidPublicAccountKey(b.from) {
			return problem.Usage("--from %s: with --json it is the public key of the account of the services", b.from)
		}
		return printAccountClaims(w, b, all)
	}
	for flag, name := range map[string]string{"from": b.from, "to": b.to} {
		if err := checkName(name); err != nil {
			return problem.Usage("--%s %q: %w", flag, name, err)
		}
	}
	return printBorders(w, b, all)
}
