package rpcdedup

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
)

// get returns the record of the key.
func (e *execution) get(ctx context.Context) (*natscallv1.Execution, uint64, error) {
	data, revision, err := e.store.Get(ctx, e.key)
	if err != nil {
		return nil, 0, err
	}
	record := new(natscallv1.Execution)
	if err := proto.Unmarshal(data, record); err != nil || record.GetOwner() == "" || record.GetState() == 0 {
		return nil, 0, fmt.Errorf("rpcdedup: the record %s is not valid: %v", e.key, err)
	}
	return record, revision, nil
}

// result returns the record with the result of the handler.
func (e *execution) result(err error) []byte {
	record := proto.CloneOf(e.own)
	record.State = ended
	record.Header, record.Trailer = fromHeader(e.call.ResponseHeader()), fromHeader(e.call.ResponseTrailer())
	if err == nil && e.call.Kind() == rpc.KindUnary {
		err = e.setResponse(record)
	}
	if err != nil {
		record.Error = statusOf(err)
	}
	if data, err := proto.Marshal(record); err == nil {
		return data
	}
	// A key of the header is not valid, so the caller gets an error too.
	return e.failure(rpc.NewError(rpc.CodeInternal, "the header of the response is not valid"))
}

// failure returns the record of a call that has run and has no other result.
func (e *execution) failure(err error) []byte {
	record := proto.CloneOf(e.own)
	record.State, record.Error = ended, statusOf(err)
	return encode(record)
}

// setResponse puts the response of the call into the record.
func (e *execution) setResponse(record *natscallv1.Execution) (err error) {
	res := e.call.Response()
	if res == nil {
		return rpc.Errorf(rpc.CodeInternal, "%s returned no response and no error", e.call.Method())
	}
	if record.Response, err = proto.Marshal(res); err != nil {
		return rpc.NewError(rpc.CodeInternal, "the response does not encode")
	}
	return nil
}

// tooLarge returns the record of a result of so many bytes that the store does not take.
func (e *execution) tooLarge(size int) []byte {
	return e.failure(rpc.Errorf(rpc.CodeDataLoss, "the call with this idempotency key has run; its result has %d bytes, which is more than is kept", size))
}

// replay ends the call with the result of another one.
func (e *execution) replay(record *natscallv1.Execution) error {
	toHeader(record.GetHeader(), e.call.ResponseHeader())
	toHeader(record.GetTrailer(), e.call.ResponseTrailer())
	if status := record.GetError(); status != nil {
		var details []proto.Message
		for _, d := range status.GetDetails() {
			details = append(details, d)
		}
		return rpc.WithExecution(rpc.NewError(rpc.Code(status.GetCode()), status.GetMessage(), details...), rpc.ExecutionDidRun)
	}
	if e.call.Kind() != rpc.KindUnary {
		return nil
	}
	res := e.method.NewResponse()
	if err := proto.Unmarshal(record.GetResponse(), res); err != nil {
		return rpc.WithExecution(rpc.NewError(rpc.CodeInternal, "the response that was kept is not valid"), rpc.ExecutionDidRun)
	}
	e.call.SetResponse(res)
	return nil
}

func encode(record *natscallv1.Execution) []byte {
	data, _ := proto.Marshal(record) // of valid strings: cannot fail
	return data
}

// statusOf returns an error as its callers get it.
func statusOf(err error) *natscallv1.Status {
	e := rpc.AddDetails(err).(*rpc.Error)
	status := &natscallv1.Status{Code: int32(e.Code()), Message: strings.ToValidUTF8(e.Message(), "\uFFFD")}
	for _, d := range e.Details() {
		if packed, err := anypb.New(d); err == nil {
			status.Details = append(status.Details, packed)
		}
	}
	return status
}

func fromHeader(h rpc.Header) map[string]*natscallv1.ExecutionHeader {
	record := map[string]*natscallv1.ExecutionHeader{}
	for key, values := range h {
		kept := new(natscallv1.ExecutionHeader)
		for _, value := range values {
			kept.Values = append(kept.Values, []byte(value))
		}
		record[key] = kept
	}
	return record
}

func toHeader(record map[string]*natscallv1.ExecutionHeader, h rpc.Header) {
	clear(h) // of what a handler before has set, whose result is not the one that counts
	for key, kept := range record {
		for _, value := range kept.GetValues() {
			h[key] = append(h[key], string(value))
		}
	}
}
