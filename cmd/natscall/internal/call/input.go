package call

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
)

// input yields the encoded requests of a call, from arguments, files and stdin, one after the other
// and as soon as each is there.
type input struct {
	sources []source
	split   func(r *bufio.Reader) func() ([]byte, error) // into messages, until io.EOF

	next   func() ([]byte, error) // of the source that is being read
	name   string                 // of that source
	text   bool                   // it is an argument
	number int                    // of messages that it has yielded
	close  func() error
}

// source is where requests come from.
type source struct {
	name string
	text bool // it is an argument, which has a request
	open func() (io.ReadCloser, error)
}

// newInput returns the input that arguments name: JSON as it stands, @FILE, and - or @- for stdin.
func newInput(args []string, stdin io.Reader, split func(*bufio.Reader) func() ([]byte, error)) *input {
	in := &input{split: split, close: func() error { return nil }}
	for i, arg := range args {
		in.sources = append(in.sources, sourceOf(i, arg, stdin))
	}
	return in
}

func sourceOf(i int, arg string, stdin io.Reader) source {
	file, isFile := strings.CutPrefix(arg, "@")
	switch {
	case arg == "-", isFile && file == "-":
		return source{"stdin", false, func() (io.ReadCloser, error) { return io.NopCloser(stdin), nil }}
	case isFile:
		return source{file, false, func() (io.ReadCloser, error) { return os.Open(file) }}
	}
	return source{fmt.Sprintf("request %d", i+1), true, func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(arg)), nil
	}}
}

// Next returns the next request, or io.EOF after the last one.
func (in *input) Next() ([]byte, error) {
	for {
		if in.next == nil {
			if err := in.open(); err != nil {
				return nil, err
			}
		}
		data, err := in.next()
		if err == nil {
			in.number++
			return data, nil
		}
		in.next = nil
		_ = in.close()                                         // it was only read
		if read, ok := errors.AsType[*fs.PathError](err); ok { // a folder, for instance
			return nil, tool.NoRequests(read)
		}
		if errors.Is(err, io.EOF) && in.text && in.number == 0 {
			err = tool.NoRequest("malformed JSON")
		}
		if !errors.Is(err, io.EOF) {
			return nil, in.named(in.number+1, err)
		}
	}
}

// open goes on to the next source.
func (in *input) open() error {
	if len(in.sources) == 0 {
		return io.EOF
	}
	s := in.sources[0]
	in.sources = in.sources[1:]
	r, err := s.open()
	if err != nil {
		return tool.NoRequests(err)
	}
	in.name, in.text, in.number, in.close = s.name, s.text, 0, r.Close
	in.next = in.split(bufio.NewReader(r))
	return nil
}

// named adds to an error where a request comes from: the source, and its number in it.
func (in *input) named(number int, err error) error {
	where := in.name
	if number > 1 {
		where = fmt.Sprintf("%s, message %d", in.name, number)
	}
	return problem.At(where, err)
}

// last adds to an error where the last request has come from.
func (in *input) last(err error) error { return in.named(in.number, err) }

// Only returns the only request of a call without a stream of them. Without sources it is empty.
func (in *input) Only() ([]byte, error) {
	if len(in.sources) == 0 {
		return nil, nil
	}
	data, err := in.Next()
	if errors.Is(err, io.EOF) {
		return nil, problem.At(in.name, tool.NoRequest("there is no request"))
	}
	if err != nil {
		return nil, err
	}
	if _, err := in.Next(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = problem.Usage("the method takes one request, and there are several")
		}
		return nil, err
	}
	return data, nil
}

// splitJSON splits a stream of JSON values, which need nothing between them.
func splitJSON(r *bufio.Reader) func() ([]byte, error) {
	d := json.NewDecoder(r)
	return func() ([]byte, error) {
		var value json.RawMessage
		err := d.Decode(&value)
		if err == nil || errors.Is(err, io.EOF) {
			return value, err
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it ends too early: a quote or brace is missing")
		}
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			err = fmt.Errorf("byte %d: %w", syntax.Offset, err)
		}
		return nil, problem.Failure("`natscall call --template` prints what the request looks like", "malformed JSON: %w", err)
	}
}

// whole takes all that there is for one message.
func whole(r *bufio.Reader) func() ([]byte, error) {
	done := false
	return func() ([]byte, error) {
		if done {
			return nil, io.EOF
		}
		done = true
		return io.ReadAll(r)
	}
}

// maxDelimited bounds a message of a stream in Protobuf, so that something else is not taken for a
// length.
const maxDelimited = 256 << 20

// delimited splits a stream of Protobuf messages, each behind its length as a varint, as the
// libraries of many languages write it.
func delimited(r *bufio.Reader) func() ([]byte, error) {
	return func() ([]byte, error) {
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, err
		}
		if size > maxDelimited {
			return nil, fmt.Errorf("a message of %d bytes: is each message behind its length?", size)
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(r, data); err != nil {
			return nil, io.ErrUnexpectedEOF
		}
		return data, nil
	}
}
