// Package prom reads metrics as Prometheus does, and runs one.
package prom

import (
	"context"
	"fmt"
	"io"
	"net/http"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Families are metrics by name, as the text of /metrics has them.
type Families map[string]*dto.MetricFamily

// Scrape reads the metrics at a URL.
func Scrape(ctx context.Context, url string) (Families, error) {
	body, err := get(ctx, url)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return families, nil
}

// get returns the body of a response with status 200.
func get(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		res.Body.Close()
		return nil, fmt.Errorf("%s: %s: %s", req.URL.Path, res.Status, text)
	}
	return res.Body, nil
}

// client keeps no connections, so that nothing is left when a process or a test ends.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Sum adds up the series of a metric that have the labels: the values of counters and gauges, and
// how much histograms have counted.
func (f Families) Sum(name string, labels map[string]string) (sum float64) {
	for _, m := range f[name].GetMetric() {
		if !has(m, labels) {
			continue
		}
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return sum
}

// has reports whether a series has the labels.
func has(m *dto.Metric, labels map[string]string) bool {
	found := 0
	for _, l := range m.GetLabel() {
		if want, ok := labels[l.GetName()]; ok && l.GetValue() == want {
			found++
		}
	}
	return found == len(labels)
}

// Values are the values of a label of a metric.
func (f Families) Values(name, label string) map[string]bool {
	values := map[string]bool{}
	for _, m := range f[name].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == label {
				values[l.GetValue()] = true
			}
		}
	}
	return values
}
