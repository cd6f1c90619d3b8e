package interceptors

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"sync"

	"github.com/natscall/natscall/rpc"
)

// The headers of a signed request.
const (
	keyHeader       = rpc.ExtensionPrefix + "Key"
	signatureHeader = rpc.ExtensionPrefix + "Signature"
)

// Sign returns an interceptor for clients that signs each attempt: its method, id and encoded
// request. Calls that have no id, plain requests and one-way messages, cannot be signed so that
// they count once; they are sent without a signature. It shows what OnAttempt and RequestData are
// for; rpc/rpcauth does more.
func Sign(key ed25519.PrivateKey) rpc.Interceptor {
	public := base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnAttempt(func(a *rpc.Attempt) error {
			if a.ID() == "" {
				return nil
			}
			signature := ed25519.Sign(key, signed(call.Method(), a.ID(), a.Data()))
			if err := a.SetHeader(keyHeader, public); err != nil {
				return err
			}
			return a.SetHeader(signatureHeader, base64.StdEncoding.EncodeToString(signature))
		})
		return next(ctx, call)
	}
}

// Verify returns an interceptor for servers that lets pass the requests that one of the keys has
// signed, each of them once. It needs no decoded request, so it refuses before anything else is
// done with it.
func Verify(keys ...ed25519.PublicKey) rpc.Interceptor {
	trusted := map[string]ed25519.PublicKey{}
	for _, key := range keys {
		trusted[base64.StdEncoding.EncodeToString(key)] = key
	}
	var seen sync.Map // ids; a real one forgets them after the longest timeout
	return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		key, ok := trusted[call.Header().Get(keyHeader)]
		if !ok {
			return rpc.Errorf(rpc.CodeUnauthenticated, "%s: the request is not signed by a trusted key", call.Method())
		}
		signature, err := base64.StdEncoding.DecodeString(call.Header().Get(signatureHeader))
		if err != nil {
			return rpc.Errorf(rpc.CodeUnauthenticated, "%s: header %s: %w", call.Method(), signatureHeader, err)
		}
		data, err := call.RequestData()
		if err != nil {
			return err
		}
		if !ed25519.Verify(key, signed(call.Method(), call.ID(), data), signature) {
			return rpc.Errorf(rpc.CodeUnauthenticated, "%s: the signature is not that of this request", call.Method())
		}
		if _, again := seen.LoadOrStore(call.ID(), true); again {
			return rpc.Errorf(rpc.CodeUnauthenticated, "%s: the request has come before", call.Method())
		}
		return next(ctx, call)
	}
}

// signed returns what is signed. It begins with a name of its own, so that a signature can be used
// for nothing else.
func signed(method, id string, data []byte) []byte {
	sum := sha256.Sum256(data)
	return bytes.Join([][]byte{[]byte("natscall example signature 1"), []byte(method), []byte(id), sum[:]}, []byte{0})
}
