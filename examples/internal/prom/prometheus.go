package prom

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The limits of what takes time.
const (
	buildTimeout = 20 * time.Minute // of a hundred modules, on a small machine
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
	queryTimeout = 10 * time.Second
)

// Find returns the path of a Prometheus: the one on PATH, or the one that go has built of module,
// which is a package and its version. That is done once, and takes some minutes: say tells of it.
// Without a module only PATH counts.
func Find(ctx context.Context, module string, say func(string)) (string, error) {
	if path, err := exec.LookPath("prometheus"); err == nil || module == "" {
		return path, err
	}
	_, version, _ := strings.Cut(module, "@")
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "natscall", "prometheus-"+version)
	path := filepath.Join(dir, "prometheus")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	say(fmt.Sprintf("There is no prometheus on PATH. go builds %s, once: some minutes.", module))
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	// Without its service discoveries, which have the modules of all clouds.
	build := exec.CommandContext(ctx, "go", "install", "-tags", "remove_all_sd", module)
	build.Dir, build.Env, build.WaitDelay = os.TempDir(), append(os.Environ(), "GOBIN="+dir, "GOWORK=off", "GOFLAGS="), stopTimeout
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s: %w: %s", module, cmp.Or(ctx.Err(), err), lastLine(out))
	}
	return path, nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// Target is a process with metrics.
type Target struct{ Job, Instance, URL string }

// Prometheus is a running one.
type Prometheus struct {
	URL string

	dir  string
	log  bytes.Buffer // to be read when done has a value
	kill context.CancelFunc
	done chan error // has what the process ended with
}

// Start runs the Prometheus at path, which scrapes the targets each second, until Close. It returns
// when all have been scraped, which takes Prometheus five seconds. rules are alert rules as YAML.
func Start(ctx context.Context, path string, targets []Target, rules []byte) (_ *Prometheus, err error) {
	p := &Prometheus{done: make(chan error, 1)}
	if p.dir, err = os.MkdirTemp("", "natscall-prometheus-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := errors.Join(p.write("prometheus.yaml", config(targets)), p.write("alerts.yaml", rules)); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p.URL = "http://" + address
	running, kill := context.WithCancel(context.WithoutCancel(ctx)) // Close ends it
	p.kill = kill
	command := exec.CommandContext(running, path, "--config.file="+filepath.Join(p.dir, "prometheus.yaml"),
		"--storage.tsdb.path="+filepath.Join(p.dir, "data"), "--web.listen-address="+address, "--log.level=warn")
	command.Stdout, command.Stderr, command.WaitDelay = &p.log, &p.log, stopTimeout
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	if err := command.Start(); err != nil {
		kill()
		p.kill = nil
		return nil, err
	}
	go func() { p.done <- command.Wait() }()
	if err := p.ready(ctx); err != nil {
		return nil, err
	}
	return p, p.Scraped(ctx, len(targets))
}

func (p *Prometheus) write(name string, data []byte) error {
	return os.WriteFile(filepath.Join(p.dir, name), data, 0o600)
}

// config is JSON, which YAML includes.
func config(targets []Target) []byte {
	type object = map[string]any
	var jobs []object
	for _, t := range targets {
		u, err := url.Parse(t.URL)
		if err != nil {
			continue // a listener's address is a part of a URL
		}
		jobs = append(jobs, object{
			"job_name": t.Job + "-" + t.Instance, "metrics_path": u.Path,
			"static_configs": []object{{"targets": []string{u.Host}, "labels": object{"job": t.Job, "instance": t.Instance}}},
		})
	}
	out, _ := json.Marshal(object{ // of strings: cannot fail
		"global":         object{"scrape_interval": "1s", "evaluation_interval": "1s"},
		"rule_files":     []string{"alerts.yaml"},
		"scrape_configs": jobs,
	})
	return out
}

// freeAddress returns an address that nobody listens at. Somebody else may be faster, and
// Prometheus fails then, but hardly ever.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// poll calls try until it succeeds, with some time in between.
func (p *Prometheus) poll(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("prometheus %s: %w", what, err)
		case ended := <-p.done:
			p.done <- ended
			return fmt.Errorf("prometheus has ended: %w: %s", ended, lastLine(p.log.Bytes()))
		}
	}
}

// ready waits until it answers.
func (p *Prometheus) ready(ctx context.Context) error {
	return p.poll(ctx, "is not ready", func(ctx context.Context) error {
		body, err := get(ctx, p.URL+"/-/ready")
		if err != nil {
			return err
		}
		return body.Close()
	})
}

// Scraped waits until so many targets have been scraped, all of them after now.
func (p *Prometheus) Scraped(ctx context.Context, targets int) error {
	expression := fmt.Sprintf("count(timestamp(up == 1) > %f)", float64(time.Now().UnixMilli())/1000)
	return p.poll(ctx, "has not scraped all", func(ctx context.Context) error {
		samples, err := p.Query(ctx, expression)
		if err == nil && (len(samples) == 0 || int(samples[0].Value) < targets) {
			err = fmt.Errorf("of %d targets: %v", targets, samples)
		}
		return err
	})
}

// Close ends the process, and removes what it has stored.
func (p *Prometheus) Close() error {
	if p.kill != nil {
		p.kill()
		<-p.done // within stopTimeout, after which it is killed
	}
	return os.RemoveAll(p.dir)
}

// Sample is an element of the result of a query.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Query evaluates an expression now. Its value must be a vector, or a number.
func (p *Prometheus) Query(ctx context.Context, expression string) ([]Sample, error) {
	var data struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	}
	if err := p.api(ctx, "query?query="+url.QueryEscape(expression), &data); err != nil {
		return nil, fmt.Errorf("%s: %w", expression, err)
	}
	if data.Type != "vector" {
		return nil, fmt.Errorf("%s: the result is a %s", expression, data.Type)
	}
	var vector []struct {
		Metric map[string]string
		Value  [2]any // a time, and a number as text
	}
	if err := json.Unmarshal(data.Result, &vector); err != nil {
		return nil, err
	}
	samples := make([]Sample, 0, len(vector))
	for _, v := range vector {
		text, _ := v.Value[1].(string)
		number, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, err
		}
		samples = append(samples, Sample{v.Metric, number})
	}
	return samples, nil
}

// Alerts returns the states of the alert rules by name: inactive, pending or firing. It fails if
// one could not be evaluated.
func (p *Prometheus) Alerts(ctx context.Context) (map[string]string, error) {
	var data struct {
		Groups []struct {
			Rules []struct{ Name, State, Health, LastError string }
		}
	}
	if err := p.api(ctx, "rules?type=alert", &data); err != nil {
		return nil, err
	}
	states := map[string]string{}
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			if r.Health == "err" {
				return nil, fmt.Errorf("alert %s: %s", r.Name, r.LastError)
			}
			states[r.Name] = r.State
		}
	}
	return states, nil
}

// api asks for what the HTTP API has at path.
func (p *Prometheus) api(ctx context.Context, path string, data any) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	body, err := get(ctx, p.URL+"/api/v1/"+path)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(&struct{ Data any }{data})
}
