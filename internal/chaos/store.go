package main

import (
	"context"
	"fmt"
	"net"
	netrpc "net/rpc"
	"slices"
	"sync"
	"time"

	"github.com/natscall/natscall/rpc/rpcdedup"
)

// store holds the registers, and the results of calls by their idempotency keys, in the runner.
// Replicas reach it by a TCP connection of their own that no fault hits, so an operation of a
// handler takes effect, once, before the handler goes on.
type store struct {
	listener net.Listener

	calls *rpcdedup.Memory

	mu     sync.Mutex
	values map[string]int64
}

// Operation is one on a register, or what came of it. Like StoreRequest it is exported for net/rpc.
type Operation struct {
	Key      string `json:"key"`
	Value    int64  `json:"value,omitempty"`    // to add or set; of the register, in an answer
	Expected int64  `json:"expected,omitempty"` // by Swap
	Swapped  bool   `json:"swapped,omitempty"`  // by Swap, in an answer
}

// apply returns the value of a register after the operation of a method.
func (o Operation) apply(method string, value int64) (after int64, swapped bool) {
	switch method {
	case methodIncrease:
		return value + o.Value, false
	case methodSwap:
		if value == o.Expected {
			return o.Value, true
		}
	}
	return value, false
}

func openStore() (*store, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &store{listener: listener, calls: rpcdedup.NewMemory(time.Hour), values: map[string]int64{}}
	server := netrpc.NewServer()
	if err := server.RegisterName(storeName, &storeServer{s}); err != nil {
		return nil, err
	}
	go func() { // until close; what serves a replica ends with its connection
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go server.ServeConn(conn)
		}
	}()
	return s, nil
}

func (s *store) address() string { return s.listener.Addr().String() }

func (s *store) close() { _ = s.listener.Close() }

const storeName = "Store"

// storeServer is the store as net/rpc wants it.
type storeServer struct{ *store }

// StoreRequest is an operation of a method.
type StoreRequest struct {
	Method    string
	Operation Operation
}

// Apply does an operation.
func (s *storeServer) Apply(req StoreRequest, answer *Operation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer.Key = req.Operation.Key
	answer.Value, answer.Swapped = req.Operation.apply(req.Method, s.values[answer.Key])
	s.values[answer.Key] = answer.Value
	return nil
}

// registers is a replica's connection to the store.
type registers struct{ client *netrpc.Client }

func dialStore(address string) (registers, error) {
	client, err := netrpc.Dial("tcp", address)
	if err != nil {
		return registers{}, fmt.Errorf("connect to the store: %w", err)
	}
	return registers{client}, nil
}

// apply panics if the store has gone: it is there for as long as replicas are.
func (r registers) apply(method string, o Operation) (answer Operation) {
	if err := r.client.Call(storeName+".Apply", StoreRequest{method, o}, &answer); err != nil {
		panic(fmt.Sprintf("store: %v", err))
	}
	return answer
}

// CallRequest asks for a change of the record of a call, as rpcdedup.Store has them.
type CallRequest struct {
	Key      string
	Value    []byte
	Revision uint64
}

// CallAnswer is the record, and the error of the store if it is none of the connection.
type CallAnswer struct {
	Value    []byte
	Revision uint64
	Failed   int // of callErrors, from 1
}

var callErrors = []error{rpcdedup.ErrExists, rpcdedup.ErrNotFound, rpcdedup.ErrConflict}

func (a *CallAnswer) set(err error) { a.Failed = slices.Index(callErrors, err) + 1 }

// CreateCall creates a record.
func (s *storeServer) CreateCall(req CallRequest, answer *CallAnswer) (err error) {
	answer.Revision, err = s.calls.Create(context.Background(), req.Key, req.Value)
	answer.set(err)
	return nil
}

// GetCall returns a record.
func (s *storeServer) GetCall(req CallRequest, answer *CallAnswer) (err error) {
	answer.Value, answer.Revision, err = s.calls.Get(context.Background(), req.Key)
	answer.set(err)
	return nil
}

// UpdateCall changes a record.
func (s *storeServer) UpdateCall(req CallRequest, answer *CallAnswer) (err error) {
	answer.Revision, err = s.calls.Update(context.Background(), req.Key, req.Value, req.Revision)
	answer.set(err)
	return nil
}

// DeleteCall removes a record.
func (s *storeServer) DeleteCall(req CallRequest, answer *CallAnswer) error {
	answer.set(s.calls.Delete(context.Background(), req.Key, req.Revision))
	return nil
}

func (r registers) call(method string, req CallRequest) (answer CallAnswer, err error) {
	if err := r.client.Call(storeName+"."+method, req, &answer); err != nil {
		return answer, err
	}
	if answer.Failed > 0 {
		return answer, callErrors[answer.Failed-1]
	}
	return answer, nil
}

// Create implements rpcdedup.Store.
func (r registers) Create(_ context.Context, key string, value []byte) (uint64, error) {
	answer, err := r.call("CreateCall", CallRequest{Key: key, Value: value})
	return answer.Revision, err
}

// Get implements rpcdedup.Store.
func (r registers) Get(_ context.Context, key string) ([]byte, uint64, error) {
	answer, err := r.call("GetCall", CallRequest{Key: key})
	return answer.Value, answer.Revision, err
}

// Update implements rpcdedup.Store.
func (r registers) Update(_ context.Context, key string, value []byte, revision uint64) (uint64, error) {
	answer, err := r.call("UpdateCall", CallRequest{Key: key, Value: value, Revision: revision})
	return answer.Revision, err
}

// Delete implements rpcdedup.Store.
func (r registers) Delete(_ context.Context, key string, revision uint64) error {
	_, err := r.call("DeleteCall", CallRequest{Key: key, Revision: revision})
	return err
}

// TTL implements rpcdedup.Store.
func (r registers) TTL() time.Duration { return time.Hour }

func (r registers) close() { _ = r.client.Close() }
