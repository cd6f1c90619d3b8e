package rpcvalidate

import (
	"errors"
	"fmt"
	"log/slog"

	"buf.build/go/protovalidate"
)

// Option is an option of [New].
type Option func(*options) error

type options struct {
	validator protovalidate.Validator
	failFast  bool
	responses bool
	filter    func(method string) bool // nil for all methods
	logger    *slog.Logger             // nil for the default one
}

func newOptions(opts []Option) (*options, error) {
	o := &options{}
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("rpcvalidate: an option is nil")
		}
		if err := opt(o); err != nil {
			return nil, fmt.Errorf("rpcvalidate: %w", err)
		}
	}
	if err := o.setValidator(); err != nil {
		return nil, fmt.Errorf("rpcvalidate: %w", err)
	}
	return o, nil
}

// setValidator sets the validator where no option has.
func (o *options) setValidator() (err error) {
	switch {
	case o.validator != nil && o.failFast:
		return errors.New("WithFailFast does not go with WithValidator: it is an option of protovalidate.New too")
	case o.failFast:
		o.validator, err = protovalidate.New(protovalidate.WithFailFast())
	case o.validator == nil:
		o.validator = protovalidate.GlobalValidator
	}
	return err
}

// checks reports whether the messages of a method are checked.
func (o *options) checks(method string) bool { return o.filter == nil || o.filter(method) }

// WithValidator sets what checks the messages, for instance a validator of [protovalidate.New] with
// options of its own. The default is [protovalidate.GlobalValidator], whose compiled rules are
// shared with all other users of it in the program.
//
// A validator of another kind may return any error. An *[rpc.Error] becomes the error of the call;
// any other one, but for a *[protovalidate.ValidationError], is taken for a failure of the rules.
// Register gives it empty messages of all types, with a filter, in order to compile the rules.
func WithValidator(v protovalidate.Validator) Option {
	return func(o *options) error { o.validator = v; return notNil("WithValidator", v != nil) }
}

// WithFailFast makes a check end with the first rule that is broken. The default is that all of
// them are reported, which costs more where a request of many items is wrong in each.
func WithFailFast() Option {
	return func(o *options) error { o.failFast = true; return nil }
}

// WithResponses checks responses too. On a server one that breaks rules is not sent: the call ends
// with CodeInternal, or Send of the stream returns that error, and what is wrong is logged. On a
// client it is the error of the call or of Recv, with CodeInternal. The default is that responses
// are not checked.
func WithResponses() Option {
	return func(o *options) error { o.responses = true; return nil }
}

// WithFilter limits the checks to methods for which check reports true. It is called with the full
// name of the method, as in the constants of generated code: by a server once for each method, when
// the service is registered, and by a client for each call. The default is all methods.
func WithFilter(check func(method string) bool) Option {
	return func(o *options) error { o.filter = check; return notNil("WithFilter", check != nil) }
}

// WithLogger sets where servers log responses that break rules, and rules that fail. Of each method
// one record a second is logged. The default is [slog.Default].
func WithLogger(l *slog.Logger) Option {
	return func(o *options) error { o.logger = l; return notNil("WithLogger", l != nil) }
}

func notNil(option string, ok bool) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%s(nil)", option)
}
