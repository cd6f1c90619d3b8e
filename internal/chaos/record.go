package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// record is one thing that a process has seen. Every process appends to a file of its own, and
// the checker reads all of them. Which fields are set depends on the kind.
type record struct {
	At      instant `json:"at"`
	Process string  `json:"process"`
	Kind    kind    `json:"kind"`

	// A call, or an execution of it.
	Call   string `json:"call,omitempty"`
	Method string `json:"method,omitempty"`
	Run    string `json:"run,omitempty"` // an execution's name, unique

	Deadline instant `json:"deadline,omitempty"` // began: of the call
	GaveUp   instant `json:"gaveUp,omitempty"`   // ended: when the caller canceled, if it did

	Code  string `json:"code,omitempty"`  // ended, ran: "ok" or a code's name
	Claim string `json:"claim,omitempty"` // ended: what the error says about the execution
	Text  string `json:"text,omitempty"`  // an error's text; what the runner did; stacks
	Wrong string `json:"wrong,omitempty"` // ended, ran: the first content that is not its own

	// Of a stream. Closed is that of the items which the client sends: it has closed its half
	// (ended), or the handler has seen their clean end (ran).
	Sent   int   `json:"sent,omitempty"` // items that Send took
	Got    tally `json:"got,omitempty"`  // items that came, in their order
	Closed bool  `json:"closed,omitempty"`

	Op *Operation `json:"op,omitempty"` // on a register: began, and ended: the answer

	Count int `json:"count,omitempty"` // ended: items, by the response; exits, left: what is left

	Since  instant `json:"since,omitempty"`  // stalled: when the ticker should have run
	Sample *sample `json:"sample,omitempty"` // used
}

// kind says what a record is about.
type kind string

const (
	// By a client.
	began   kind = "began"   // a call is about to be made
	ended   kind = "ended"   // it has ended
	stalled kind = "stalled" // the process did not get to run for a while

	// By a replica.
	run kind = "run" // a handler begins
	ran kind = "ran" // and returns

	used kind = "used" // by clients and replicas, and by the runner about nodes: Sample has what

	// By clients and replicas, the last record: Count goroutines are left, with their stacks in
	// Text.
	exits kind = "exits"

	// By the runner, about a process.
	started kind = "started"
	killed  kind = "killed" // by the plan
	stuck   kind = "stuck"  // killed, as it did not end when asked to
	died    kind = "died"   // it ended in another way than by exit status 0; Text has it
	event   kind = "event"  // Text has it
	fault   kind = "fault"  // by the plan: Text has its name
	healed  kind = "healed" // the end of a fault that takes some time
	silent  kind = "silent" // it does not answer discovery
	left    kind = "left"   // Count calls are in flight by a replica's statistics, without a client
)

// instant is microseconds since 1970, by a clock that does not jump within a process.
type instant int64

var processStart = time.Now()

func now() instant { return at(time.Now()) }

// at is the instant of a time that has a monotonic part.
func at(t time.Time) instant {
	return instant(processStart.UnixMicro() + t.Sub(processStart).Microseconds())
}

func (i instant) add(d time.Duration) instant       { return i + instant(d.Microseconds()) }
func (i instant) since(other instant) time.Duration { return time.Duration(i-other) * time.Microsecond }

// span is the numbers from From up to and without To.
type span struct{ From, To int }

// MarshalJSON writes [from,to].
func (s span) MarshalJSON() ([]byte, error) { return json.Marshal([2]int{s.From, s.To}) }

// UnmarshalJSON reads [from,to].
func (s *span) UnmarshalJSON(b []byte) error {
	var pair [2]int
	err := json.Unmarshal(b, &pair)
	s.From, s.To = pair[0], pair[1]
	return err
}

// tally keeps the numbers that came in the order in which they came. Those of a stream that is
// whole are one span.
type tally []span

func (t *tally) add(n int) {
	if last := len(*t) - 1; last >= 0 && (*t)[last].To == n {
		(*t)[last].To++
		return
	}
	*t = append(*t, span{n, n + 1})
}

// count is how many numbers came.
func (t tally) count() (n int) {
	for _, s := range t {
		n += s.To - s.From
	}
	return n
}

// whole reports whether the numbers are 0, 1, 2 and so on, without a gap or a double.
func (t tally) whole() bool { return len(t) == 0 || len(t) == 1 && t[0].From == 0 }

// journal is the file of a process. A record is one write, so that a process which is killed at
// any time leaves all the records that it had made. Its methods may be called concurrently.
type journal struct {
	process string
	file    *os.File

	mu  sync.Mutex
	err error // the first
}

func openJournal(dir, process string) (*journal, error) {
	f, err := os.OpenFile(filepath.Join(dir, process+".jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &journal{process: process, file: f}, err
}

// write appends a record, and sets when and by whom it was made where it does not say.
func (j *journal) write(r record) {
	if r.At == 0 {
		r.At = now()
	}
	if r.Process == "" {
		r.Process = j.process
	}
	line, err := json.Marshal(r)
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	if err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.err = errors.Join(j.err, err)
	}
}

// close returns the error of any write.
func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.err, j.file.Close())
}

// readJournals reads the records of all processes.
func readJournals(dir string) ([]record, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	var all []record
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for d := json.NewDecoder(bytes.NewReader(data)); ; {
			var r record
			if err := d.Decode(&r); err == io.EOF {
				break
			} else if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			all = append(all, r)
		}
	}
	return all, nil
}
