package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// second is the unit of the times in these tests.
const second = instant(time.Second / time.Microsecond)

// The records of a call that is as it should be.
func beganAt(at instant, method string) record {
	return record{At: at, Process: "client-0", Kind: began, Call: "c", Method: method, Deadline: at + 15*second}
}

func ranAs(name string, r record) []record {
	r.Process, r.Call, r.Run, r.Kind, r.At = "replica-0", "c", name, ran, 2*second
	if r.Code == "" {
		r.Code = okCode
	}
	return []record{{At: 2 * second, Process: "replica-0", Kind: run, Call: "c", Run: name}, r}
}

func endedAt(at instant, r record) record {
	r.At, r.Process, r.Kind, r.Call = at, "client-0", ended, "c"
	if r.Code == "" {
		r.Code = okCode
	}
	return r
}

func join(parts ...any) (all []record) {
	for _, p := range parts {
		switch p := p.(type) {
		case record:
			all = append(all, p)
		case []record:
			all = append(all, p...)
		}
	}
	return all
}

const (
	mayHaveRun = "may have run"
	notRun     = "not run"
	didRun     = "did run"
)

// TestCheck has the records of calls and processes that are as they should be, with no
// violation, and of each way in which they can be wrong.
func TestCheck(t *testing.T) {
	begin := beganAt(second, methodAdd)
	keyed := beganAt(second, methodPay)
	impatient := begin
	impatient.Deadline = 2 * second
	stop := excuses{unavailable: true}
	failed := func(code, claim string) record { return endedAt(3*second, record{Code: code, Claim: claim}) }
	success := endedAt(3*second, record{Run: "a"})
	tests := []struct {
		name    string
		records []record
		excuses excuses
		want    string // part of the only violation, "" for none
	}{
		{"a success", join(begin, ranAs("a", record{}), success), excuses{}, ""},
		{"a handler's error", join(begin, ranAs("a", record{Code: abortedCode}), endedAt(3*second, record{Code: abortedCode, Claim: didRun, Run: "a"})), excuses{}, ""},
		{"no end", join(begin, ranAs("a", record{})), excuses{}, "has not ended"},
		{"two ends", join(begin, ranAs("a", record{}), success, success), excuses{}, "ended 2 times"},
		{"no beginning", join(ranAs("a", record{})), excuses{}, "nobody has made it"},

		{"a deadline that passes", join(impatient, endedAt(2*second, record{Code: deadlineCode, Claim: mayHaveRun})), excuses{}, ""},
		{"late", join(impatient, endedAt(3*second, record{Code: deadlineCode, Claim: mayHaveRun})), excuses{}, "1s late"},
		{"late while its process did not run", join(impatient, endedAt(3*second, record{Code: deadlineCode, Claim: mayHaveRun}),
			record{At: 3 * second, Process: "client-0", Kind: stalled, Since: second}), excuses{}, ""},
		{"late while another process did not run", join(impatient, endedAt(3*second, record{Code: deadlineCode, Claim: mayHaveRun}),
			record{At: 3 * second, Process: "replica-0", Kind: stalled, Since: second}), excuses{}, "1s late"},
		{"late, and its process did not run before", join(impatient, endedAt(3*second, record{Code: deadlineCode, Claim: mayHaveRun}),
			record{At: 2 * second, Process: "client-0", Kind: stalled, Since: second}), excuses{}, "1s late"},
		{"late after a cancel", join(begin, endedAt(3*second, record{Code: canceledCode, Claim: mayHaveRun, GaveUp: 2 * second})), excuses{}, "1s late"},

		{"wrong content of an answer", join(begin, ranAs("a", record{}), endedAt(3*second, record{Run: "a", Wrong: "x"})), excuses{}, "content is not its own"},
		{"wrong content of a request", join(begin, ranAs("a", record{Wrong: "x"}), success), excuses{}, "content is not its own"},
		{"another call's answer", join(begin, ranAs("a", record{}), endedAt(3*second, record{Run: "b"})), excuses{}, "execution b, which is not one of its own"},
		{"an answer of a handler that goes on", join(begin, ranAs("a", record{})[:1], success), excuses{}, "which has not returned"},
		{"an error that its handler has not returned", join(begin, ranAs("a", record{}), endedAt(3*second, record{Code: abortedCode, Claim: didRun, Run: "a"})), excuses{}, "ended with aborted, but it ended with ok"},
		{"another call's error", join(begin, ranAs("a", record{Code: abortedCode}), endedAt(3*second, record{Code: abortedCode, Claim: didRun, Run: "b"})), excuses{}, "not one of its own"},

		{"a key that is lost", join(keyed, ranAs("a", record{})[:1], failed(lostCode, mayHaveRun)), stop, ""},
		{"a key that is lost without a fault", join(keyed, failed(lostCode, mayHaveRun)), excuses{}, "which nothing that happened explains"},
		{"a lost key of a call that has none", join(begin, failed(lostCode, mayHaveRun)), stop, "which nothing that happened explains"},
		{"a call with a key that is not sent again", join(keyed, failed(unavailableCode, mayHaveRun)), stop, "which nothing that happened explains"},
		{"a call with a key, twice", join(keyed, ranAs("a", record{}), ranAs("b", record{}), success), stop, "ran 2 times"},
		{"twice", join(begin, ranAs("a", record{}), ranAs("b", record{}), success), excuses{}, "ran 2 times"},
		{"twice, of an idempotent method", join(beganAt(second, methodPut), ranAs("a", record{}), ranAs("b", record{}), success), excuses{}, ""},
		{"twice, of one without side effects", join(beganAt(second, methodGet), ranAs("a", record{}), ranAs("b", record{}), success), excuses{}, ""},
		{"not run, and did not", join(begin, failed(unavailableCode, notRun)), excuses{notRun: true}, ""},
		{"not run, and ran", join(begin, ranAs("a", record{}), failed(unavailableCode, notRun)), excuses{notRun: true}, `says "not run", but it ran`},
		{"did run, and did not", join(begin, failed(abortedCode, didRun)), excuses{}, `says "did run", but it did not`},
		{"a success that did not run", join(begin, endedAt(3*second, record{})), excuses{}, "succeeded, but did not run"},
		{"a one-way message that was lost", join(beganAt(second, methodNote), endedAt(3*second, record{})), excuses{}, ""},
		{"may have run", join(begin, failed(unavailableCode, mayHaveRun)), stop, ""},
		{"may have run, and ran", join(begin, ranAs("a", record{}), failed(unavailableCode, mayHaveRun)), stop, ""},

		{"lost without a fault", join(begin, failed(unavailableCode, mayHaveRun)), excuses{}, "it was lost"},
		{"lost, of an idempotent method", join(beganAt(second, methodPut), failed(unavailableCode, mayHaveRun)), stop, "it was lost"},
		{"lost, of an idempotent method, with an excuse", join(beganAt(second, methodPut), failed(unavailableCode, mayHaveRun)), excuses{idempotent: true}, ""},
		{"lost, not run", join(begin, failed(unavailableCode, notRun)), stop, "it was lost"},
		{"nobody there for an impatient caller", join(impatient, endedAt(2*second, record{Code: unavailableCode, Claim: notRun})), excuses{nobody: true}, ""},
		{"nobody there for a patient caller", join(begin, failed(unavailableCode, notRun)), excuses{nobody: true}, "it was lost"},
		{"a patient caller's deadline", join(begin, endedAt(16*second, record{Code: deadlineCode, Claim: mayHaveRun})), stop, "it was lost"},
		{"a patient caller's deadline, with an excuse", join(begin, endedAt(16*second, record{Code: deadlineCode, Claim: mayHaveRun})), excuses{deadline: true}, ""},
		{"canceled by nobody", join(begin, failed(canceledCode, mayHaveRun)), stop, "it was lost"},
		{"data loss of a call", join(begin, failed(dataLossCode, mayHaveRun)), excuses{dataLoss: true}, "it was lost"},
		{"a refusal", join(begin, failed(exhaustedCode, notRun)), stop, "it was lost"},
		{"a refusal, with an excuse", join(begin, failed(exhaustedCode, notRun)), excuses{exhausted: true}, ""},
		{"a refusal that may have run", join(begin, failed(exhaustedCode, mayHaveRun)), excuses{exhausted: true, idempotent: true}, "it was lost"},
		{"a refusal of what was sent again", join(beganAt(second, methodPut), failed(exhaustedCode, mayHaveRun)), excuses{exhausted: true, idempotent: true}, ""},
		{"internal", join(begin, failed("internal", mayHaveRun)), excuses{unavailable: true, deadline: true, notRun: true, dataLoss: true}, "it was lost"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { expect(t, collect(test.records).check(test.excuses), test.want) })
	}
}

func expect(t *testing.T, got []violation, want string) {
	t.Helper()
	switch {
	case want == "" && len(got) > 0:
		t.Errorf("%d violations, the first %q", len(got), got[0].What)
	case want != "" && len(got) != 1:
		t.Errorf("%d violations %v, want one: %s", len(got), got, want)
	case want != "" && !strings.Contains(got[0].What, want):
		t.Errorf("%q, want %q in it", got[0].What, want)
	case want != "" && len(got[0].Records) == 0:
		t.Error("the violation has no records")
	}
}

// TestRanFor: stalls of two threads may overlap.
func TestRanFor(t *testing.T) {
	stalls := func(ends ...instant) (out []*record) {
		for i := 0; i < len(ends); i += 2 {
			out = append(out, &record{Since: ends[i] * second, At: ends[i+1] * second})
		}
		return out
	}
	for _, test := range []struct {
		stalls []*record
		want   time.Duration // from 10 to 20
	}{
		{nil, 10 * time.Second},
		{stalls(1, 9, 21, 22), 10 * time.Second},
		{stalls(8, 12, 14, 15, 19, 30), 6 * time.Second},
		{stalls(12, 14, 13, 16), 6 * time.Second},
		{stalls(13, 14, 12, 16), 7 * time.Second}, // what began before is left out
		{stalls(5, 30), 0},
		{stalls(21, 22, 5, 30), 0},
	} {
		if got := ranFor(10*second, 20*second, test.stalls); got != test.want {
			t.Errorf("%v, want %v", got, test.want)
		}
	}
}

// TestCheckDenied: Put may be refused while it is forbidden, and a little later.
func TestCheckDenied(t *testing.T) {
	does := func(k kind, at instant) record {
		return record{At: at, Process: "node-0", Kind: k, Text: string(faultDeny)}
	}
	from, to := does(fault, 5*second), does(healed, 7*second)
	denied := func(method string, at instant) []record {
		return join(beganAt(at, method), endedAt(at+second/2, record{Code: deniedCode, Claim: mayHaveRun}))
	}
	limit := second * instant(permissionLimit/time.Second)
	tests := []struct {
		name    string
		records []record
		want    string
	}{
		{"forbidden", join(denied(methodPut, 6*second), from, to), ""},
		{"forbidden to the end", join(denied(methodPut, 60*second), from), ""},
		{"not yet", join(denied(methodPut, 4*second), from, to), "it was lost"},
		{"a little later", join(denied(methodPut, 6*second+limit), from, to), ""},
		{"too late", join(denied(methodPut, 8*second+limit), from, to), "it was lost"},
		{"another method", join(denied(methodGet, 6*second), from, to), "it was lost"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { expect(t, collect(test.records).check(excuses{}), test.want) })
	}
}

// TestCheckDeath: a client learns in time that its replica was killed.
func TestCheckDeath(t *testing.T) {
	death := record{At: 3 * second, Process: "replica-0", Kind: killed}
	const late = instant(deathLimit/time.Microsecond) + second
	failed := endedAt(3*second+late, record{Code: unavailableCode, Claim: mayHaveRun})
	running := ranAs("a", record{})[:1]
	begin := beganAt(second, methodAdd)
	stop := excuses{unavailable: true, idempotent: true}
	tests := []struct {
		name    string
		records []record
		excuses excuses
		want    string
	}{
		{"in time", join(begin, running, death, endedAt(4*second, record{Code: unavailableCode, Claim: mayHaveRun})), stop, ""},
		{"late", join(begin, running, death, failed), stop, "4.3s after its replica was killed"},
		{"late, with an excuse", join(begin, running, death, failed), excuses{unavailable: true, lateDeath: true}, ""},
		{"late while its client did not run", join(begin, running, death, failed, record{At: 5 * second, Process: "client-0", Kind: stalled, Since: 3 * second}), stop, ""},
		{"late, but its handler has returned", join(begin, ranAs("a", record{}), death, failed), stop, ""},
		{"late, of a method that is sent again", join(beganAt(second, methodPut), running, death, failed), stop, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			all := slices.DeleteFunc(collect(test.records).check(test.excuses), func(v violation) bool { return strings.Contains(v.What, "after the last fault") })
			expect(t, all, test.want)
		})
	}
}

// TestCheckUse: what a process uses may grow at first, and somewhat, and must have an end.
func TestCheckUse(t *testing.T) {
	uses := func(n int, use func(i int) sample) (all []record) {
		for i := range n {
			s := use(i)
			all = append(all, record{At: second * instant(i+1), Process: "replica-0", Kind: used, Sample: &s})
		}
		return all
	}
	flat := sample{Heap: 8 << 20, Goroutines: 50, Subscriptions: 20}
	with := func(change func(s *sample, i int)) func(int) sample {
		return func(i int) sample {
			s := flat
			change(&s, i)
			return s
		}
	}
	tests := []struct {
		name    string
		records []record
		want    string
	}{
		{"flat", uses(40, with(func(*sample, int) {})), ""},
		{"a start and a peak", uses(40, with(func(s *sample, i int) {
			if i < 4 || i == 39 {
				s.Heap, s.Goroutines, s.Subscriptions = 1<<30, 10_000, 1000
			}
		})), ""},
		{"more memory", uses(40, with(func(s *sample, i int) { s.Heap += int64(i) << 21 })), "memory grew"},
		{"more goroutines", uses(40, with(func(s *sample, i int) { s.Goroutines += 20 * i })), "goroutines grew from 150 to 750"},
		{"more subscriptions", uses(40, with(func(s *sample, i int) { s.Subscriptions += 10 * i })), "subscriptions grew"},
		{"too few to say", uses(enoughSamples-1, with(func(s *sample, i int) { s.Goroutines += 1000 * i })), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { expect(t, collect(test.records).check(excuses{}), test.want) })
	}
}

// TestCheckStream is TestCheck for the items of streams.
func TestCheckStream(t *testing.T) {
	five := tally{{0, 5}}
	tests := []struct {
		name    string
		method  string
		handler record
		client  record
		want    string
	}{
		{"a watch", methodWatch, record{Sent: 5}, record{Got: five}, ""},
		{"a watch without items", methodWatch, record{}, record{}, ""},
		{"a watch that fails", methodWatch, record{Sent: 5, Code: abortedCode}, record{Got: five, Code: abortedCode, Claim: didRun}, ""},
		{"a watch that was canceled", methodWatch, record{Sent: 9, Code: canceledCode}, record{Got: five, Code: canceledCode, Claim: mayHaveRun, GaveUp: 3 * second}, ""},
		{"a gap", methodWatch, record{Sent: 5}, record{Got: tally{{0, 2}, {3, 6}}}, "the client got the items [{0 2} {3 6}]"},
		{"a double", methodWatch, record{Sent: 5}, record{Got: tally{{0, 2}, {1, 4}}}, "the client got the items"},
		{"a missing start", methodWatch, record{Sent: 5}, record{Got: tally{{1, 6}}}, "the client got the items"},
		{"a clean end after fewer", methodWatch, record{Sent: 6}, record{Got: five}, "ended with ok after 5 items, but the handler sent 6"},
		{"a failure after fewer", methodWatch, record{Sent: 6, Code: abortedCode}, record{Got: five, Code: abortedCode, Claim: didRun}, "ended with aborted after 5 items"},
		{"more than was sent", methodWatch, record{Sent: 3, Code: canceledCode}, record{Got: five, Code: canceledCode, Claim: mayHaveRun, GaveUp: 3 * second}, "got 5 items of 3"},
		{"a clean end of a handler that failed", methodWatch, record{Sent: 5, Code: abortedCode}, record{Got: five}, "ended with ok, but it ended with aborted"},

		{"an import", methodImport, record{Got: five, Closed: true}, record{Sent: 5, Closed: true, Count: 5, Run: "a"}, ""},
		{"an import that the handler ends", methodImport, record{Got: five, Code: abortedCode}, record{Sent: 9, Code: abortedCode, Claim: didRun, Run: "a"}, ""},
		{"a committed import that was canceled", methodImport, record{Got: five, Closed: true}, record{Sent: 5, Code: canceledCode, Claim: mayHaveRun, GaveUp: 3 * second}, "has not closed its half"},
		{"a canceled import", methodImport, record{Got: five, Code: canceledCode}, record{Sent: 6, Code: canceledCode, Claim: mayHaveRun, GaveUp: 3 * second}, ""},
		{"an import with a gap", methodImport, record{Got: tally{{0, 2}, {3, 6}}, Closed: true}, record{Sent: 5, Closed: true, Count: 5, Run: "a"}, "the handler got the items"},
		{"an import that commits fewer", methodImport, record{Got: five, Closed: true}, record{Sent: 6, Closed: true, Count: 6, Run: "a"}, "a clean end after 5 items, but the client sent 6"},
		{"an import that answers about fewer", methodImport, record{Got: five, Closed: true}, record{Sent: 5, Closed: true, Count: 4, Run: "a"}, "about 4 items"},
		{"an import that succeeds without its end", methodImport, record{Got: five}, record{Sent: 5, Closed: true, Count: 5, Run: "a"}, "has not seen the end"},

		{"a talk", methodTalk, record{Got: five, Sent: 5, Closed: true}, record{Sent: 5, Got: five, Closed: true}, ""},
		{"a talk that was not closed", methodTalk, record{Got: five, Sent: 5}, record{Sent: 5, Got: five}, "has not seen the end"},
		{"a talk with an answer less", methodTalk, record{Got: five, Sent: 5, Closed: true}, record{Sent: 5, Got: tally{{0, 4}}, Closed: true}, "after 4 items, but the handler sent 5"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			all := join(beganAt(second, test.method), ranAs("a", test.handler), endedAt(3*second, test.client))
			expect(t, collect(all).check(excuses{}), test.want)
		})
	}
	t.Run("a clean end of a handler that goes on", func(t *testing.T) {
		all := join(beganAt(second, methodWatch), ranAs("a", record{})[:1], endedAt(3*second, record{}))
		expect(t, collect(all).check(excuses{}), "but it has not")
	})
}

// TestCheckProcess is TestCheck for what is left at the end of a process.
func TestCheckProcess(t *testing.T) {
	of := func(k kind, count int) record {
		return record{At: 9 * second, Process: "replica-0", Kind: k, Count: count, Text: string(k)}
	}
	call := join(beganAt(second, methodAdd), ranAs("a", record{}), endedAt(3*second, record{Run: "a"}))
	running := join(beganAt(second, methodAdd), ranAs("a", record{})[:1], endedAt(3*second, record{Code: unavailableCode, Claim: mayHaveRun}))
	tests := []struct {
		name    string
		records []record
		want    string
	}{
		{"a clean end", join(call, of(started, 0), of(left, 0), of(exits, 0)), ""},
		{"goroutines", join(call, of(started, 0), of(exits, 3)), "3 goroutines are left"},
		{"calls", join(call, of(left, 2)), "2 calls are in flight"},
		{"a replica that nobody finds", join(call, of(silent, 0)), "silent"},
		{"a handler", join(running, of(exits, 0)), "1 handlers had not returned when it ended, such as a"},
		{"a handler that was killed", join(running, of(killed, 0)), ""},
		{"a process that does not end", join(call, of(stuck, 0)), "stuck"},
		{"a process that fails", join(call, of(died, 0)), "died"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { expect(t, collect(test.records).check(excuses{unavailable: true}), test.want) })
	}
}

// TestCheckHealing: calls succeed after the last fault.
func TestCheckHealing(t *testing.T) {
	does := func(at instant, process string, k kind) record { return record{At: at, Process: process, Kind: k} }
	end := does(9*second, "client-0", event)
	run := ranAs("a", record{})
	success := endedAt(3*second, record{Run: "a"})
	failure := endedAt(3*second, record{Code: unavailableCode, Claim: mayHaveRun})
	begin := beganAt(2*second, methodAdd)
	tests := []struct {
		name    string
		records []record
		want    string
	}{
		{"a success after a fault", join(does(second, "node-0", killed), begin, run, success, end), ""},
		{"a failure after a fault", join(does(second, "node-0", killed), begin, failure, end), "no call has succeeded"},
		{"a success that began before a fault", join(begin, does(second*5/2, "node-0", killed), run, success, end), "no call has succeeded"},
		{"a success before a signal", join(begin, run, success, does(4*second, "replica-0", event), end), "no call has succeeded"},
		{"a success before the replicas end", join(begin, run, success, end, does(10*second, "replica-0", event)), ""},
		{"a success before another client ends", join(begin, run, success, does(8*second, "client-1", event), end,
			record{At: second, Process: "client-1", Kind: began, Call: "d", Method: methodNote, Deadline: 16 * second},
			record{At: second, Process: "client-1", Kind: ended, Call: "d", Code: okCode}), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { expect(t, collect(test.records).check(excuses{unavailable: true}), test.want) })
	}
}
