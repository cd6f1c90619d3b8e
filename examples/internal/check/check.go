// Package check finds what is wrong with a request. Its errors are
// INVALID_ARGUMENT and name the field.
package check

import (
	"regexp"

	"github.com/natscall/natscall/rpc"
)

// Limits of what a request may ask for.
const (
	MaxQuantity     = 1_000_000
	MaxPageSize     = 1000
	DefaultPageSize = 100
)

// An id is a token of a NATS subject, as it becomes the key of an entry.
var id = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// First returns the first error, or nil.
func First(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// ID checks the id of a product, an order or a reservation.
func ID(field, value string) error {
	if id.MatchString(value) {
		return nil
	}
	return rpc.Errorf(rpc.CodeInvalidArgument, `%s: %.80q is not an id of 1 to 64 letters, digits, "-" and "_"`, field, value)
}

// Quantity checks how many of a product.
func Quantity(field string, n int32) error { return between(field, n, 1, MaxQuantity) }

// PageSize checks how many at most, and returns the default where none is set.
func PageSize(field string, n int32) (int, error) {
	if n == 0 {
		return DefaultPageSize, nil
	}
	return int(n), between(field, n, 1, MaxPageSize)
}

func between(field string, n, low, high int32) error {
	if low <= n && n <= high {
		return nil
	}
	return rpc.Errorf(rpc.CodeInvalidArgument, "%s: %d is not between %d and %d", field, n, low, high)
}
