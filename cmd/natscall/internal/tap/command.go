package tap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
)

// flags are those of `natscall tap`.
type flags struct {
	options
	source    tool.Source
	inboxes   []string
	noReplies bool
}

const long = `Show calls as they happen, decoded: requests, responses and errors, the messages in the frames of
streams, and batches item by item, with the messages as JSON by the schemas of the services.

What is tapped is a service, named as in natscall call, or a subject with or without wildcards;
without arguments all natscall services. The tap only listens: it joins no queue group, so it takes
no calls away.

Answers go to the inboxes of the callers, so the tap subscribes to _INBOX.> too (--inbox, if the
callers have another prefix) and shows what belongs to calls that it has seen. It does not see the
answers to callers in other accounts, nor those in inboxes that its user may not subscribe to, nor
those of calls that had begun before.

While a tap listens, NATS does not tell callers that nobody serves a subject ("no responders"): a
call of a service that is not there then ends after some seconds instead of at once, and natscall
does not know whether it has run. So do not leave a tap running.

Ctrl-C ends it with a summary. Lines with -> are from callers, those with <- from services.`

const examples = `  natscall tap order.v1.OrderService
  natscall tap OrderService InventoryService --method PlaceOrder --method Reserve
  natscall tap 'order.v1.>' --count 10 --json
  natscall tap --inbox _INBOX_shopper --raw --limit 200`

// Command is the command that taps calls.
func Command(t *tool.Tool) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:               "tap [flags] [SERVICE|SUBJECT...]",
		Short:             "Show calls as they happen, decoded",
		Long:              long,
		Example:           examples,
		Args:              tool.Args(0, -1),
		ValidArgsFunction: tool.CompleteAnyServices(t),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), t, args)
		},
	}
	set := cmd.Flags()
	set.SortFlags = false
	set.StringArrayVarP(&f.methods, "method", "m", nil, "show only calls of this `method`; may be repeated")
	set.IntVarP(&f.count, "count", "n", 0, "end after so many `messages`")
	set.IntVar(&f.limit, "limit", 2000, "cut the text of messages after so many `bytes`; 0 shows all")
	set.BoolVar(&f.control, "control", false, "show also what peers and tools say to each other: who is there, how much may be sent, what is the schema")
	set.BoolVar(&f.raw, "raw", false, "show the bytes, too")
	set.StringArrayVar(&f.inboxes, "inbox", []string{nats.InboxPrefix[:len(nats.InboxPrefix)-1]}, "`prefix` of the callers' inboxes; may be repeated")
	set.BoolVar(&f.noReplies, "no-replies", false, "do not subscribe to inboxes: show what callers send")
	f.source.Register(cmd)
	tool.JSONFlag(cmd, &f.json, "print a JSON object for each message, in one line")
	_ = cmd.RegisterFlagCompletionFunc("method", tool.CompleteMethods(t)) // the flag exists
	return cmd
}

func (f *flags) run(ctx context.Context, t *tool.Tool, args []string) error {
	if f.count < 0 || f.limit < 0 {
		return problem.Usage("--count and --limit may not be negative")
	}
	inboxes, err := f.inboxSubjects()
	if err != nil {
		return err
	}
	finder := &finder{tool: t, source: &f.source, catalog: NewCatalog()}
	tap := newTap(f.options, finder.catalog, t.Out, newLearner(finder.missing))
	s, err := t.Open(ctx,
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				tap.notice("the connection is lost, and messages may be missed: %v", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { tap.notice("connected again") }))
	if err != nil {
		return err
	}
	defer s.Close()
	finder.session = s
	subjects, err := finder.subjects(ctx, args)
	if err != nil {
		return err
	}
	for _, name := range f.methods {
		if there := finder.catalog.names(); len(there) > 0 && !finder.catalog.has(name) {
			finder.warn("no method is called %s yet; %s", name, discover.Suggest(name, there, "there are "))
		}
	}
	if err := tap.listenAll(ctx, s, t, subjects, inboxes); err != nil {
		return err
	}
	err = tap.run(ctx, t.Err)
	fmt.Fprintln(t.Err, tap.summary()) // stderr: there is nobody else to tell
	return err
}

// inboxSubjects returns the subjects of the callers' inboxes.
func (f *flags) inboxSubjects() ([]string, error) {
	if f.noReplies {
		return nil, nil
	}
	var out []string
	for _, prefix := range f.inboxes {
		subject := strings.TrimSuffix(strings.TrimSuffix(prefix, ">"), ".") + ".>"
		if err := checkPattern(subject); err != nil {
			return nil, problem.Usage("--inbox: %w", err)
		}
		out = append(out, subject)
	}
	return out, nil
}

// leastWait is how long NATS may take at least to confirm the subscriptions.
const leastWait = 2 * time.Second

// listenAll subscribes to the subjects of requests, and to the inboxes that are permitted.
func (t *Tap) listenAll(ctx context.Context, s *tool.Session, on *tool.Tool, subjects, inboxes []string) error {
	all, err := distinct(slices.Concat(subjects, inboxes))
	if err != nil {
		return problem.Usage("%w", err)
	}
	asked, cancel := context.WithTimeout(ctx, max(on.Connect.Timeout, leastWait))
	defer cancel()
	var listening []string
	for _, subject := range all {
		replies := !slices.Contains(subjects, subject)
		err := t.listen(asked, s.NC, subject, replies)
		switch {
		case errors.Is(err, errNotPermitted) && replies:
			fmt.Fprintf(on.Err, "NATS does not permit to subscribe to %s: the answers there are not shown\n", subject)
			continue
		case errors.Is(err, errNotPermitted):
			return refused(subject)
		case err != nil:
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		listening = append(listening, subject)
	}
	fmt.Fprintf(on.Err, "listening to %s; Ctrl-C ends it\n", strings.Join(listening, ", "))
	return nil
}

// finder finds what arguments mean, and the schemas of the services.
type finder struct {
	tool    *tool.Tool
	session *tool.Session
	source  *tool.Source
	files   *schema.Schema // nil if the schemas come from the services
	catalog *Catalog
}

// subjects returns the subjects to listen to.
func (f *finder) subjects(ctx context.Context, args []string) ([]string, error) {
	asked, cancel := f.session.Asking(ctx)
	defer cancel()
	if f.source.FromFiles() {
		files, err := f.source.Read()
		if err != nil {
			return nil, err
		}
		f.files = files
	}
	if len(args) == 0 {
		return f.all(asked)
	}
	var out []string
	for _, arg := range args {
		subjects, err := f.argument(asked, arg)
		if err != nil {
			return nil, err
		}
		out = append(out, subjects...)
	}
	return out, nil
}

// all returns the subjects of all services.
func (f *finder) all(ctx context.Context) (out []string, err error) {
	services, err := f.session.All(ctx)
	if err != nil {
		return nil, err
	}
	for _, service := range services {
		if service.IsNatscall() {
			f.add(ctx, &tool.Target{Service: service})
			out = append(out, subjectsOf(service)...)
		}
	}
	if len(out) == 0 {
		return nil, problem.Failure("name a subject to listen to, or check --server, --context and that services run", "no natscall service answers")
	}
	return out, nil
}

// argument returns the subjects that an argument means: those of a service, or one as it stands.
func (f *finder) argument(ctx context.Context, arg string) ([]string, error) {
	if !strings.ContainsAny(arg, "*>") {
		target, err := f.session.FindService(ctx, f.source, arg)
		if err == nil {
			f.add(ctx, target)
			return subjectsOf(target.Service), nil
		}
		if !strings.Contains(arg, ".") {
			return nil, err
		}
	}
	if err := checkPattern(arg); err != nil {
		return nil, problem.Usage("%w", err)
	}
	services, err := f.session.All(ctx)
	if err != nil {
		f.warn("no schemas: %v", err)
	}
	found := false
	for _, service := range services {
		if service.IsNatscall() && slices.ContainsFunc(subjectsOf(service), func(s string) bool { return overlap(s, arg) }) {
			f.add(ctx, &tool.Target{Service: service})
			found = true
		}
	}
	if !found {
		f.warn("no service that answers has the subject %s; `natscall ls` lists those that do", arg)
	}
	return []string{arg}, nil
}

// add adds a service, with its schema if it can be had.
func (f *finder) add(ctx context.Context, t *tool.Target) {
	if t.Service.IsNatscall() {
		f.load(ctx, t)
	}
	f.catalog.Add(t.Service, t.Schema)
}

// load gets the schema of a service, from files if these have it.
func (f *finder) load(ctx context.Context, t *tool.Target) {
	if f.files != nil {
		if _, err := f.files.Service(t.Service.Name); err == nil {
			t.Schema = f.files
		}
	}
	if err := f.session.Load(ctx, t, ""); err != nil {
		failed := problem.Of(err)
		f.warn("messages are shown without the names of fields: %s; %s", failed.Reason, failed.Next)
	}
	f.tool.Warn(false, t.Notice)
}

// missing returns the services whose roots are not known. It is used while nothing else uses the
// session.
func (f *finder) missing(ctx context.Context, known map[string]bool) (out []*tool.Target) {
	asked, cancel := f.session.Asking(ctx)
	defer cancel()
	services, err := f.session.Services.Services(asked, "")
	if err != nil {
		return nil // a service may be asked for once more
	}
	for _, service := range services {
		if service.IsNatscall() && !known[service.Root] {
			target := &tool.Target{Service: service}
			f.load(asked, target)
			out = append(out, target)
		}
	}
	return out
}

func (f *finder) warn(format string, args ...any) { fmt.Fprintf(f.tool.Err, format+"\n", args...) }

// subjectsOf returns the subjects of a service: all below its root, if it has one, and those that
// methods have of their own.
func subjectsOf(s *discover.Service) []string {
	var out []string
	if s.Root != "" {
		out = append(out, s.Root+".>")
	}
	for _, m := range s.Methods {
		if m.Subject != "" && !slices.ContainsFunc(out, func(known string) bool { return covers(known, m.Subject) }) {
			out = append(out, m.Subject)
		}
	}
	return out
}
