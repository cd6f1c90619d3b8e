// Package rpcauth tells a service who calls, as far as there is proof of it, and decides who may
// call what. docs/identity.md is its guide.
//
// A caller in another account is known by what the NATS server says of it (the header
// Nats-Request-Info). A caller in the same account is known if it signs its calls, with the key
// that its connection has logged in with. A [Verifier] is the interceptor of a server, [NewSigner]
// makes that of a client:
//
//	verifier, err := rpcauth.NewVerifier(nc, rpcauth.WithIssuers(account),
//		rpcauth.Allow("*", rpcauth.Accounts(account)))
//	srv := rpc.NewServer(nc, verifier.Server())
//
//	signer, err := rpcauth.NewSigner(nc)
//	client := rpc.NewClient(nc, rpc.WithInterceptors(signer))
//
// A handler gets the identity from [FromContext].
package rpcauth
