package flow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/natscall/natscall/rpc/internal/wire"
)

const maxMessage = 400 << 10

// pair is a sender and a receiver with a wire between them.
type pair struct {
	s     Sender
	r     Receiver
	wire  []wire.Frame
	sent  [][]byte
	got   [][]byte
	ended bool

	granted, spent uint64 // what the sender has been told, and the cost of its frames
	// Since the last data frame: a frame was asked for that there was no credit
	// for; and credit came when there was something to send, and not enough of it for that.
	waited, short bool
}

func newPair() *pair {
	p := &pair{r: Receiver{MaxMessage: maxMessage}}
	p.grant()
	return p
}

func (p *pair) grant() {
	before := p.r.Granted()
	total, due := p.r.Grant()
	if total < before || total != p.r.Granted() || due != (total > before) {
		panic(fmt.Sprintf("granted %d after %d, due: %v", total, before, due))
	}
	if due {
		p.short = p.short || p.s.Buffered() > 0 && !p.s.CanSend(MaxBody)
		p.s.Grant(total)
		p.granted = total
	}
}

func (p *pair) push(m []byte) {
	p.s.Push(append(p.s.Grow(), m...), len(m)%2 == 1)
	p.sent = append(p.sent, slices.Clone(m))
}

func (p *pair) frame(maxBody int) bool {
	can := p.s.CanSend(maxBody)
	b, kind, ok := p.s.AppendFrame(nil, maxBody)
	if ok != can {
		panic(fmt.Sprintf("CanSend %v, AppendFrame %v", can, ok))
	}
	if !ok {
		p.waited = p.s.Buffered() > 0
		return false
	}
	if f := p.put(b); f.Kind != kind {
		panic(fmt.Sprintf("%v is not of kind %v", f, kind))
	}
	return true
}

// pushAlone is push for a message that may get a frame of its own.
func (p *pair) pushAlone(m []byte, maxBody int) {
	room, free := p.room(), p.s.Buffered() == 0 && wire.MessagePrefix+len(m) <= maxBody
	b, ok := p.s.Frame(append(make([]byte, FrameRoom), m...), len(m)%2 == 1, maxBody)
	if fits := wire.MessagePrefix+len(m) <= room; ok != (free && fits) {
		panic(fmt.Sprintf("Frame %v, of %d bytes with credit for %d", ok, len(m), room))
	} else if free && !fits {
		p.waited = true
	}
	if !ok {
		p.push(m)
		return
	}
	p.sent = append(p.sent, slices.Clone(m))
	p.put(b)
}

// room is what the credit allows the body of a frame, by what went over the wire.
func (p *pair) room() int { return int(p.granted) - int(p.spent) - wire.FrameCost }

// put puts a frame on the wire. It says that it waited if it did.
func (p *pair) put(b []byte) wire.Frame {
	f, err := wire.ParseFrame(b)
	if err != nil || f.Kind == wire.KindData && len(f.Body) == 0 {
		panic(fmt.Sprintf("%v %v", f, err))
	}
	if f.Kind == wire.KindData {
		if said := f.Flags&wire.FlagWaited != 0; said && !p.waited && !p.short || !said && p.waited {
			panic(fmt.Sprintf("frame %d: waited %v, it says %v", f.Number, !said, said))
		}
		p.waited, p.short = false, false
		if p.spent += uint64(len(f.Body) + wire.FrameCost); p.spent > p.granted {
			panic(fmt.Sprintf("frame %d is %d bytes over the credit", f.Number, p.spent-p.granted))
		}
	}
	p.wire = append(p.wire, f)
	return f
}

// deliver takes a frame off the wire, like the runtime.
func (p *pair) deliver() error {
	f := p.wire[0]
	p.wire = p.wire[1:]
	if f.Kind == wire.KindEnd {
		return p.r.End(f.Number)
	}
	err := p.r.Data(f.Number, f.Body)
	if f.Flags&wire.FlagWaited != 0 {
		p.r.Waited()
	}
	return err
}

func (p *pair) read() (bool, error) {
	m, compressed, ok, err := p.r.Message()
	if ok {
		if compressed != (len(m)%2 == 1) {
			panic("the flag of a message has changed")
		}
		p.got = append(p.got, m)
	}
	p.ended = !ok && err == nil && p.r.Ended()
	return ok, err
}

// TestRandomSteps drives a pair through random steps; whatever their order,
// what is read is what was pushed, in order, then the end, and neither side keeps more than it may.
func TestRandomSteps(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		p := newPair()
		messages, maxBody := rnd.IntN(200), 1+rnd.IntN(MaxBody)
		// The weights of the steps change, so that at times the others wait for each of them.
		var weights [5]int
		for steps := 0; !p.ended; steps++ {
			if steps > 1_000_000 {
				t.Fatalf("seed %d: no end; %d sent, %d got", seed, len(p.sent), len(p.got))
			}
			if steps%1000 == 0 {
				for i := range weights {
					weights[i] = 1 << rnd.IntN(8)
				}
			}
			switch pick(rnd, weights) {
			case 0:
				switch {
				case len(p.sent) == messages:
					p.s.Close()
				case rnd.IntN(2) == 0:
					p.pushAlone(randomMessage(rnd), maxBody)
				default:
					p.push(randomMessage(rnd))
				}
			case 1:
				p.frame(maxBody)
			case 2:
				if len(p.wire) > 0 {
					if err := errors.Join(p.deliver(), p.bounded()); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
				}
			case 3:
				if _, err := p.read(); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			case 4:
				p.grant()
			}
		}
		if len(p.got) != messages || !slices.EqualFunc(p.sent, p.got, bytes.Equal) {
			t.Fatalf("seed %d: %d of %d messages came, or others", seed, len(p.got), messages)
		}
		if err := p.r.Heartbeat(p.s.Next()); err != nil {
			t.Fatal(err)
		}
	}
}

// pick returns one of the steps, those of more weight more often.
func pick(rnd *rand.Rand, weights [5]int) (step int) {
	n := rnd.IntN(weights[0] + weights[1] + weights[2] + weights[3] + weights[4])
	for n -= weights[0]; n >= 0; n -= weights[step] {
		step++
	}
	return step
}

// bounded reports whether the receiver keeps more than it has granted, or has
// granted more than a window.
func (p *pair) bounded() error {
	kept := uint64(kept(&p.r))
	switch {
	// Until it has been read in full, all of a frame is kept.
	case kept > p.r.granted-p.r.read+MaxBody:
		return fmt.Errorf("the receiver keeps %d bytes, of %d granted beyond what was read", kept, p.r.granted-p.r.read)
	case p.r.granted > p.r.read+MaxWindow:
		return fmt.Errorf("%d bytes are granted beyond what was read", p.r.granted-p.r.read)
	case p.r.size() < Window || p.r.size() > MaxWindow:
		return fmt.Errorf("the window is %d bytes", p.r.size())
	}
	return nil
}

func kept(r *Receiver) (n int) {
	for _, f := range r.frames {
		n += len(f) + wire.FrameCost
	}
	return n
}

func randomMessage(rnd *rand.Rand) []byte {
	size := []int{0, 1, rnd.IntN(100), rnd.IntN(MaxBody * 2), rnd.IntN(maxMessage)}[rnd.IntN(5)]
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, rnd.Uint64())
	}
	return b[:size]
}

// TestFaultyWire: a frame that is lost, doubled or out of order is noticed
// before anything behind it is read, and never a clean end.
func TestFaultyWire(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		p := newPair()
		for range 2 + rnd.IntN(5) {
			p.push(randomMessage(rnd)[:0])
			p.push([]byte("message"))
			for p.frame(1 + rnd.IntN(10)) {
			}
		}
		p.s.Close()
		p.frame(MaxBody)
		i := rnd.IntN(len(p.wire) - 1)
		fault := []string{"lose", "double", "swap"}[rnd.IntN(3)]
		switch fault {
		case "lose":
			p.wire = slices.Delete(p.wire, i, i+1)
		case "double":
			p.wire = slices.Insert(p.wire, i, p.wire[i])
		case "swap":
			p.wire[i], p.wire[i+1] = p.wire[i+1], p.wire[i]
		}
		var err error
		for err == nil && len(p.wire) > 0 {
			err = p.deliver()
		}
		if !errors.Is(err, ErrLost) {
			t.Fatalf("seed %d, %s at %d: %v", seed, fault, i, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	prefix := func(n int, rest ...byte) []byte { return append(wire.AppendMessagePrefix(nil, n), rest...) }
	tests := []struct {
		name string
		do   func(*Receiver) error
		want error
	}{
		{"too large", func(r *Receiver) error { return dataAndRead(r, prefix(maxMessage+1)) }, ErrTooLarge},
		{"absurd length", func(r *Receiver) error { return dataAndRead(r, []byte{0, 255, 255, 255, 255}) }, ErrTooLarge},
		{"prefix", func(r *Receiver) error { return dataAndRead(r, []byte{9, 0, 0, 0, 0}) }, ErrPrefix},
		{"partial prefix", func(r *Receiver) error { _ = r.Data(0, []byte{0, 0}); _ = r.End(1); return read(r) }, ErrPartial},
		{"partial message", func(r *Receiver) error { _ = r.Data(0, prefix(3, 'a')); _ = r.End(1); return read(r) }, ErrPartial},
		{"after the end", func(r *Receiver) error { _ = r.End(0); return r.Data(1, []byte{1}) }, ErrAfterEnd},
		{"second end", func(r *Receiver) error { _ = r.End(0); return r.End(1) }, ErrAfterEnd},
		{"credit", func(r *Receiver) error { return r.Data(0, make([]byte, Window-wire.FrameCost+1)) }, ErrCredit},
		{"credit by small frames", smallFrames, ErrCredit},
		{"heartbeat ahead", func(r *Receiver) error { return r.Heartbeat(1) }, ErrLost},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := &Receiver{MaxMessage: maxMessage}
			r.Grant()
			if err := test.do(r); !errors.Is(err, test.want) {
				t.Errorf("error is %v, want %v", err, test.want)
			}
		})
	}
}

func dataAndRead(r *Receiver, body []byte) error {
	if err := r.Data(0, body); err != nil {
		return err
	}
	return read(r)
}

func read(r *Receiver) error {
	for {
		if _, _, ok, err := r.Message(); err != nil || !ok {
			return err
		}
	}
}

func smallFrames(r *Receiver) error {
	for i := range uint64(Window) {
		if err := r.Data(i, []byte{0}); err != nil {
			return err
		}
	}
	return nil
}

// TestBufferIsBounded: a sender that is never quite done does not grow.
func TestBufferIsBounded(t *testing.T) {
	p := newPair()
	for range 4_000 {
		p.push(make([]byte, 1000))
		for p.s.Buffered() > 3000 {
			p.frame(1500)
			if err := p.deliver(); err != nil {
				t.Fatal(err)
			}
			for ok := true; ok; {
				ok, _ = p.read()
			}
			p.grant()
		}
		p.got, p.sent = nil, nil
	}
	if n := cap(p.s.buffer); n > 64<<10 {
		t.Errorf("the buffer has grown to %d bytes", n)
	}
}

// FuzzReceiver: whatever a peer sends, a receiver keeps at most its window and one message.
func FuzzReceiver(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 3, 'a', 'b', 'c'}, uint8(2))
	f.Add([]byte{0, 0, 0, 0, 0, 1}, uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		r := &Receiver{MaxMessage: 100}
		r.Grant()
		var out []byte
		var sequence uint64
		for body := range slices.Chunk(data, int(cut)+1) {
			if r.Data(sequence, body) != nil {
				return
			}
			sequence++
			for {
				m, compressed, ok, err := r.Message()
				if err != nil {
					return
				}
				if !ok {
					break
				}
				prefix := len(out)
				out = append(wire.AppendMessagePrefix(out, len(m)), m...)
				wire.PutMessagePrefix(out[prefix:], compressed, len(m))
			}
			r.Grant()
		}
		if !bytes.HasPrefix(data, out) {
			t.Errorf("%x is read as %x", data, out)
		}
	})
}

// TestOpeningIsFree: a peer that sends bytes in the open may spend all its credit beside.
func TestOpeningIsFree(t *testing.T) {
	r := &Receiver{MaxMessage: maxMessage}
	r.Opening(append(wire.AppendMessagePrefix(nil, 20_000), make([]byte, 20_000)...))
	granted, _ := r.Grant()
	for i := range granted / (MaxBody + wire.FrameCost) {
		if err := r.Data(i, make([]byte, MaxBody)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, ok, err := r.Message(); !ok || err != nil || r.read != 0 {
		t.Errorf("%v, %v, %d bytes read", ok, err, r.read)
	}
}
