package rpcauth

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/natscall/natscall/rpc"
)

// Rule reports whether a caller may make a call. It may be called concurrently, runs before the
// request is decoded, and should not decode it: what it decides by is the method, the header and
// the identity. If what it needs to know cannot be had, it reports false.
type Rule func(ctx context.Context, call *rpc.Call, id *Identity) bool

// Anyone is a [Rule] that accepts every call.
func Anyone(context.Context, *rpc.Call, *Identity) bool { return true }

// Authenticated is a [Rule] that accepts callers whose identity is proved in any way. So it accepts
// every caller of every account that imports the service, whoever that is: see [Accounts].
func Authenticated(_ context.Context, _ *rpc.Call, id *Identity) bool { return id.Kind != KindNone }

// Imported is a [Rule] that accepts callers in other accounts, of whom the NATS server knows.
func Imported(_ context.Context, _ *rpc.Call, id *Identity) bool { return id.Kind == KindImported }

// Signed is a [Rule] that accepts callers who have signed their call.
func Signed(_ context.Context, _ *rpc.Call, id *Identity) bool { return id.Kind == KindSigned }

// Accounts returns a [Rule] that accepts callers of these accounts: by name or, in operator mode
// and for signed calls, by public key.
func Accounts(accounts ...string) Rule {
	return func(_ context.Context, _ *rpc.Call, id *Identity) bool {
		return id.Kind != KindNone && id.Account != "" && slices.Contains(accounts, id.Account)
	}
}

// All returns a [Rule] that accepts the calls that each of the rules accepts. Without rules it
// accepts none.
func All(rules ...Rule) Rule {
	return func(ctx context.Context, call *rpc.Call, id *Identity) bool {
		return len(rules) > 0 &&
			!slices.ContainsFunc(rules, func(rule Rule) bool { return rule == nil || !rule(ctx, call, id) })
	}
}

// Of returns a [Rule] that accepts the callers of an account ([Accounts]) that one of the rules
// accepts, as in Of("SHOP", Tags("warehouse")). Without rules it accepts none.
func Of(account string, rules ...Rule) Rule {
	in := Accounts(account)
	return func(ctx context.Context, call *rpc.Call, id *Identity) bool {
		return in(ctx, call, id) &&
			slices.ContainsFunc(rules, func(rule Rule) bool { return rule != nil && rule(ctx, call, id) })
	}
}

// Users returns a [Rule] that accepts these users: by public key or, for imported calls, by name. A
// key is the user's in whatever account. A name is what the owner of the account gives to anybody,
// so accept names with their account only: [Of].
func Users(users ...string) Rule {
	return func(_ context.Context, _ *rpc.Call, id *Identity) bool {
		return id.Kind != KindNone && id.User != "" && slices.Contains(users, id.User)
	}
}

// Tags returns a [Rule] that accepts users whose JWT has all of these tags. Tags of JWTs are in
// lower case. The owner of an account gives any tag to any user of it, and so does each account
// that imports the service. So accept tags with their account only: [Of].
func Tags(tags ...string) Rule {
	return func(_ context.Context, _ *rpc.Call, id *Identity) bool {
		return id.Kind != KindNone && len(tags) > 0 &&
			!slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(id.Tags, strings.ToLower(tag)) })
	}
}

// patterns has something for methods: by full name, by "/pkg.Service/" for all methods of a
// service, and by "*".
type patterns[T any] map[string]T

// add adds what stands for a pattern.
func (p patterns[T]) add(pattern string, value T) error {
	key := pattern
	if pattern != "*" {
		service, method, ok := strings.Cut(strings.TrimPrefix(pattern, "/"), "/")
		if !ok || !strings.HasPrefix(pattern, "/") || service == "" || method == "" || strings.ContainsAny(service+method, "/ ") ||
			strings.Contains(service, "*") || strings.Contains(method, "*") && method != "*" {
			return fmt.Errorf(`%q is no method ("/pkg.Service/Method"), nor "/pkg.Service/*" or "*"`, pattern)
		}
		key = strings.TrimSuffix(pattern, "*")
	}
	if _, ok := p[key]; ok {
		return fmt.Errorf("%q is there twice", pattern)
	}
	p[key] = value
	return nil
}

// find returns what stands for the most specific pattern that a method has.
func (p patterns[T]) find(method string) (value T, ok bool) {
	if len(p) == 0 {
		return value, false
	}
	if value, ok = p[method]; ok {
		return value, true
	}
	if value, ok = p[method[:strings.LastIndexByte(method, '/')+1]]; ok {
		return value, true
	}
	value, ok = p["*"]
	return value, ok
}
