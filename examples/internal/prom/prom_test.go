package prom

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeMode is the environment variable that makes this test's binary a Prometheus, as far as the
// package needs one.
const fakeMode = "NATSCALL_FAKE_PROMETHEUS"

func TestMain(m *testing.M) {
	if mode := os.Getenv(fakeMode); mode != "" {
		os.Exit(fake(mode))
	}
	os.Exit(m.Run())
}

// fake serves until it is interrupted. It returns the exit code.
func fake(mode string) int {
	if mode == "fails" {
		fmt.Fprintln(os.Stderr, "starting\nthe configuration is wrong")
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var address string
	for _, arg := range os.Args {
		if a, ok := strings.CutPrefix(arg, "--web.listen-address="); ok {
			address = a
		}
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	server := &http.Server{Handler: http.HandlerFunc(answer)}
	go func() { _ = server.Serve(listener) }() // ended by Close
	<-ctx.Done()
	_ = server.Close()
	return 0
}

// answer answers as Prometheus would.
func answer(w http.ResponseWriter, r *http.Request) {
	const vector = `{"status":"success","data":{"resultType":"vector","result":[%s]}}`
	query := r.URL.Query().Get("query")
	switch {
	case r.URL.Path == "/-/ready":
	case r.URL.Path == "/api/v1/rules":
		fmt.Fprint(w, `{"status":"success","data":{"groups":[{"rules":[{"name":"Slow","state":"pending","health":"ok"},
			{"name":"Fails","state":"inactive","health":"ok"}]}]}}`)
	case strings.HasPrefix(query, "count(timestamp(up"):
		fmt.Fprintf(w, vector, `{"metric":{},"value":[1,"2"]}`)
	case query == "rate(calls[1m])":
		fmt.Fprintf(w, vector, `{"metric":{"method":"a"},"value":[1.5,"2.5"]},{"metric":{"method":"b"},"value":[1.5,"NaN"]}`)
	case query == "vector":
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"matrix","result":[]}}`)
	default:
		http.Error(w, "parse error", http.StatusBadRequest)
	}
}

var targets = []Target{{"order", "1", "http://127.0.0.1:1/metrics"}, {"order", "2", "http://127.0.0.1:2/metrics"}}

// self is this test's binary.
func self(t *testing.T, mode string) string {
	t.Helper()
	t.Setenv(fakeMode, mode)
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrometheus(t *testing.T) {
	p, err := Start(t.Context(), self(t, "serves"), targets, []byte("groups: []"))
	if err != nil {
		t.Fatal(err)
	}
	samples, err := p.Query(t.Context(), "rate(calls[1m])")
	if err != nil || len(samples) != 2 || samples[0].Labels["method"] != "a" || samples[0].Value != 2.5 || samples[1].Value == samples[1].Value {
		t.Errorf("samples %v, error %v", samples, err)
	}
	for query, want := range map[string]string{"sum(": "parse error", "vector": "matrix"} {
		if _, err := p.Query(t.Context(), query); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", query, err)
		}
	}
	if alerts, err := p.Alerts(t.Context()); err != nil || len(alerts) != 2 || alerts["Slow"] != "pending" {
		t.Errorf("alerts %v, error %v", alerts, err)
	}
	config, err := os.ReadFile(filepath.Join(p.dir, "prometheus.yaml"))
	if err != nil || !strings.Contains(string(config), `"labels":{"instance":"2","job":"order"},"targets":["127.0.0.1:2"]`) {
		t.Errorf("configuration %s, error %v", config, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(p.dir); !os.IsNotExist(err) {
		t.Errorf("its folder is left: %v", err)
	}
}

// TestNotReady: a Prometheus that ends at once, does not exist or is not waited for is an error.
func TestNotReady(t *testing.T) {
	if _, err := Start(t.Context(), self(t, "fails"), targets, nil); err == nil || !strings.Contains(err.Error(), "the configuration is wrong") {
		t.Errorf("error %v", err)
	}
	if _, err := Start(t.Context(), "/no/such/file", targets, nil); err == nil {
		t.Error("it runs")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, self(t, "serves"), targets, nil); err == nil {
		t.Error("nobody has waited for it")
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if _, err := Find(t.Context(), "", nil); err == nil {
		t.Error("there is one")
	}
	there := filepath.Join(dir, "prometheus")
	if err := os.WriteFile(there, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if path, err := Find(t.Context(), "example.test/p@v1", nil); err != nil || path != there {
		t.Errorf("path %q, error %v", path, err)
	}
}

// TestBuild: go builds it where there is none, and where it cannot, the error says why.
func TestBuild(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	t.Setenv("HOME", dir) // other systems have their caches there
	t.Setenv("PATH", dir)
	said := 0
	say := func(string) { said++ }
	script := "#!/bin/sh\necho \"$@\" >\"$GOBIN.args\"; mkdir -p \"$GOBIN\" && : >\"$GOBIN/prometheus\"\n"
	for _, tt := range []struct{ script, want string }{
		{"#!/bin/sh\necho looking; echo there is no network; exit 1\n", "there is no network"},
		{strings.ReplaceAll(script, "mkdir", "/bin/mkdir"), ""},
		{"#!/bin/sh\necho it is there already; exit 1\n", ""},
	} {
		if err := os.WriteFile(filepath.Join(dir, "go"), []byte(tt.script), 0o700); err != nil {
			t.Fatal(err)
		}
		path, err := Find(t.Context(), "example.test/cmd/prometheus@v1.2.3", say)
		if tt.want == "" && (err != nil || !strings.HasSuffix(path, "natscall/prometheus-v1.2.3/prometheus")) ||
			tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("path %q, error %v", path, err)
		}
	}
	if said != 2 {
		t.Errorf("it was said %d times that it takes time", said)
	}
}

func TestScrape(t *testing.T) {
	text := "# TYPE calls_total counter\ncalls_total{method=\"a\",code=\"OK\"} 3\ncalls_total{method=\"a\",code=\"NO\"} 1\n" +
		"# TYPE took histogram\ntook_bucket{le=\"1\"} 2\ntook_bucket{le=\"+Inf\"} 5\ntook_sum 9\ntook_count 5\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/metrics":
			fmt.Fprint(w, text)
		case "/wrong":
			fmt.Fprint(w, "calls{")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	f, err := Scrape(t.Context(), server.URL+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	a := map[string]string{"method": "a"}
	if f.Sum("calls_total", a) != 4 || f.Sum("calls_total", map[string]string{"method": "a", "code": "NO"}) != 1 ||
		f.Sum("took", nil) != 5 || f.Sum("none", nil) != 0 || f.Sum("calls_total", map[string]string{"other": ""}) != 0 {
		t.Errorf("sums of %v", f)
	}
	if codes := f.Values("calls_total", "code"); len(codes) != 2 || !codes["OK"] || !codes["NO"] {
		t.Errorf("codes %v", codes)
	}
	for _, path := range []string{"/wrong", "/none"} {
		if _, err := Scrape(t.Context(), server.URL+path); err == nil {
			t.Errorf("%s can be read", path)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cancel()
	if _, err := Scrape(ctx, server.URL+"/metrics"); err == nil {
		t.Error("it does not end with its context")
	}
}
