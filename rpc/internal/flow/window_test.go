package flow

import (
	"errors"
	"testing"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// fill sends messages of 10,000 bytes until there is no credit for another one.
func (p *pair) fill() {
	for size := 10_000; p.room() >= size+wire.MessagePrefix; {
		p.pushAlone(make([]byte, size), MaxBody)
	}
}

// drain delivers all frames, and reads until so many bytes are unread and
// there is credit for a message of 20,000 bytes.
func (p *pair) drain(t *testing.T, unread uint64) {
	t.Helper()
	for len(p.wire) > 0 {
		if err := p.deliver(); err != nil {
			t.Fatal(err)
		}
	}
	for p.grant(); p.r.got-p.r.read > unread || p.room() < 20_000+wire.MessagePrefix; p.grant() {
		if ok, err := p.read(); err != nil || !ok {
			t.Fatalf("nothing is left to read, %d bytes are unread: %v", p.r.got-p.r.read, err)
		}
	}
}

// TestWaitedForCredit: a frame says that it waited where it had to, however
// the sender noticed it, and no other frame does.
func TestWaitedForCredit(t *testing.T) {
	message := make([]byte, 20_000)
	for name, try := range map[string]func(p *pair){
		"by AppendFrame": func(p *pair) {
			p.push(message)
			if p.frame(MaxBody) {
				t.Error("a frame without credit")
			}
		},
		"by Frame": func(p *pair) { p.pushAlone(message, MaxBody) },
		"by CanSend": func(p *pair) { // which the runtime asks first
			p.push(message)
			if p.s.CanSend(MaxBody) {
				t.Error("a frame without credit")
			}
			p.waited = true
		},
		"nothing to send": func(p *pair) {
			if p.frame(MaxBody) {
				t.Error("a frame of nothing")
			}
			p.drain(t, 0)
			p.push(message)
		},
		"credit in time": func(p *pair) {
			p.drain(t, 0)
			p.pushAlone(message, MaxBody)
			p.push(message)
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if wrong := recover(); wrong != nil { // what the pair says of a frame
					t.Error(wrong)
				}
			}()
			p := newPair()
			p.fill()
			p.frame(MaxBody) // nothing is left
			try(p)
			p.drain(t, 0)
			p.push(message) // shares the frame, or has one that did not wait
			for p.frame(MaxBody) {
			}
		})
	}
}

// TestWindow: the window doubles where the reader has read what came and the
// sender waited nevertheless, and halves where the reader is what it waits for.
func TestWindow(t *testing.T) {
	p := newPair()
	// step lets the sender wait until so many eighths of the window are unread, or
	// fewer where there would be no credit before that.
	step := func(what string, eighths, want uint64) {
		t.Helper()
		p.fill()
		p.pushAlone(make([]byte, 20_000), MaxBody)
		p.drain(t, eighths*p.r.size()/8)
		p.frame(MaxBody)
		if err := errors.Join(p.deliver(), p.bounded()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if p.r.size() != want {
			t.Fatalf("%s: the window is %d bytes, want %d", what, p.r.size(), want)
		}
		p.grant()
		p.got, p.sent = nil, nil
	}
	for _, want := range []uint64{2 * Window, MaxWindow, MaxWindow, MaxWindow} {
		step("a reader that reads all", 0, want)
	}
	step("a reader that has read more than half", 3, MaxWindow)
	for _, want := range []uint64{MaxWindow / 2, Window, Window, Window} {
		step("a reader that reads what credit takes", 8, want)
	}
	step("a small window, of which more than half was read", 3, Window)
	for range 20 { // the sender does not wait
		p.fill()
		p.drain(t, 0)
	}
	if p.r.size() != Window {
		t.Errorf("without waiting the window is %d bytes", p.r.size())
	}
	step("a reader that reads all again", 0, 2*Window)
}

// TestCreditIsBounded: of what a peer grants counts a Window until it is heard, and then
// MaxAhead behind each grant, however often and however much it grants.
func TestCreditIsBounded(t *testing.T) {
	const absurd = 1 << 62
	message := make([]byte, 1000)
	sendAll := func(s *Sender) (sent uint64) { // until there is no credit
		before := s.spent
		for {
			s.Push(append(s.Grow(), message...), false)
			if _, _, ok := s.AppendFrame(nil, MaxBody); !ok {
				s.Opening(1 << 30) // takes what is buffered away
				return s.spent - before
			}
		}
	}
	within := func(sent, want uint64) {
		t.Helper()
		if sent > want || sent < want-2*MaxBody {
			t.Errorf("%d bytes of credit were spent, want %d", sent, want)
		}
	}
	var s Sender
	s.GrantInOpen(absurd)
	within(sendAll(&s), Window)
	s.Heard()
	within(sendAll(&s), MaxAhead)
	s.Heard() // once more says nothing
	within(sendAll(&s)+2*MaxBody, 2*MaxBody)
	for range 3 {
		s.Grant(absurd)
		within(sendAll(&s), MaxAhead)
	}
	s.Grant(s.spent + 10_000)
	if s.credit < s.spent {
		t.Error("a grant took credit away")
	}

	var modest Sender
	modest.GrantInOpen(5000)
	modest.Heard()
	modest.Grant(5000)
	if sent := sendAll(&modest); sent > 5000 {
		t.Errorf("%d bytes were spent of a credit of 5000", sent)
	}
}
