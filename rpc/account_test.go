package rpc_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// allowResponses is how the configuration file of a NATS server says that a
// service may answer, and do nothing else.
const allowResponses = `authorization {
	users = [
		{user: service, password: x, permissions: {
			subscribe: ["test.v1.TestService.>", "notes.new", "$SRV.>"]
			publish: {deny: ">"}
			allow_responses: true
		}}
		{user: caller, password: x, permissions: {
			subscribe: "_INBOX_caller.>"
			publish: "test.v1.TestService.>"
		}}
	]
}`

// TestAllowResponses: `allow_responses: true`, which is one answer to each
// request, is enough for all calls that are one, whatever becomes of those before.
func TestAllowResponses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nats.conf")
	must(t, os.WriteFile(file, []byte(allowResponses), 0o600))
	config, err := server.ProcessConfigFile(file)
	must(t, err)
	srv := newServerWithUsers(t, config.Users...)
	refused := nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.Errorf("the NATS server refuses: %v", err) })
	serve(t, srv.Connect(nats.UserInfo("service", "x"), refused), answersOf(t))
	c := dial(t, srv.Connect(nats.UserInfo("caller", "x"), nats.CustomInboxPrefix("_INBOX_caller"), refused))
	callsAtOnce(t, c)
}

// answersOf is a server for callsAtOnce.
func answersOf(t *testing.T) *funcs {
	return &funcs{
		do: func(ctx context.Context, in string) (string, error) { return answerTo(in), nil },
		read: func(ctx context.Context, in string) (string, error) {
			if in == "wait" {
				<-ctx.Done()
			}
			return "", rpc.NewError(rpc.CodeAborted, in, wrapperspb.String(in))
		},
	}
}

// callsAtOnce makes calls that are answered, fail and are given up, from many
// goroutines, so that each reply subject serves calls of all kinds.
func callsAtOnce(t *testing.T, c *rpc.Client) {
	t.Helper()
	each(t, 32, func(caller int) error {
		rnd := rand.New(rand.NewPCG(uint64(caller), 7))
		for i := range soak(1000, 60) {
			text := fmt.Sprint(caller, ".", i)
			var err error
			switch rnd.IntN(5) {
			case 0:
				ctx, cancel := context.WithCancel(testContext(t))
				time.AfterFunc(time.Duration(rnd.IntN(1000))*time.Microsecond, cancel)
				if _, err = testRead.Call(ctx, c, wrapperspb.String("wait")); rpc.CodeOf(err) == rpc.CodeCanceled {
					err = nil
				}
			case 1:
				if _, err = testRead.Call(testContext(t), c, wrapperspb.String(text)); rpc.CodeOf(err) == rpc.CodeAborted {
					err = wantDetail(err, text)
				}
			case 2:
				err = wantAnswer(testContext(t), c, text, rpc.WithPlainRequests())
			case 3:
				err = wantAnswer(testContext(t), c, text, rpc.WithCodec(rpc.CodecJSON))
			default:
				err = wantAnswer(testContext(t), c, text)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		return nil
	})
}

// wantDetail checks that an error is that of the call with this text.
func wantDetail(err error, text string) error {
	e := err.(*rpc.Error)
	if details := e.Details(); e.Message() != text || len(details) != 1 || details[0].(*wrapperspb.StringValue).GetValue() != text {
		return fmt.Errorf("%w with details %v", e, details)
	}
	return nil
}

// importedService is a NATS server on which account APP imports the service of
// the tests from account SVC, under "ext".
func importedService(t *testing.T) *rpctest.Server {
	return rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		svc, app := server.NewAccount("SVC"), server.NewAccount("APP")
		must(t, svc.AddServiceExport("test.v1.TestService.>", nil))
		must(t, app.AddServiceImport(svc, "ext.test.v1.TestService.>", "test.v1.TestService.>"))
		o.Accounts = []*server.Account{svc, app}
		o.Users = []*server.User{{Username: "svc", Password: "x", Account: svc}, {Username: "app", Password: "x", Account: app}}
	}))
}

// TestCallsAcrossAccountsAtOnce: an import gives each request a reply subject
// of its own, and takes it away after the answer.
func TestCallsAcrossAccountsAtOnce(t *testing.T) {
	srv := importedService(t)
	for range 2 {
		serve(t, srv.Connect(nats.UserInfo("svc", "x")), answersOf(t))
	}
	callsAtOnce(t, dial(t, srv.Connect(nats.UserInfo("app", "x")), rpc.WithSubjectPrefix("ext")))
}

// TestNoServiceAcrossAccounts: the caller learns at once that nobody serves,
// and calls that wait are served when somebody does.
func TestNoServiceAcrossAccounts(t *testing.T) {
	srv := importedService(t)
	c := dial(t, srv.Connect(nats.UserInfo("app", "x")), rpc.WithSubjectPrefix("ext"))
	for range 20 {
		wantCode(t, wantAnswer(testContext(t), c, "x", rpc.WithoutRetry()), rpc.CodeUnavailable, rpc.ExecutionNotRun)
		_, err := watch(testContext(t), c, "x", rpc.WithoutRetry())
		wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
	}
	results := make(chan error, 16)
	for i := range cap(results) {
		go func() { results <- wantAnswer(testContext(t), c, fmt.Sprint(i)) }()
	}
	serve(t, srv.Connect(nats.UserInfo("svc", "x")), answersOf(t))
	for range cap(results) {
		must(t, <-results)
	}
}

// TestMappedSubjects: the NATS server maps what the callers use to what the service listens to.
func TestMappedSubjects(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		account := server.NewAccount("A")
		must(t, account.AddMapping("v2.test.v1.TestService.>", "test.v1.TestService.>"))
		o.Accounts = []*server.Account{account}
		o.Users = []*server.User{{Username: "a", Password: "x", Account: account}}
	}))
	serve(t, srv.Connect(nats.UserInfo("a", "x")), tourist())
	c := dial(t, srv.Connect(nats.UserInfo("a", "x")), rpc.WithSubjectPrefix("v2"))
	tour(t, c)
}
