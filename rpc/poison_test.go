package rpc_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// pattern is a text of n bytes, in lines of its seed and their number: a text
// with a part of another one, or of an earlier message, is not a pattern.
func pattern(seed uint64, n int) string {
	b := make([]byte, 0, n+patternLine)
	var line [patternLine / 2]byte
	binary.BigEndian.PutUint64(line[:], seed)
	for i := uint64(0); len(b) < n; i++ {
		binary.BigEndian.PutUint64(line[8:], i)
		b = hex.AppendEncode(b, line[:])
	}
	return string(b[:n])
}

const patternLine = 32

// seedOf is the seed of a pattern, which has to be whole.
func seedOf(text string) (seed uint64, err error) {
	if len(text) < patternLine {
		return 0, fmt.Errorf("%d bytes are no pattern", len(text))
	}
	if seed, err = strconv.ParseUint(text[:16], 16, 64); err == nil && text != pattern(seed, len(text)) {
		err = fmt.Errorf("%d bytes are not those of seed %d", len(text), seed)
	}
	return seed, err
}

// patternReply is what the server answers to a pattern: another one.
func patternReply(text string) (string, error) {
	seed, err := seedOf(text)
	if err != nil {
		return "", rpc.Errorf(rpc.CodeDataLoss, "the request: %w", err)
	}
	return pattern(seed+1, len(text)), nil
}

func wantReply(text, got string) error {
	seed, err := seedOf(text)
	if err == nil && got != pattern(seed+1, len(text)) {
		err = fmt.Errorf("the answer to seed %d, %d bytes, is %d bytes: %.100q", seed, len(text), len(got), got)
	}
	return err
}

// patternServer checks all that it gets and answers with patterns.
func patternServer(notes chan<- string) *funcs {
	return &funcs{
		blob: func(_ context.Context, b []byte) ([]byte, error) {
			out, err := patternReply(string(b))
			return []byte(out), err
		},
		read: func(_ context.Context, text string) (string, error) {
			out, err := patternReply(text)
			if err != nil {
				return "", err
			}
			return "", rpc.NewError(rpc.CodeAborted, out, wrapperspb.String(out), wrapperspb.Bytes([]byte(out)))
		},
		note: func(_ context.Context, m *structpb.Struct) error {
			notes <- m.GetFields()["text"].GetStringValue()
			return nil
		},
		watch: func(_ context.Context, text string, to *rpc.Sender[*text]) error {
			seed, err := seedOf(text)
			for i, size := range patternSizes {
				if err == nil {
					err = to.Send(wrapperspb.String(pattern(seed+uint64(i), size)))
				}
			}
			return err
		},
		gather: func(_ context.Context, from *rpc.Receiver[*text]) (last string, err error) {
			for m, err := range from.All() {
				if err != nil {
					return "", err
				}
				if last, err = patternReply(m.GetValue()); err != nil {
					return "", err
				}
			}
			return last, nil
		},
		chat: func(_ context.Context, with *rpc.BidiStream[*text, *text]) error {
			for m, err := range with.All() {
				if err != nil {
					return err
				}
				out, err := patternReply(m.GetValue())
				if err != nil {
					return err
				}
				if err := with.Send(wrapperspb.String(out)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// patternSizes are the messages of a stream: those that share frames, those
// that get one of their own, and those that need several.
var patternSizes = []int{40, 60, 8 << 10, 50, 12 << 10, 31 << 10, 40, 40 << 10, 100, 200 << 10, 60}

// TestKeptContexts: neither the context of a server's call changes after the end, nor a Call that
// somebody has asked for.
func TestKeptContexts(t *testing.T) {
	const calls, callers = 4000, 16
	type kept struct {
		ctx, child context.Context
		call       *rpc.Call // nil where the handler has not asked for it
		deadline   time.Time
		text       string
	}
	var mu sync.Mutex
	var all []kept
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{do: func(ctx context.Context, in string) (string, error) {
		k := kept{ctx: ctx, text: in}
		k.deadline, _ = ctx.Deadline()
		if len(in)%2 == 0 {
			k.call = rpc.CallFromContext(ctx)
		}
		if len(in)%3 == 0 {
			var cancel context.CancelFunc
			k.child, cancel = context.WithCancel(ctx)
			context.AfterFunc(k.child, cancel)
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, k)
		return in, nil
	}})
	for _, opts := range [][]rpc.ClientOption{nil, {rpc.WithBatching(4096)}} {
		c := dial(t, srv.Connect(), opts...)
		each(t, callers, func(caller int) error {
			for i := range calls / callers {
				text := strings.Repeat("x", i%7) + strconv.Itoa(caller*calls+i)
				if err := echoes(t, c, text, rpc.WithHeader("text", text), rpc.WithTimeout(time.Duration(100+i)*time.Second)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, k := range all {
		until(t, "the context has ended", func() bool { return k.ctx.Err() != nil })
		<-k.ctx.Done()
		if k.child != nil {
			<-k.child.Done()
		}
		deadline, _ := k.ctx.Deadline()
		if !errors.Is(k.ctx.Err(), context.Canceled) || !deadline.Equal(k.deadline) {
			t.Fatalf("the context ended with %v and has the deadline %v, which was %v", k.ctx.Err(), deadline, k.deadline)
		}
		call := rpc.CallFromContext(k.ctx)
		if want := "/test.v1.TestService/Do"; call.Method() != want || k.call != nil && call != k.call {
			t.Fatalf("the call is one of %q, want %q; it is the one of then: %v", call.Method(), want, call == k.call)
		}
		if got := call.Header().Get("text"); got != k.text && (k.call != nil || got != "") {
			t.Fatalf("the call of %q has the header of %q", k.text, got)
		}
	}
}

// TestKeptSenders: a message that is sent on a plain stream after its end reaches nobody, least
// of all another caller.
func TestKeptSenders(t *testing.T) {
	const streams = 20
	// Memory that is used again is found on the CPU that has freed it.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	srv := rpctest.NewServer(t)
	var kept []*rpc.Sender[*text]
	running, goOn := make(chan struct{}), make(chan struct{})
	serve(t, srv.Connect(), &funcs{
		watch: func(_ context.Context, _ string, to *rpc.Sender[*text]) error {
			kept = append(kept, to)
			return nil
		},
		do: func(_ context.Context, in string) (string, error) {
			running <- struct{}{}
			<-goOn
			return in, nil
		},
	})
	nc := srv.Connect()
	for range streams {
		askMany(t, nc, encode(t, wrapperspb.String("x")), nil)
	}
	victims, err := nc.SubscribeSync(nc.NewInbox())
	must(t, err)
	for range streams {
		must(t, nc.PublishRequest(doSubject, victims.Subject, encode(t, wrapperspb.String("x"))))
	}
	for range streams {
		<-running
	}
	for _, to := range kept {
		if err := to.Send(wrapperspb.String("of another caller")); rpc.CodeOf(err) != rpc.CodeCanceled {
			t.Errorf("a late Send returned %v", err)
		}
	}
	close(goOn)
	for range streams {
		m, err := victims.NextMsg(10 * time.Second)
		must(t, err)
		if want := encode(t, wrapperspb.String("x")); string(m.Data) != string(want) {
			t.Fatalf("a caller got %q, not %q", m.Data, want)
		}
	}
}

// TestPoisonedPools makes calls of all shapes while others take every buffer
// as soon as it is put back, and overwrite it: no byte of any message changes.
func TestPoisonedPools(t *testing.T) {
	srv := rpctest.NewServer(t)
	notes, stirred := make(chan string, 1), make(chan struct{}, 1)
	// The client has no interceptors: with them it would not use its pool of calls.
	serve(t, srv.Connect(), patternServer(notes), rpc.WithInterceptors(stir(stirred)))
	nc := srv.Connect()
	c := dial(t, nc)
	stop := poisonPools(t, stirred)
	defer stop()
	ctx := longContext(t)
	work := []func(seed uint64) error{
		func(seed uint64) error { return patternNote(ctx, c, notes, seed) },
		func(seed uint64) error { return patternError(ctx, c, seed) },
		func(seed uint64) error { return patternWatch(ctx, c, seed) },
		func(seed uint64) error { return patternPlainWatch(nc, seed) },
		func(seed uint64) error { return patternGather(ctx, c, seed) },
		func(seed uint64) error { return patternChat(ctx, c, seed) },
	}
	for _, size := range []int{60, 4 << 10, 256 << 10} {
		for _, opts := range [][]rpc.CallOption{nil, {rpc.WithCodec(rpc.CodecJSON)}, {rpc.WithPlainRequests()},
			{rpc.WithCompression(rpc.CompressionGzip)}, {rpc.WithCompression(rpc.CompressionZstd)}} {
			work = append(work, func(seed uint64) error { return patternBlob(ctx, c, seed, size, opts...) })
		}
	}
	batched := dial(t, srv.Connect(), rpc.WithBatching(16<<10))
	for range 4 {
		work = append(work, func(seed uint64) error { return patternBlob(ctx, batched, seed, 100) })
	}
	work = append(work, func(seed uint64) error {
		if seed>>8%4 != 0 { // of the rounds: they take long
			return nil
		}
		return patternBlob(ctx, c, seed, 2<<20)
	})
	each(t, len(work), func(i int) error {
		for round := range soak(100, 8) {
			if err := work[i](uint64(i)<<32 + uint64(round)<<8); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		return nil
	})
}

// TestPoisonedRaws: raw messages that were received are the receiver's, those that were sent may be
// overwritten, and the bytes that OnAttempt sees are those of the request.
func TestPoisonedRaws(t *testing.T) {
	srv := rpctest.NewServer(t)
	stirred := make(chan struct{}, 1)
	serve(t, srv.Connect(), patternServer(nil), rpc.WithInterceptors(stir(stirred)))
	stop := poisonPools(t, stirred)
	defer stop()
	ctx := longContext(t)
	raw := func(name string, kind rpc.Kind) *rpc.Method {
		return rpc.NewRawMethod(&testDesc, rpc.MethodDesc{Name: name}, kind)
	}
	unary, stream := raw("Blob", rpc.KindUnary), raw("Watch", rpc.KindServerStream)
	type attemptKey struct{}
	checked := rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnAttempt(func(a *rpc.Attempt) error {
			select {
			case stirred <- struct{}{}:
			default:
			}
			if string(a.Data()) != ctx.Value(attemptKey{}) {
				t.Errorf("OnAttempt saw %.100q", a.Data())
			}
			return nil
		})
		return next(ctx, call)
	})
	var mu sync.Mutex
	kept := map[*rpc.Raw]string{}
	keep := func(r *rpc.Raw, want proto.Message) {
		mu.Lock()
		defer mu.Unlock()
		kept[r] = string(encode(t, want))
		_ = append(r.Data, "into what lies behind"...)
	}
	clients := []*rpc.Client{dial(t, srv.Connect()), dial(t, srv.Connect(), checked), dial(t, srv.Connect(), checked, rpc.WithBatching(16<<10))}
	work := []func(c *rpc.Client, seed uint64) error{
		func(c *rpc.Client, seed uint64) error {
			req, res := &rpc.Raw{Data: encode(t, wrapperspb.String(pattern(seed, 100)))}, new(rpc.Raw)
			s, err := stream.Open(context.WithValue(ctx, attemptKey{}, string(req.Data)), c, req)
			if err != nil {
				return err
			}
			clear(req.Data)
			for i, size := range patternSizes {
				if err := s.Recv(res); err != nil {
					return err
				}
				keep(&rpc.Raw{Data: res.Data}, wrapperspb.String(pattern(seed+uint64(i), size)))
			}
			if err := s.Recv(res); err != io.EOF {
				return fmt.Errorf("the end is %w", err)
			}
			return nil
		},
	}
	for _, size := range []int{60, 4 << 10, 2 << 20} {
		for _, opts := range [][]rpc.CallOption{nil, {rpc.WithPlainRequests()}, {rpc.WithCompression(rpc.CompressionGzip)}, {rpc.WithCompression(rpc.CompressionZstd)}} {
			if size > 1<<20 && opts != nil {
				continue
			}
			work = append(work, func(c *rpc.Client, seed uint64) error {
				req, res := &rpc.Raw{Data: encode(t, wrapperspb.Bytes([]byte(pattern(seed, size))))}, new(rpc.Raw)
				if err := unary.Call(context.WithValue(ctx, attemptKey{}, string(req.Data)), c, req, res, opts...); err != nil {
					return err
				}
				clear(req.Data)
				keep(res, wrapperspb.Bytes([]byte(pattern(seed+1, size))))
				return nil
			})
		}
	}
	each(t, len(work), func(i int) error {
		for round := range soak(30, 4) {
			for n, c := range clients {
				if err := work[i](c, uint64(i)<<32+uint64(round)<<16+uint64(n)<<8); err != nil {
					return fmt.Errorf("work %d: %w", i, err)
				}
			}
		}
		return nil
	})
	for r, want := range kept {
		if string(r.Data) != want {
			t.Errorf("a message of %d bytes has changed: %.100q", len(want), r.Data)
		}
	}
}

// poisonPools overwrites what is in the pools, again and again while the server
// has something to do: it shall not take the processor from those who wait for it.
func poisonPools(t *testing.T, stirred <-chan struct{}) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var poisoners sync.WaitGroup
	for range 2 {
		poisoners.Go(func() {
			for {
				select {
				case <-stirred:
				case <-ctx.Done():
					return
				}
				if !rpc.PoisonPools(8) {
					t.Error("a buffer was written to after it had been put back")
				}
			}
		})
	}
	return func() { cancel(); poisoners.Wait() }
}

// stir tells of each call and each message, right before it is sent.
func stir(stirred chan<- struct{}) rpc.Interceptor {
	tell := func() {
		select {
		case stirred <- struct{}{}:
		default:
		}
	}
	return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		each := func(*rpc.Message) error { tell(); return nil }
		call.OnSend(each)
		call.OnReceive(each)
		defer tell()
		return next(ctx, call)
	}
}

func patternBlob(ctx context.Context, c *rpc.Client, seed uint64, size int, opts ...rpc.CallOption) error {
	text := pattern(seed, size)
	res, err := testBlob.Call(ctx, c, wrapperspb.Bytes([]byte(text)), opts...)
	if err != nil {
		return err
	}
	return wantReply(text, string(res.GetValue()))
}

func patternNote(ctx context.Context, c *rpc.Client, notes <-chan string, seed uint64) error {
	text := pattern(seed, 3000)
	if err := testNote.Call(ctx, c, object("text", text)); err != nil {
		return err
	}
	select {
	case got := <-notes:
		if got != text {
			return fmt.Errorf("the note is %.100q", got)
		}
		return nil
	case <-ctx.Done():
		return errors.New("the note did not come, or not whole")
	}
}

func patternError(ctx context.Context, c *rpc.Client, seed uint64) error {
	text := pattern(seed, 2000)
	_, err := testRead.Call(ctx, c, wrapperspb.String(text))
	var e *rpc.Error
	if !errors.As(err, &e) || e.Code() != rpc.CodeAborted {
		return fmt.Errorf("the error is %w", err)
	}
	details := e.Details()
	if len(details) != 2 {
		return fmt.Errorf("%d details", len(details))
	}
	return errors.Join(wantReply(text, e.Message()), wantReply(text, details[0].(*wrapperspb.StringValue).GetValue()), wantReply(text, string(details[1].(*bytes).GetValue())))
}

func patternWatch(ctx context.Context, c *rpc.Client, seed uint64) error {
	r, err := watch(ctx, c, pattern(seed, 100))
	if err != nil {
		return err
	}
	got := 0
	for m, err := range r.All() {
		if err != nil {
			return err
		}
		if got == len(patternSizes) || m.GetValue() != pattern(seed+uint64(got), patternSizes[got]) {
			return fmt.Errorf("message %d is %.100q", got, m.GetValue())
		}
		got++
	}
	if got != len(patternSizes) {
		return fmt.Errorf("%d messages came", got)
	}
	return nil
}

// patternPlainWatch does without a natscall client.
func patternPlainWatch(nc *nats.Conn, seed uint64) error {
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	req, err := proto.Marshal(wrapperspb.String(pattern(seed, 100)))
	if err != nil {
		return err
	}
	if err := nc.PublishRequest(testRoot+".Watch", sub.Subject, req); err != nil {
		return err
	}
	for i, size := range patternSizes {
		m, err := sub.NextMsg(10 * time.Minute)
		if err != nil {
			return err
		}
		var got text
		if err := proto.Unmarshal(m.Data, &got); err != nil || got.GetValue() != pattern(seed+uint64(i), size) {
			return fmt.Errorf("message %d is %.100q, %w", i, got.GetValue(), err)
		}
	}
	return nil // the end is no concern of this test
}

func patternGather(ctx context.Context, c *rpc.Client, seed uint64) error {
	s, err := testGather.Call(ctx, c)
	if err != nil {
		return err
	}
	defer s.Close()
	var last string
	for i, size := range patternSizes {
		last = pattern(seed+uint64(i), size)
		// After io.EOF the response says why the stream has ended.
		if err := s.Send(wrapperspb.String(last)); err != nil && err != io.EOF {
			return err
		}
	}
	res, err := s.CloseAndRecv()
	if err != nil {
		return err
	}
	return wantReply(last, res.GetValue())
}

func patternChat(ctx context.Context, c *rpc.Client, seed uint64) error {
	s, err := testChat.Call(ctx, c)
	if err != nil {
		return err
	}
	defer s.Close()
	for i, size := range patternSizes {
		text := pattern(seed+uint64(i), size)
		if err := s.Send(wrapperspb.String(text)); err != nil && err != io.EOF {
			return err
		}
		m, err := s.Recv()
		if err != nil {
			return err
		}
		if err := wantReply(text, m.GetValue()); err != nil {
			return err
		}
	}
	s.CloseSend()
	if _, err := s.Recv(); err != io.EOF {
		return fmt.Errorf("the end is %w", err)
	}
	return nil
}
