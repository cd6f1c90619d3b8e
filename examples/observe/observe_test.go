package observe_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/natscall/natscall/examples/observe"
)

// learnFromTraffic serves calls of all kinds, and returns which metrics that makes.
func learnFromTraffic(t *testing.T) known {
	w := newWorld(t)
	w.traffic(t.Context())
	w.hedge(t.Context())
	w.unanswered(t.Context())
	return learn(w.scrape())
}

// placeholder is a label in a text, in Grafana's and in Prometheus's way.
var placeholder = regexp.MustCompile(`{{\s*(?:\$labels\.)?(\w+)\s*}}`)

// checkText fails if a text names a label that the expression's result does not have.
func checkText(t *testing.T, text, expression string, labels []string) {
	t.Helper()
	if labels == nil {
		labels = targetLabels
	}
	for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(labels, m[1]) {
			t.Errorf("%q names the label %s, which the result of %s does not have", text, m[1], expression)
		}
	}
}

// TestNames compares the dashboard and the alert rules with the metrics that real services have.
func TestNames(t *testing.T) {
	k := learnFromTraffic(t)
	t.Run("dashboard", func(t *testing.T) { checkDashboard(t, k) })
	t.Run("alerts", func(t *testing.T) { checkAlerts(t, k) })
	t.Run("mistakes", func(t *testing.T) { checkMistakes(t, k) })
}

// labelValues is how Grafana gets the values of a variable.
var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

func checkDashboard(t *testing.T, k known) {
	var dashboard struct {
		Title, UID string
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
		Panels []struct {
			ID      int
			Title   string
			Type    string
			Targets []struct{ Expr, LegendFormat, RefID string }
		}
	}
	if err := json.Unmarshal(observe.Dashboard, &dashboard); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	shown := ""
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d, %q, is not unique or shows nothing", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			labels, err := k.check(target.Expr)
			if err != nil {
				t.Errorf("%s: %v", p.Title, err)
			}
			checkText(t, target.LegendFormat, target.Expr, labels)
			shown += target.Expr + "\n"
		}
	}
	variables := []string{"__rate_interval"}
	for _, v := range dashboard.Templating.List {
		variables = append(variables, v.Name)
		if v.Type != "query" {
			continue
		}
		m := labelValues.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Errorf("variable %s is %s", v.Name, v.Definition)
			continue
		}
		if _, err := k.check("sum by (" + m[2] + ") (" + m[1] + ")"); err != nil {
			t.Errorf("variable %s: %v", v.Name, err)
		}
	}
	for _, m := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(shown, -1) {
		if !slices.Contains(variables, m[1]) {
			t.Errorf("there is no variable %s", m[1])
		}
	}
}

func checkAlerts(t *testing.T, k known) {
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(observe.Alerts)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, group := range rules.Groups {
		for _, r := range group.Rules {
			labels, err := k.check(r.Expr)
			if err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
			if names[r.Alert] || r.Alert == "" || r.For == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" {
				t.Errorf("%+v is not unique, or incomplete", r)
			}
			names[r.Alert] = true
			for _, text := range r.Annotations {
				checkText(t, text, r.Expr, labels)
			}
		}
	}
	checkGuide(t, k, names)
}

// checkGuide compares the guide: its expressions, and its list of alerts.
func checkGuide(t *testing.T, k known, names map[string]bool) {
	t.Helper()
	guide, err := os.ReadFile("../../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```promql\n(.*?)^```$").FindAllStringSubmatch(string(guide), -1)
	for _, b := range blocks {
		for expression := range strings.SplitSeq(b[1], "\n\n") {
			if _, err := k.check(expression); err != nil {
				t.Errorf("guide: %v", err)
			}
		}
	}
	listed := regexp.MustCompile("(?m)^\\| `([A-Z][A-Za-z]+)` \\|").FindAllStringSubmatch(string(guide), -1)
	for _, m := range listed {
		if !names[m[1]] {
			t.Errorf("there is no alert %s, which the guide has", m[1])
		}
	}
	if len(listed) != len(names) || len(names) == 0 || len(blocks) == 0 {
		t.Errorf("there are %d alerts, and in the guide %d, and %d blocks of PromQL", len(names), len(listed), len(blocks))
	}
}

// checkMistakes: what is not there is found.
func checkMistakes(t *testing.T, k known) {
	for expression, want := range map[string]string{
		`sum(rate(natscall_client_retrys_total[5m]))`:                                                      "no metric natscall_client_retrys_total",
		`sum by (method) (rate(natscall_client_retries_total[5m]))`:                                        "no label method",
		`natscall_client_retries_total{method="x"}`:                                                        "no label method",
		`rate(rpc_server_call_duration_seconds_count{rpc_response_status_code="not_found"}[5m])`:           "is \"not_found\"",
		`rate(rpc_server_call_duration_seconds_count{rpc_response_status_code!~"OKAY|FINE"}[5m])`:          "OKAY|FINE",
		`rate(natscall_server_queued_calls[5m])`:                                                           "is no counter",
		`histogram_quantile(0.5, sum by (rpc_method) (rate(rpc_server_call_duration_seconds_bucket[5m])))`: "without le",
		`sum by (job) (up) / sum by (instance) (up)`:                                                       "are compared with",
		`increase(natscall_client_retries_total[5m])`:                                                      "not known",
		`sum(up`:    `")" should`,
		`sum(up))`:  "is left",
		`sum(up) ?`: "no token",
		`1 + 1`:     "no metric in it",
	} {
		if _, err := k.check(expression); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", expression, err, want)
		}
	}
	if labels, err := k.check(`sum by (le, job) (rate(rpc_client_call_duration_seconds_bucket{le="+Inf"}[1m])) > 2`); err != nil || len(labels) != 2 {
		t.Errorf("labels %v, error %v", labels, err)
	}
}
