package main

import (
	"bytes"
	"fmt"

	chaosv1 "github.com/natscall/natscall/internal/chaos/gen/chaos/v1"
)

// Everything that a call carries is derived from its id, so that each side can see by itself
// whether what came belongs to the call.

// content is size bytes that belong to a number of a call. It compresses well, and can be read.
func content(call string, number, size int) []byte {
	block := fmt.Appendf(nil, "%s#%d ", call, number)
	return bytes.Repeat(block, size/len(block)+1)[:size]
}

// The numbers of a unary call's request and response.
const (
	requestNumber  = -1
	responseNumber = -2
)

// wrongContent returns what is wrong with data, or "".
func wrongContent(call string, number int, data []byte) string {
	if bytes.Equal(data, content(call, number, len(data))) {
		return ""
	}
	return fmt.Sprintf("data of %d bytes that begins with %q, in the call %s, number %d", len(data), data[:min(len(data), 40)], call, number)
}

func newItem(call string, number, size int) *chaosv1.Item {
	return &chaosv1.Item{Call: call, Number: uint32(number), Data: content(call, number, size)}
}

// items keeps account of one direction of a stream.
type items struct {
	call  string
	got   tally
	wrong string
}

func (i *items) add(item *chaosv1.Item) {
	i.got.add(int(item.GetNumber()))
	switch {
	case i.wrong != "":
	case item.GetCall() != i.call:
		i.wrong = fmt.Sprintf("an item of the call %s", item.GetCall())
	default:
		i.wrong = wrongContent(i.call, int(item.GetNumber()), item.GetData())
	}
}
