// Package kubernetes_test holds the manifest against the programs that it starts.
package kubernetes_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.yaml.in/yaml/v3"

	"github.com/natscall/natscall/examples/internal/app"
	"github.com/natscall/natscall/examples/internal/ports"
	"github.com/natscall/natscall/examples/order"
	"github.com/natscall/natscall/rpc/rpctest"
)

// deployment is what the tests know of the manifest. A field that they do not know fails them, so
// that a misspelt one is found.
type deployment struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   metadata
	Spec       struct {
		Replicas int
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		Strategy struct {
			RollingUpdate struct {
				MaxSurge       int `yaml:"maxSurge"`
				MaxUnavailable int `yaml:"maxUnavailable"`
			} `yaml:"rollingUpdate"`
		}
		Template struct {
			Metadata metadata
			Spec     pod
		}
	}
}

type metadata struct {
	Name   string
	Labels map[string]string
}

type pod struct {
	Grace           int            `yaml:"terminationGracePeriodSeconds"`
	Token           bool           `yaml:"automountServiceAccountToken"`
	SecurityContext map[string]any `yaml:"securityContext"`
	Containers      []container
}

type container struct {
	Name, Image     string
	Args            []string
	Env             []struct{ Name, Value string }
	Ports           []port
	Liveness        probe `yaml:"livenessProbe"`
	Readiness       probe `yaml:"readinessProbe"`
	Lifecycle       lifecycle
	Resources       struct{ Requests, Limits map[string]string }
	SecurityContext map[string]any `yaml:"securityContext"`
}

type port struct {
	Name string
	Port int `yaml:"containerPort"`
}

type probe struct {
	Get       struct{ Path, Port string } `yaml:"httpGet"`
	Period    int                         `yaml:"periodSeconds"`
	Threshold int                         `yaml:"failureThreshold"`
}

type lifecycle struct {
	PreStop struct {
		Sleep struct{ Seconds int }
	} `yaml:"preStop"`
}

func readManifest(t *testing.T) []deployment {
	t.Helper()
	file, err := os.Open("shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	var all []deployment
	for {
		var d deployment
		err := decoder.Decode(&d)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	if len(all) != 2 {
		t.Fatalf("the manifest has %d deployments, want those of order and inventory", len(all))
	}
	return all
}

// flags are the settings that arguments of the container make.
func (c container) flags(t *testing.T) (health, metrics string, grace time.Duration) {
	t.Helper()
	set := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	set.StringVar(&health, "health", "", "")
	set.StringVar(&metrics, "metrics", "", "")
	set.DurationVar(&grace, "grace", 0, "")
	set.Int("replicas", 0, "")
	if err := set.Parse(c.Args); err != nil {
		t.Fatal(err)
	}
	return health, metrics, grace
}

func TestManifest(t *testing.T) {
	for _, d := range readManifest(t) {
		t.Run(d.Metadata.Name, func(t *testing.T) {
			if d.APIVersion != "apps/v1" || d.Kind != "Deployment" || len(d.Spec.Template.Spec.Containers) != 1 {
				t.Fatalf("it is %s %s", d.APIVersion, d.Kind)
			}
			for key, value := range d.Spec.Selector.MatchLabels {
				if d.Spec.Template.Metadata.Labels[key] != value {
					t.Errorf("the pods have no label %s: %s, by which they are found", key, value)
				}
			}
			if update := d.Spec.Strategy.RollingUpdate; d.Spec.Replicas < 2 || update.MaxUnavailable != 0 || update.MaxSurge < 1 {
				t.Errorf("a rollout stops instances before others have taken their place: %d, %+v", d.Spec.Replicas, update)
			}
			c := d.Spec.Template.Spec.Containers[0]
			checkPorts(t, c)
			checkGrace(t, d.Spec.Template.Spec, c)
			const path = "ko://github.com/natscall/natscall/examples/"
			if program, ok := strings.CutPrefix(c.Image, path); !ok || !isDir(filepath.Join("..", program)) {
				t.Errorf("the image %s is none of a program of the examples", c.Image)
			}
		})
	}
}

// checkPorts compares the ports with those at which the arguments make the program listen.
func checkPorts(t *testing.T, c container) {
	t.Helper()
	health, metrics, _ := c.flags(t)
	listens := map[string]string{"health": health, "metrics": metrics}
	for _, p := range c.Ports {
		if want := fmt.Sprintf(":%d", p.Port); listens[p.Name] != want {
			t.Errorf("port %s is %d, and the program listens at %q", p.Name, p.Port, listens[p.Name])
		}
		delete(listens, p.Name)
	}
	if len(listens) > 0 {
		t.Errorf("the program also listens at %v", listens)
	}
	for _, p := range []probe{c.Liveness, c.Readiness} {
		if p.Get.Port != "health" || p.Period <= 0 || p.Threshold <= 0 {
			t.Errorf("probe %+v: want the port health, a period and a threshold", p)
		}
	}
}

// checkGrace computes how long the program may take to end, as the comment of the manifest does.
func checkGrace(t *testing.T, p pod, c container) {
	t.Helper()
	_, _, grace := c.flags(t)
	longest := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds)*time.Second + grace + 2*app.ShowTimeout
	if c.Name == "order" {
		longest += order.DefaultLease // the feed
	}
	if given := time.Duration(p.Grace) * time.Second; given <= longest || grace == 0 || c.Lifecycle.PreStop.Sleep.Seconds == 0 {
		t.Errorf("Kubernetes gives it %v to end, and it may take %v", given, longest)
	}
}

func isDir(name string) bool {
	info, err := os.Stat(filepath.FromSlash(name))
	return err == nil && info.IsDir()
}

// TestPods starts the programs as the manifest says, but for the addresses, and before there is
// NATS: they are alive, become ready when it has come, and end by SIGTERM.
func TestPods(t *testing.T) {
	for _, d := range readManifest(t) {
		t.Run(d.Metadata.Name, func(t *testing.T) {
			c := d.Spec.Template.Spec.Containers[0]
			port := ports.Free(t, 1)[0]
			p := startPod(t, c, fmt.Sprintf("nats://127.0.0.1:%d", port))
			p.await(t, c.Liveness.Get.Path)
			if status, body := p.ask(t, c.Readiness.Get.Path); status != http.StatusServiceUnavailable {
				t.Errorf("without NATS %s answers %d: %s", c.Readiness.Get.Path, status, body)
			}
			rpctest.NewServer(t, rpctest.WithJetStream(), rpctest.WithServerOptions(func(o *server.Options) { o.Port = port }))
			p.await(t, c.Readiness.Get.Path)
			if status, body := p.ask(t, c.Liveness.Get.Path); status != http.StatusOK {
				t.Errorf("%s answers %d: %s", c.Liveness.Get.Path, status, body)
			}
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := p.cmd.Wait(); err != nil {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

// process is the program of a container.
type process struct {
	cmd *exec.Cmd
	url string // of its health
}

func startPod(t *testing.T, c container, nats string) *process {
	t.Helper()
	program := filepath.Join(t.TempDir(), c.Name)
	folder := "../" + strings.TrimPrefix(c.Image, "ko://github.com/natscall/natscall/examples/")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, folder).CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", folder, err, out)
	}
	args := append(c.Args, "-health=127.0.0.1:0", "-metrics=127.0.0.1:0", "-replicas=1")
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = os.Environ()
	for _, variable := range c.Env {
		if variable.Name == "NATS_URL" {
			cmd.Env = append(cmd.Env, "NATS_URL="+nats)
		}
	}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd}
	lines := bufio.NewScanner(log)
	var said bytes.Buffer
	for p.url == "" && lines.Scan() {
		fmt.Fprintln(&said, lines.Text())
		if _, url, ok := strings.Cut(lines.Text(), `msg="health is served" url=`); ok {
			p.url = url
		}
	}
	if p.url == "" {
		t.Fatalf("it does not serve its health: %v\n%s", cmd.Wait(), &said)
	}
	go func() { _, _ = io.Copy(io.Discard, log) }() // until it ends
	return p
}

// patience is how long a program may take to become ready on a machine that is busy.
const patience = time.Minute

// await asks, as Kubernetes does, until the answer is 200.
func (p *process) await(t *testing.T, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	period := time.NewTicker(20 * time.Millisecond)
	defer period.Stop()
	for {
		status, body := p.ask(t, path)
		switch status {
		case http.StatusOK:
			return
		case http.StatusServiceUnavailable:
		default:
			t.Fatalf("%s answers %d: %s", path, status, body)
		}
		select {
		case <-period.C:
		case <-ctx.Done():
			t.Fatalf("%s answers %d: %s", path, status, body)
		}
	}
}

func (p *process) ask(t *testing.T, path string) (status int, body string) {
	t.Helper()
	res, err := http.Get(p.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}
