// Package observe has what turns the metrics of natscall's services into pictures and alarms: a
// dashboard for Grafana, and alert rules for Prometheus. Its tests compare both with the metrics
// that services really have.
package observe

import (
	_ "embed"
	"encoding/json"
)

// Dashboard is the dashboard, as Grafana imports it.
//
//go:embed dashboard.json
var Dashboard []byte

// Alerts are the rules, as Prometheus reads them.
//
//go:embed alerts.yaml
var Alerts []byte

// RateInterval is what Grafana replaces in expressions by a fitting range of time.
const RateInterval = "$__rate_interval"

// Panel is a panel of the dashboard.
type Panel struct {
	Title       string
	Expressions []string // PromQL
}

// Panels returns the panels that show something.
func Panels() (panels []Panel, err error) {
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(Dashboard, &dashboard); err != nil {
		return nil, err
	}
	for _, p := range dashboard.Panels {
		panel := Panel{Title: p.Title}
		for _, t := range p.Targets {
			panel.Expressions = append(panel.Expressions, t.Expr)
		}
		if len(panel.Expressions) > 0 {
			panels = append(panels, panel)
		}
	}
	return panels, nil
}
