package rpc_test

import (
	"context"

	"google.golang.org/protobuf/types/known/structpb"
)

// object is a message with one string field.
func object(key, value string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{key: structpb.NewStringValue(value)}}
}

// noteID hands the id of each note to a channel.
func noteID(to chan<- string) func(context.Context, *structpb.Struct) error {
	return func(_ context.Context, s *structpb.Struct) error {
		to <- s.GetFields()["id"].GetStringValue()
		return nil
	}
}
