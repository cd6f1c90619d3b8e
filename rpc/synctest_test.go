package rpc_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestVirtualTime: deadlines and timeouts pass in no time and when they should, for the caller and
// for the handler. The clock of a bubble starts in the year 2000.
func TestVirtualTime(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		nc := srv.Connect()
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
				for i := range 3 {
					time.Sleep(20 * time.Minute)
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
		if took := time.Since(started); n != 3 || err != nil || took < time.Hour || took > time.Hour+time.Second {
			t.Errorf("%d messages, %v, after %v", n, err, took)
		}
		must(t, c.Close())
		must(t, s.Shutdown(context.Background()))
	})
}
