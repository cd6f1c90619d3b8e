package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/instances"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// gathering is the untyped core of a Gathering.
type gathering struct {
	client  *Client
	method  *method
	request any
	// newResponse makes what a response is decoded into. It is nil for the generated type.
	newResponse func() any
	given       []GatherOption
	used        bool
	result      GatherResult
}

// gatherRow is the answer of an instance.
type gatherRow struct {
	instance string
	response any
	err      *Error
}

// run makes the request and yields the rows.
func (g *gathering) run(ctx context.Context, yield func(gatherRow) bool) {
	if g.used {
		return
	}
	g.used = true
	var o gatherOptions
	call, err := g.newCall(&o)
	if err != nil {
		g.result.Ended, g.result.Err = GatherEndFailed, err
		return
	}
	subjects := g.client.subjectsOf(g.method)
	if subjects.err != nil {
		g.result.Ended, g.result.Err = GatherEndFailed, subjects.err
		return
	}
	deadline, _ := call.deadline(ctx)
	var cancel context.CancelFunc
	if deadline.IsZero() {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithDeadline(ctx, deadline)
	}
	defer cancel()
	s := gatherSearch{gathering: g, options: &o, yield: yield, id: wire.NewID(), fetched: make(chan gatherRow),
		expected: map[string]bool{}, answered: map[string]bool{}}
	s.attempt = attempt{client: g.client, call: call, subjects: subjects, deadline: deadline, byCtx: true}
	s.attempt.subject = names.Join(subjects.root, wire.AllToken, wire.CallToken, g.method.desc.Name)
	defer func() { // also if the loop over the rows panics
		cancel()
		s.fetches.Wait()
		s.report(&g.result)
	}()
	s.run(ctx)
}

// newCall returns what the request is made of.
func (g *gathering) newCall(o *gatherOptions) (*clientCall, error) {
	for _, opt := range g.given {
		err := errNilOption
		if opt != nil {
			err = opt.applyGather(o)
		}
		if err != nil {
			return nil, failf(CodeInvalidArgument, ExecutionNotRun, "%v", err).because(err)
		}
	}
	if g.newResponse != nil {
		if err := g.checkUntyped(); err != nil {
			return nil, g.method.invalid(err)
		}
		o.call = withCodecOf(g.request, g.client, o.call)
	}
	options, err := g.client.callOptions(g.method, o.call)
	switch {
	case err != nil:
		return nil, err
	case options.plain:
		return nil, failf(CodeUnimplemented, ExecutionNotRun, "%s: rpc.WithPlainRequests is not for Gather", g.method.FullName())
	case options.instance != "":
		return nil, failf(CodeInvalidArgument, ExecutionNotRun, "%s: rpc.WithInstance is not for Gather", g.method.FullName())
	case options.results.header != nil || options.results.trailer != nil || options.results.instance != nil:
		return nil, failf(CodeInvalidArgument, ExecutionNotRun, "%s: Gather has several responses, and no place for what belongs to one", g.method.FullName())
	case g.request == g.method.nilRequest:
		return nil, failf(CodeInvalidArgument, ExecutionNotRun, "%s: the request is nil", g.method.FullName())
	}
	call := new(clientCall)
	call.set(g.method, options.header, g.request, nil, options)
	call.asks = true
	return call, nil
}

// checkUntyped returns why a gathering of a Method is not possible.
func (g *gathering) checkUntyped() error {
	if g.method.kind != KindUnary {
		return fmt.Errorf("it is a %v method: Gather is for unary ones", g.method.kind)
	}
	return errors.Join(g.method.checkRequest(g.request), about("the response", g.newResponse(), g.method.responseName()))
}

// gatherSearch is a gathering that runs. All of it belongs to the goroutine that loops over the
// rows. The fetches of large responses have goroutines of their own, which it waits for.
type gatherSearch struct {
	*gathering
	options *gatherOptions
	yield   func(gatherRow) bool
	attempt attempt // of the request; a copy for each row
	id      wire.ID
	box     *instances.Mailbox
	query   *instances.Query

	known    bool            // the instances that there are
	expected map[string]bool // true if the instance was there when the request was sent
	answered map[string]bool // true if the row has been yielded; false while it is fetched
	good     int             // rows without an error

	fetches sync.WaitGroup
	fetched chan gatherRow

	end GatherEnd
	err *Error
}

// pingInterval is the time between two looks at the instances that have not answered.
const pingInterval = time.Second

func (s *gatherSearch) run(ctx context.Context) {
	a := &s.attempt
	if ctx.Err() != nil {
		s.endByContext(ctx, ExecutionNotRun)
		return
	}
	a.left = a.timeLeft()
	if err := s.client.subscribeOnce(ctx, time.Time{}); err != nil {
		s.failUnsent(ctx, err)
		return
	}
	s.box = s.client.known.Mail.Open(s.id, a.subject)
	defer s.box.Close()
	before := s.client.known.Seen(a.subjects.root)
	// The query is first, so no instance is expected that has started too late for the request.
	s.query = s.client.known.Query(a.subjects.root, 0)
	if err := s.send(ctx); err != nil {
		s.failUnsent(ctx, err)
		return
	}
	s.end = GatherEndLeft // if the loop panics
	defer s.cancelRest()
	s.await(ctx, before)
}

// send publishes the request.
func (s *gatherSearch) send(ctx context.Context) *Error {
	a := &s.attempt
	h, buf, large, failed := a.encode(s.id)
	if failed != nil {
		return failed
	}
	if large {
		defer buf.PutBack()
		return overMaxPayload("request", len(buf.B), h, ExecutionNotRun)
	}
	return a.publish(ctx, publish.Message{Subject: a.subject, Reply: s.box.Reply(""), Header: h, Buffer: buf})
}

// failUnsent ends a gathering whose request has not been sent, as far as is known.
func (s *gatherSearch) failUnsent(ctx context.Context, err *Error) {
	if ctx.Err() != nil {
		s.endByContext(ctx, err.execution)
		return
	}
	s.fail(err)
}

func (s *gatherSearch) fail(err *Error) {
	if len(s.answered) > 0 && err.execution == ExecutionNotRun {
		err = err.withExecution(ExecutionMayHaveRun)
	}
	s.end, s.err = GatherEndFailed, err
}

func (s *gatherSearch) endByContext(ctx context.Context, x Execution) {
	s.end, s.err = GatherEndCanceled, contextError(ctx, x)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		s.end = GatherEndDeadline
	}
}

// await yields the rows until the gathering has ended.
func (s *gatherSearch) await(ctx context.Context, before []string) {
	s.end = GatherEndNone
	defer func() {
		if s.end == GatherEndNone { // the loop over the rows has panicked
			s.end = GatherEndLeft
		}
	}()
	ping := time.NewTicker(pingInterval)
	defer ping.Stop()
	stall := time.NewTimer(time.Hour)
	stall.Stop()
	defer stall.Stop()
	over := s.query.Over()
	for {
		rows := len(s.answered)
		if s.readMail(ctx); s.end != GatherEndNone {
			return
		}
		if s.options.stall > 0 && len(s.answered) > rows {
			stall.Reset(s.options.stall)
		}
		select {
		case <-s.box.Changed:
		case row := <-s.fetched:
			s.give(row)
			if s.options.stall > 0 {
				stall.Reset(s.options.stall)
			}
		case <-over:
			over = nil
			s.learn(before)
		case <-ping.C:
			if over == nil {
				s.ping()
			}
		case <-stall.C:
			s.finish(GatherEndStall)
		case <-ctx.Done():
			if s.readMail(ctx); s.end == GatherEndNone {
				s.endByContext(ctx, ExecutionMayHaveRun)
			}
		}
		if s.look(); s.end != GatherEndNone {
			return
		}
	}
}

func (s *gatherSearch) finish(end GatherEnd) {
	if s.end == GatherEndNone {
		s.end = end
	}
}

// look ends the gathering if enough instances have answered.
func (s *gatherSearch) look() {
	if s.known {
		s.expectFound() // some may have answered late
	}
	switch {
	case s.options.first > 0 && s.good >= s.options.first:
		s.finish(GatherEndFirst)
	case s.options.quorum && s.known && 2*s.good > len(s.expected):
		s.finish(GatherEndQuorum)
	case s.known && len(s.expected) > 0 && len(s.missing()) == 0:
		s.finish(GatherEndAll)
	}
}

// missing returns the instances that have not answered, in order.
func (s *gatherSearch) missing() (missing []string) {
	for instance := range s.expected {
		if !s.answered[instance] {
			missing = append(missing, instance)
		}
	}
	slices.Sort(missing)
	return missing
}

// learn takes what the query has found. Instances from before that have not answered it are asked
// one by one, since NATS says of each whether it is still there.
func (s *gatherSearch) learn(before []string) {
	for _, instance := range before {
		if _, ok := s.expected[instance]; !ok {
			s.expected[instance] = false
		}
	}
	s.known = s.expectFound() || len(before) > 0
	for _, instance := range before {
		if !s.expected[instance] {
			s.pingOne(instance)
		}
	}
}

// expectFound expects the instances that have answered the query. It reports whether the query has
// found out anything.
func (s *gatherSearch) expectFound() (known bool) {
	found := s.query.Found()
	for _, instance := range found.Instances {
		s.expected[instance.GetInstance()] = true
	}
	return found.Known()
}

// ping asks the instances that have not answered whether they are still there.
func (s *gatherSearch) ping() {
	for _, instance := range s.missing() {
		if _, fetching := s.answered[instance]; !fetching {
			s.pingOne(instance)
		}
	}
}

func (s *gatherSearch) pingOne(instance string) {
	subject := names.Join(s.attempt.subjects.root, wire.InstanceToken, instance, wire.InstancesToken)
	_ = s.client.out.PublishMsg(&nats.Msg{Subject: subject, Reply: s.box.Reply(instance), Data: wire.AppendInstanceQuery(nil, s.id)})
}

// readMail takes the messages that have come.
func (s *gatherSearch) readMail(ctx context.Context) {
	letters, err := s.box.Take()
	for _, letter := range letters {
		if letter.To == "" {
			s.takeAnswer(ctx, letter.Msg)
		} else {
			s.takePong(letter.To, letter.Msg)
		}
		if s.look(); s.end != GatherEndNone {
			return
		}
	}
	if err != nil {
		s.fail(asError(err))
	}
}

// takePong takes the answer of an instance that was asked whether it is there.
func (s *gatherSearch) takePong(instance string, m *nats.Msg) {
	root := s.attempt.subjects.root
	switch {
	case instances.Parse(m.Data, s.id) != nil:
		s.client.known.See(root, instance)
	case !reply.IsNoResponders(m):
	default:
		s.client.known.Forget(root, instance)
		if _, answered := s.answered[instance]; answered {
			return
		}
		if s.expected[instance] {
			gone := failf(CodeUnavailable, ExecutionMayHaveRun, "instance %s has gone before it had answered", instance)
			s.give(gatherRow{instance: instance, err: gone.from(instance)})
			return
		}
		delete(s.expected, instance)
	}
}

// takeAnswer takes a reply to the request.
func (s *gatherSearch) takeAnswer(ctx context.Context, m *nats.Msg) {
	if reply.IsNoResponders(m) {
		s.finish(GatherEndNobody)
		s.err = noService(s.client.nc, s.attempt.subject)
		return
	}
	mine, err := wire.Answers(m.Data, s.id)
	if !mine {
		return
	}
	instance := m.Header.Get(wire.InstanceHeader)
	large := err == nil && wire.IsFrame(m.Data)
	if large {
		f, _ := wire.ParseFrame(m.Data)
		_, instance, _ = wire.ParseAccept(&f)
	}
	if _, again := s.answered[instance]; again || wire.CheckInstance(instance) != nil {
		return
	}
	s.attempt.subjects.hasAnswered()
	a := s.attempt
	a.call = new(clientCall)
	a.call.set(s.attempt.call.method, nil, nil, nil, s.attempt.call.options)
	if s.newResponse != nil {
		a.call.into = s.newResponse()
	}
	switch {
	case err != nil:
		s.give(gatherRow{instance: instance, err: wrongAnswer(err).from(instance)})
	case large:
		s.answered[instance] = false
		s.fetches.Go(func() { s.fetch(ctx, a, instance, m) })
	default:
		failed := a.finish(&reply.Reply{Msg: m, Data: m.Data})
		s.give(gatherRow{instance: instance, response: a.call.response, err: failed})
	}
}

// fetch fetches a large response. It ends with ctx.
func (s *gatherSearch) fetch(ctx context.Context, a attempt, instance string, m *nats.Msg) {
	failed := a.largeResponse(ctx, wire.NewID(), s.id, m.Data)
	select {
	case s.fetched <- gatherRow{instance: instance, response: a.call.response, err: failed}:
	case <-ctx.Done():
	}
}

// give yields a row.
func (s *gatherSearch) give(row gatherRow) {
	s.answered[row.instance], s.expected[row.instance] = true, true
	if row.err == nil {
		s.good++
	}
	if row.err == nil || row.err.remote {
		s.client.known.See(s.attempt.subjects.root, row.instance)
	}
	if !s.yield(row) {
		s.finish(GatherEndLeft)
	}
}

// cancelRest tells the instances that still work on the request that nobody waits any more. At the
// deadline they know.
func (s *gatherSearch) cancelRest() {
	if s.end == GatherEndNobody || s.end == GatherEndDeadline || s.known && len(s.missing()) == 0 {
		return
	}
	s.client.cancel(s.attempt.subjects.root, s.id)
}

// report says how the gathering has ended.
func (s *gatherSearch) report(r *GatherResult) {
	r.Ended, r.Err = s.end, asNil(s.err)
	for instance := range s.expected {
		r.Expected = append(r.Expected, instance)
		if s.answered[instance] {
			r.Answered = append(r.Answered, instance)
		}
	}
	slices.Sort(r.Expected)
	slices.Sort(r.Answered)
	r.Missing = s.missing()
}
