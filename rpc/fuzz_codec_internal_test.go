package rpc

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
)

// fuzzTypes are messages of which the fuzzer chooses one.
var fuzzTypes = []func() proto.Message{
	func() proto.Message { return new(wrapperspb.StringValue) },
	func() proto.Message { return new(natscallv1.Instance) },
	func() proto.Message { return new(natscallv1.Status) },
	func() proto.Message { return new(structpb.Struct) },
	func() proto.Message { return new(anypb.Any) },
}

var fuzzJSONTexts = []string{
	``, `{}`, `"x"`, `null`, `[1,2]`, `85`, " {}\n", "\uFEFF{}", `{"instance":"A","state":"STATE_SERVING","methods":["x"]}`, `{"instanc":1}`,
	`{"state":"STATE_X"}`, `{"code":5,"message":"m","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1s"}]}`,
	`{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"x"}`, "\n\x03you", "{\"a\":{\"b\":[null,true,1e9]}}",
}

// FuzzGuessCodec: Protobuf whose fields are all known is never taken for JSON unless it begins with
// a brace, and what is taken for JSON is JSON or begins with one.
func FuzzGuessCodec(f *testing.F) {
	for i, text := range fuzzJSONTexts {
		f.Add([]byte(text), uint8(i))
	}
	guess := []func([]byte) Codec{
		guesser(&wrapperspb.StringValue{}), guesser(&natscallv1.Instance{}), guesser(&natscallv1.Status{}), guesser(&structpb.Struct{}), guesser(&anypb.Any{}),
	}
	f.Fuzz(func(t *testing.T, body []byte, which uint8) {
		i := int(which) % len(guess)
		brace := bytes.HasPrefix(body, []byte("{"))
		text := trimJSON(body)
		known := isKnownProto(body, fuzzTypes[i]())
		switch got := guess[i](body); {
		case got == CodecJSON && !brace && (known || len(text) > 0 && !json.Valid(text)):
			t.Errorf("%q is taken for JSON", body)
		case got == CodecProto && (brace || !known && len(body) > 0 && json.Valid(text)):
			t.Errorf("%q is taken for Protobuf", body)
		}
	})
}

// FuzzJSON: what strict JSON allows means the same in the other, what it does not is refused with a
// reason of bounded size, and what was read can be written and read again.
func FuzzJSON(f *testing.F) {
	for i, text := range fuzzJSONTexts {
		f.Add([]byte(text), uint8(i%len(fuzzTypes)))
		f.Add([]byte(text), uint8(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, which uint8) {
		empty := fuzzTypes[int(which)%len(fuzzTypes)]
		strict, loose, again := empty(), empty(), empty()
		strictErr := jsonOptions{strict: strictAlways}.unmarshal(data, strict)
		looseErr := jsonOptions{}.unmarshal(data, loose)
		switch {
		case strictErr == nil && (looseErr != nil || !sameProto(strict, loose)):
			t.Errorf("%q is %v, and %v if unknown names are allowed: %v", data, strict, loose, looseErr)
		case strictErr != nil && len(strictErr.Error()) > 8<<10+4*len(data):
			t.Errorf("an error of %d bytes for %d", len(strictErr.Error()), len(data))
		case looseErr != nil:
			return
		}
		for _, o := range []jsonOptions{{}, {unpopulated: true}, {protoNames: true}} {
			written, err := o.append(nil, loose)
			if err != nil {
				return // such as a number that JSON does not have
			}
			proto.Reset(again)
			if err := (jsonOptions{strict: strictAlways}).unmarshal(written, again); err != nil || !sameProto(loose, again) {
				t.Errorf("%v is written as %s and read as %v, %v", loose, written, again, err)
			}
		}
	})
}

// sameProto compares the deterministic encodings, as not-a-number differs from itself.
func sameProto(a, b proto.Message) bool {
	o := proto.MarshalOptions{Deterministic: true}
	first, errA := o.Marshal(a)
	second, errB := o.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(first, second)
}

// FuzzRetryInfo: whatever the details of an error are, the first that is a RetryInfo counts, and a
// delay is read as it was written.
func FuzzRetryInfo(f *testing.F) {
	f.Add(retryInfoURL, newRetryInfo(time.Second).GetValue(), int64(time.Second))
	f.Add(retryInfoURL, []byte{0x0a, 0x05, 0x08}, int64(-1))
	f.Add("x/google.rpc.RetryInfo", []byte{0x0a}, int64(0))
	f.Add("google.rpc.RetryInfo", []byte{0xff}, int64(1)<<62)
	f.Fuzz(func(t *testing.T, url string, value []byte, delay int64) {
		hostile := &anypb.Any{TypeUrl: url, Value: value}
		_, ok := retryDelay(&Error{details: []*anypb.Any{hostile}})
		if is := string(hostile.MessageName()) == retryInfo; is != ok {
			t.Errorf("%q is a RetryInfo: %v", url, ok)
		}
		mine := newRetryInfo(time.Duration(delay))
		if got, ok := retryDelay(&Error{details: []*anypb.Any{mine, hostile}}); !ok || got != time.Duration(delay) {
			t.Errorf("%v is read as %v, %v", time.Duration(delay), got, ok)
		}
	})
}
