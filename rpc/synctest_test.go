package rpc_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// inBubble is set in the process that TestVirtualTime starts.
const inBubble = "NATSCALL_IN_BUBBLE"

// TestVirtualTime: in a bubble of testing/synctest, whose clock starts in the year
// 2000, deadlines, timeouts and heartbeats pass in no time and when they should.
//
// It runs in a process of its own, since nats.go keeps timers for all connections
// of a process, and one of a bubble may not be used outside.
func TestVirtualTime(t *testing.T) {
	if os.Getenv(inBubble) == "" {
		own := exec.CommandContext(testContext(t), os.Args[0], "-test.run", "^TestVirtualTime$")
		own.Env = append(os.Environ(), inBubble+"=1")
		if out, err := own.CombinedOutput(); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		return
	}
	synctest.Test(t, func(t *testing.T) {
		nc := rpctest.Connect(t)
		left := make(chan time.Duration, 1)
		s := rpc.NewServer(nc, rpc.WithTimeout(time.Hour))
		must(t, registerTest(s, &funcs{
			do: func(ctx context.Context, in string) (string, error) {
				deadline, _ := ctx.Deadline()
				left <- time.Until(deadline)
				if in == "wait" {
					<-ctx.Done()
					return "", ctx.Err()
				}
				time.Sleep(time.Minute)
				return in, ctx.Err()
			},
			watch: func(_ context.Context, _ string, to *rpc.Sender[*text]) error {
				for i := range 24 {
					time.Sleep(time.Hour)
					if err := to.Send(wrapperspb.String(fmt.Sprint(i + 1))); err != nil {
						return err
					}
				}
				return nil
			},
		}))
		must(t, s.Start(t.Context()))
		c := rpc.NewClient(nc)
		for in, test := range map[string]struct {
			timeout time.Duration
			code    rpc.Code
			took    time.Duration
		}{
			"x":    {2 * time.Minute, rpc.CodeOK, time.Minute},
			"wait": {30 * time.Second, rpc.CodeDeadlineExceeded, 30 * time.Second},
		} {
			started := time.Now()
			_, err := do(context.Background(), c, in, rpc.WithTimeout(test.timeout))
			if took := time.Since(started); rpc.CodeOf(err) != test.code || took < test.took || took > test.took+time.Second {
				t.Errorf("%s: %v after %v", in, err, took)
			}
			if got := <-left; got <= test.timeout-time.Second || got > test.timeout {
				t.Errorf("%s: the handler had %v", in, got)
			}
		}
		started := time.Now()
		r, err := watch(context.Background(), c, "x")
		must(t, err)
		n, err := recvAll(r.Recv)
		if took := time.Since(started); n != 24 || err != nil || took < 24*time.Hour || took > 25*time.Hour {
			t.Errorf("%d messages, %v, after %v", n, err, took)
		}
		must(t, c.Close())
		must(t, s.Shutdown(context.Background()))
	})
}
