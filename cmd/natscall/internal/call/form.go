package call

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	"github.com/natscall/natscall/rpc"
)

// form is how requests come in and responses go out.
type form interface {
	// split splits the input into requests.
	split(r *bufio.Reader) func() ([]byte, error)
	// request makes a request of a call from input; nil is an empty one.
	request(data []byte) (any, error)
	// response returns what a response is received into.
	response() any
	// text returns a response as it is written; several stand one in a line.
	text(response any, several bool) ([]byte, error)
}

// jsonForm is the JSON of messages of a schema.
type jsonForm struct {
	in, out  protoreflect.MessageDescriptor
	types    *schema.Types
	defaults bool // also fields that have their default
}

func (jsonForm) split(r *bufio.Reader) func() ([]byte, error) { return splitJSON(r) }

func (f jsonForm) request(data []byte) (any, error) {
	m := dynamicpb.NewMessage(f.in)
	if data == nil {
		return m, nil
	}
	return m, schema.Unmarshal(data, m, f.types)
}

func (f jsonForm) response() any { return dynamicpb.NewMessage(f.out) }

func (f jsonForm) text(response any, several bool) ([]byte, error) {
	data, err := schema.Marshal(response.(proto.Message), f.types, f.defaults)
	return lines(data, several), err
}

// rawJSON is JSON that the service reads and writes, for want of a schema.
type rawJSON struct{}

func (rawJSON) split(r *bufio.Reader) func() ([]byte, error) { return splitJSON(r) }

func (rawJSON) request(data []byte) (any, error) {
	if data == nil {
		data = []byte("{}")
	}
	return &rpc.Raw{Codec: rpc.CodecJSON, Data: data}, nil
}

func (rawJSON) response() any { return new(rpc.Raw) }

func (rawJSON) text(response any, several bool) ([]byte, error) {
	return lines(response.(*rpc.Raw).Data, several), nil
}

// lines returns JSON in one line, or in several if that is easier to read, with a line break.
func lines(data []byte, one bool) []byte {
	if !one {
		data = schema.Indented(data)
	}
	return append(data, '\n')
}

// binaryForm is encoded Protobuf: a single message as it stands, those of a stream each behind its
// length.
type binaryForm struct{ streamsIn bool }

func (f binaryForm) split(r *bufio.Reader) func() ([]byte, error) {
	if f.streamsIn {
		return delimited(r)
	}
	return whole(r)
}

func (binaryForm) request(data []byte) (any, error) {
	return &rpc.Raw{Codec: rpc.CodecProto, Data: data}, nil
}

func (binaryForm) response() any { return new(rpc.Raw) }

func (binaryForm) text(response any, several bool) ([]byte, error) {
	data := response.(*rpc.Raw).Data
	if several {
		return append(binary.AppendUvarint(nil, uint64(len(data))), data...), nil
	}
	return data, nil
}

// printer writes responses as they come.
type printer struct {
	w       *output.Writer
	form    form
	several bool
}

func (p printer) print(response any) error {
	text, err := p.form.text(response, p.several)
	if err != nil {
		return err
	}
	if p.w.IsTerminal() { // which takes what is not JSON for commands
		text = []byte(output.CleanLines(string(output.SafeJSON(text))))
	}
	_, err = p.w.Write(text)
	if err == nil {
		return nil
	}
	if errors.Is(err, syscall.EPIPE) {
		return io.ErrClosedPipe // whoever has read it is gone, as with `| head -1`
	}
	return fmt.Errorf("output: %w", err)
}
