package rpctap_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/rpctap"
)

// FuzzCalls shows a Calls the frames of an input, on subjects that belong together and do not.
// Nothing panics; what is wrong is said; a message is no longer than what came; and reading does
// not change the bytes.
func FuzzCalls(f *testing.F) {
	var all []byte
	for _, block := range hexBlocks(f) {
		f.Add(append([]byte{0}, block...), byte(len(block)))
		all = append(append(append(all, 3), block...), 0xfe, 0xfe)
	}
	f.Add(all, byte(1))
	f.Add([]byte("\x00{\"a\":1}\xfe\xfe\x01{\"b\":2}\xfe\xfe\x01"), byte(9))
	subjects := []string{
		"a.S.M", "_INBOX.r", "a.S._i.ABC." + firstID, "a.S._all.cancel", "a.S._i.ABC.call.M", "_INBOX.s", "", "a.S._i.DEF." + firstID,
	}
	f.Fuzz(func(t *testing.T, input []byte, choice byte) {
		calls := rpctap.NewCalls()
		for i, data := range strings.Split(string(input), "\xfe\xfe") {
			if data == "" {
				continue
			}
			m := &nats.Msg{Subject: subjects[int(data[0])%len(subjects)], Data: []byte(data[1:])}
			if choice>>(i%8)&1 == 1 {
				m.Reply = subjects[1+i%2*4]
			}
			before := slices.Clone(m.Data)
			check(t, calls.Observe(m, time.Unix(int64(i), 0)), len(m.Data))
			if string(before) != string(m.Data) {
				t.Errorf("% x became % x", before, m.Data)
			}
		}
	})
}

func check(t *testing.T, e *rpctap.Event, size int) {
	t.Helper()
	if e.Kind == rpctap.KindInvalid && e.Err == nil && len(e.Batch) == 0 {
		t.Errorf("%+v is invalid without a reason", e.Message)
	}
	if e.Size > size || e.BodySize > size {
		t.Errorf("%d bytes came, and %d, %d are said", size, e.Size, e.BodySize)
	}
	if e.Kind.IsControl() && len(e.Messages) > 0 {
		t.Errorf("%v has messages", e.Kind)
	}
	if e.Kind == rpctap.KindError && e.Failure == nil && e.Err == nil {
		t.Errorf("an error that says nothing")
	}
	if e.Partial < 0 || e.After < 0 {
		t.Errorf("%d bytes are left, after %v", e.Partial, e.After)
	}
	for _, item := range e.Batch {
		check(t, item, size)
	}
}
