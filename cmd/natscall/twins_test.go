package main

import (
	"strings"
	"testing"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// serveTwin serves a service of a package, whose message Twin other packages have, too.
func serveTwin(t *testing.T, srv *rpc.Server, pkg string) {
	t.Helper()
	serveSource(t, srv, pkg, "1.0.0", `message Twin { string `+pkg+` = 1; } service `+pkg+`Service { rpc Get(Twin) returns (Twin); }`, nil)
}

// TestDescribeTwins: a short name that messages of two services have is not that of the first one.
func TestDescribeTwins(t *testing.T) {
	server := rpctest.NewServer(t)
	srv := rpc.NewServer(server.Connect())
	serveTwin(t, srv, "left")
	serveTwin(t, srv, "right")
	startServer(t, srv)
	c := &console{t, nil, server.URL()}
	check(t, server.URL(), []mistake{
		{"short", []string{"describe", "Twin"}, "", 1, `"Twin" means several messages`, "use one of them: left.Twin, right.Twin"},
	})
	if text := c.ok("describe", "right.Twin"); !strings.Contains(text, "string right = 1;") {
		t.Errorf("the message of the other service:\n%s", text)
	}
}
