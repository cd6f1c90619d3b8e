package flow

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// FuzzPair drives a sender and a receiver through any steps, over a wire that may lose, double and
// swap frames. What is read is what was pushed, in order; the end comes behind all of it; neither
// side keeps or sends more than it may; and a fault is an error before anything behind it is read.
// The first byte is the size of a frame, each other a step.
func FuzzPair(f *testing.F) {
	const steps = "\x01\x11\x02\x03\x04\x05\x03"
	f.Add([]byte("\x40" + steps + steps + "\x07\x02\x03\x03\x04\x04"))
	f.Add([]byte("\x05\xf0\xf0\x02\x02\x02\x02\x03\x03\x03\x04\x05\x07\x02\x02\x03\x04"))
	f.Add([]byte("\x20\x10\x20\x02\x02\x0e\x03\x03"))
	f.Add([]byte("\x10\x11\x21\x16\x03\x04\x26\x03\x03\x04"))
	f.Add(append([]byte("\xff"), slices.Repeat([]byte{0xf9, 0x02, 0x02, 0x02}, 64)...))
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) == 0 {
			return
		}
		maxBody := 1 + int(input[0])*128
		p := newPair()
		faulty := false
		for i, step := range input[1:] {
			var err error
			switch size := int(step>>3) * int(step>>3) * 32; step & 7 {
			case 0, 1:
				if p.s.Closing() {
					break
				}
				message := slices.Repeat([]byte{byte(i)}, size)
				if step&1 == 0 {
					p.push(message)
				} else {
					p.pushAlone(message, maxBody)
				}
			case 2:
				p.frame(maxBody)
			case 3:
				if len(p.wire) > 0 {
					err = errors.Join(p.deliver(), p.bounded())
				}
			case 4:
				_, err = p.read()
			case 5:
				p.grant()
			case 6:
				faulty = p.disturb(int(step>>3)) || faulty
			default:
				p.s.Close()
			}
			if err != nil && !faulty {
				t.Fatalf("step %d: %v", i, err)
			}
			if len(p.got) > len(p.sent) || !slices.EqualFunc(p.sent[:len(p.got)], p.got, bytes.Equal) {
				t.Fatalf("step %d: %d of %d messages came, or others", i, len(p.got), len(p.sent))
			}
			if p.ended && len(p.got) != len(p.sent) {
				t.Fatalf("step %d: a clean end after %d of %d messages", i, len(p.got), len(p.sent))
			}
			if err != nil {
				return
			}
		}
	})
}

// disturb does something to a frame on the wire. It reports whether that changes anything.
func (p *pair) disturb(how int) bool {
	i := how / 3
	switch {
	case i >= len(p.wire):
		return false
	case how%3 == 0:
		p.wire = slices.Delete(p.wire, i, i+1)
	case how%3 == 1:
		p.wire = slices.Insert(p.wire, i, p.wire[i])
	case i+1 >= len(p.wire):
		return false
	default:
		p.wire[i], p.wire[i+1] = p.wire[i+1], p.wire[i]
	}
	return true
}
