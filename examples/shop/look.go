package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/natscall/natscall/examples/internal/backoff"
	"github.com/natscall/natscall/examples/internal/natslog"
	"github.com/natscall/natscall/examples/internal/prom"
	"github.com/natscall/natscall/examples/internal/traces"
	"github.com/natscall/natscall/examples/observe"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
)

// soon is how often something is looked at that is about to be there.
var soon = backoff.Policy{First: 10 * time.Millisecond, Limit: 500 * time.Millisecond}

var placeOrder = strings.TrimPrefix(orderv1nats.OrderServicePlaceOrderMethod, "/")

// isRetried reports whether a call of Reserve in the trace was retried, and the order was picked
// by a stream then.
func isRetried(spans []traces.Span) bool {
	retried := slices.ContainsFunc(spans, func(s traces.Span) bool {
		return s.SpanKind() == trace.SpanKindClient && "/"+s.Name() == reserveMethod && len(s.Events()) > 0
	})
	return retried && slices.ContainsFunc(spans, func(s traces.Span) bool {
		return s.SpanKind() == trace.SpanKindClient && "/"+s.Name() == orderv1nats.OrderServicePickOrderMethod
	})
}

// showTrace prints the last trace with a retry and a stream.
func (o *observation) showTrace(ctx context.Context) (trace.TraceID, error) {
	id := o.shop.spans.Last(isRetried)
	if !id.IsValid() {
		return id, fmt.Errorf("no trace has a retry of %s", reserveMethod)
	}
	var root *traces.Node
	var err error
	for range soon.Attempts(ctx) { // servers end their spans after they have answered
		if root, err = o.shop.spans.Tree(id); err == nil && root.Answered() {
			break
		}
	}
	if err := cmp.Or(err, ctx.Err()); err != nil {
		return id, err
	}
	o.title("One trace through all processes: %v. \"*\" is a further attempt of a call,\n\"~\" a span of another trace, with a link to the span above it.", id)
	return id, root.Print(o.out, "   ")
}

func (o *observation) title(format string, args ...any) {
	fmt.Fprintf(o.out, "\n"+format+"\n", args...)
}

// column is a number for each method.
type column struct {
	title, expression string
	format            func(float64) string
}

// columns are those of the table of rates, over a window of time.
func columns(window string) []column {
	rate := func(metric, labels string) string {
		return fmt.Sprintf("sum by (rpc_method) (rate(%s%s[%s]))", metric, labels, window)
	}
	quantile := func(q string) string {
		return fmt.Sprintf("histogram_quantile(%s, sum by (le, rpc_method) (rate(rpc_server_call_duration_seconds_bucket[%s])))", q, window)
	}
	return []column{
		{"CALLS/S", rate("rpc_server_call_duration_seconds_count", ""), perSecond},
		{"ERRORS/S", rate("rpc_server_call_duration_seconds_count", `{rpc_response_status_code!="OK"}`), perSecond},
		{"P50", quantile("0.5"), milliseconds},
		{"P99", quantile("0.99"), milliseconds},
		{"RETRIES/S", rate("natscall_client_retries_total", ""), perSecond},
		{"HEDGES/S", rate("natscall_client_hedges_total", ""), perSecond},
	}
}

func perSecond(n float64) string    { return fmt.Sprintf("%.2f", n) }
func milliseconds(n float64) string { return fmt.Sprintf("%.2fms", n*1000) }

// showRates asks Prometheus.
func (o *observation) showRates(ctx context.Context) error {
	if err := o.prometheus.Scraped(ctx, len(o.targets())); err != nil {
		return err
	}
	window := fmt.Sprintf("%.0fs", math.Ceil(time.Since(o.began).Seconds()))
	all := columns(window)
	o.title("Rates and percentiles of the servers, and what clients sent again, as Prometheus computes them\nover %s. A hedge that loses is canceled, and an error on its server. CALLS/S and P99 are\n   %s\n   %s",
		window, all[0].expression, all[3].expression)
	rows := map[string][]string{}
	for i, c := range all {
		samples, err := o.prometheus.Query(ctx, c.expression)
		if err != nil {
			return err
		}
		for _, s := range samples {
			method := s.Labels["rpc_method"]
			if rows[method] == nil {
				rows[method] = slices.Repeat([]string{"-"}, len(all))
			}
			if !math.IsNaN(s.Value) { // of no calls there is no percentile
				rows[method][i] = c.format(s.Value)
			}
		}
	}
	if err := expect(rows[placeOrder] != nil && rows[placeOrder][0] != "-", "Prometheus knows no rate of %s", placeOrder); err != nil {
		return err
	}
	titles := make([]string, len(all))
	for i, c := range all {
		titles[i] = c.title
	}
	if err := o.table(titles, rows); err != nil {
		return err
	}
	return o.showRules(ctx, window)
}

// showRules evaluates what the dashboard and the alert rules ask for.
func (o *observation) showRules(ctx context.Context, window string) error {
	panels, err := observe.Panels()
	if err != nil {
		return err
	}
	expressions := 0
	for _, p := range panels {
		for _, e := range p.Expressions {
			expressions++
			if _, err := o.prometheus.Query(ctx, strings.ReplaceAll(e, observe.RateInterval, window)); err != nil {
				return fmt.Errorf("dashboard: %s: %w", p.Title, err)
			}
		}
	}
	alerts, err := o.prometheus.Alerts(ctx)
	if err != nil {
		return err
	}
	o.title("Prometheus evaluates the %d expressions of the dashboard's %d panels, and these alerts:", expressions, len(panels))
	for _, name := range slices.Sorted(maps.Keys(alerts)) {
		say(o.out, "%-28s %s", name, alerts[name])
	}
	return expect(len(alerts) > 0, "Prometheus has no alert rules")
}

// showCounts adds up what the processes serve, where there is no Prometheus.
func (o *observation) showCounts(ctx context.Context) error {
	counts := map[string][3]float64{} // by method
	for _, t := range o.targets() {
		metrics, err := prom.Scrape(ctx, t.URL)
		if err != nil {
			return err
		}
		for method := range metrics.Values("rpc_server_call_duration_seconds", "rpc_method") {
			of := map[string]string{"rpc_method": method}
			calls := metrics.Sum("rpc_server_call_duration_seconds", of)
			good := metrics.Sum("rpc_server_call_duration_seconds", map[string]string{"rpc_method": method, "rpc_response_status_code": "OK"})
			row := counts[method]
			counts[method] = [3]float64{row[0] + calls, row[1] + calls - good, row[2]}
		}
		for method := range metrics.Values("natscall_client_retries_total", "rpc_method") {
			row := counts[method]
			row[2] += metrics.Sum("natscall_client_retries_total", map[string]string{"rpc_method": method})
			counts[method] = row
		}
	}
	o.title("Rates since the load began, from the text of /metrics. Percentiles are left to Prometheus.")
	rows := map[string][]string{}
	for method, c := range counts {
		for _, n := range c {
			rows[method] = append(rows[method], perSecond(n/o.took.Seconds()))
		}
	}
	placed := counts[placeOrder][0]
	return errors.Join(o.table([]string{"CALLS/S", "ERRORS/S", "RETRIES/S"}, rows),
		expect(int64(placed) == o.placed.Load(), "there were %d orders, but the services have counted %v", o.placed.Load(), placed))
}

func (o *observation) table(titles []string, rows map[string][]string) error {
	table := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "   METHOD\t%s\n", strings.Join(titles, "\t"))
	for _, method := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintf(table, "   %s\t%s\n", method, strings.Join(rows[method], "\t"))
	}
	return table.Flush()
}

// showLogs prints what the processes have logged of a trace.
func (o *observation) showLogs(ctx context.Context, id trace.TraceID) error {
	js, err := jetstream.New(o.nc)
	if err != nil {
		return err
	}
	stream, err := js.Stream(ctx, natslog.Stream(""))
	if err != nil {
		return err
	}
	served := 0 // calls of this trace by servers, each of which logs one
	for _, s := range o.shop.spans.Spans(id) {
		if s.SpanKind() == trace.SpanKindServer {
			served++
		}
	}
	var records, all []natslog.Record
	for range soon.Attempts(ctx) { // they are sent in the background
		if all, err = natslog.Read(ctx, stream, o.began); err != nil {
			return err
		}
		records = slices.DeleteFunc(slices.Clone(all), func(r natslog.Record) bool { return r.TraceID != id.String() })
		if len(records) >= served {
			break
		}
	}
	o.title("The log of all processes is in the JetStream stream %s, with %d records since the load began.\nThose of this trace (nats stream view LOGS, nats sub 'logs.>'):", natslog.Stream(""), len(all))
	slices.SortStableFunc(records, func(a, b natslog.Record) int { return a.Time.Compare(b.Time) })
	for _, r := range records {
		say(o.out, "%s %-11s %-5s %s", r.Time.UTC().Format("15:04:05.000000"), r.Service+"/"+r.Instance, r.Level, r.Message+attributes(r))
	}
	return expect(len(records) >= served, "%d servers' calls have %d records", served, len(records))
}

// attributes are those that say what became of a call.
func attributes(r natslog.Record) (text string) {
	for _, key := range []string{"method", "code", "duration", "execution", "error", "call"} {
		value, ok := r.Attributes[key]
		if !ok {
			continue
		}
		if d, ok := value.(float64); ok && key == "duration" { // slog writes nanoseconds
			value = time.Duration(d).Round(10 * time.Microsecond)
		}
		text += fmt.Sprintf(" %s=%v", key, value)
	}
	return text
}
