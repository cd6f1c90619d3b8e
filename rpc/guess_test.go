package rpc

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/sourcecontextpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// guesser returns guessCodec of a method whose request is a T.
func guesser[T any, P message[T]](P) func([]byte) Codec {
	m := NewUnaryMethod[T, emptypb.Empty, P](&ServiceDesc{Name: "test.v1.S"}, MethodDesc{Name: "M"}).method
	e := &endpoint{method: &m, group15: m.hasGroup15()}
	return e.guessCodec
}

func TestGuessCodec(t *testing.T) {
	forText, forNumber := guesser(&wrapperspb.StringValue{}), guesser(&wrapperspb.UInt32Value{})
	forList, forObject, forDouble := guesser(&structpb.ListValue{}), guesser(&structpb.Struct{}), guesser(&wrapperspb.DoubleValue{})
	for _, test := range []struct {
		name  string
		guess func([]byte) Codec
		body  string
		want  Codec
	}{
		{"nothing", forText, "", CodecProto},
		{"an object", forObject, `{"a":1}`, CodecJSON},
		{"no object, but a brace", forObject, `{"a`, CodecJSON},
		{"behind blanks", forObject, " \t\r\n{}\n", CodecJSON},
		{"behind a byte order mark", forObject, "\uFEFF{}", CodecJSON},
		{"behind both", forObject, "\uFEFF\r\n {}", CodecJSON},
		{"a number", forNumber, "85", CodecJSON},
		{"a number of one digit", forNumber, "5", CodecJSON},
		{"a number that is a Protobuf field with its value", forNumber, "8123456789", CodecJSON},
		{"a number behind a newline", forNumber, "\n85", CodecJSON},
		{"a negative number", forNumber, "-1", CodecJSON},
		{"a fraction", forDouble, "1.5e3", CodecJSON},
		{"a string", forText, `"you"`, CodecJSON},
		{"the empty string", forText, `""`, CodecJSON},
		{"true", forText, "true", CodecJSON},
		{"null", forText, "null", CodecJSON},
		{"a list", forList, "[1,2]", CodecJSON},
		{"a blank", forText, " ", CodecJSON},
		{"a newline", forText, "\n", CodecJSON},
		{"a byte order mark", forText, "\uFEFF", CodecJSON},
		{"Protobuf", forText, "\n\x03you", CodecProto},
		{"a text of nine digits", forText, "\n\t123456789", CodecProto},
		{"a double made of digits", forDouble, "\t12345678", CodecProto},
		{"an unknown field, and no JSON", forText, "\x10\x01", CodecProto},
		{"neither", forText, "\xff\xfe", CodecProto},
		{"JSON that is cut off", forText, `"yo`, CodecProto},
	} {
		if got := test.guess([]byte(test.body)); got != test.want {
			t.Errorf("%s: %q is taken for %v, want %v", test.name, test.body, got, test.want)
		}
	}
}

// jsonLikeTexts are strings whose Protobuf encoding, as field 1, is a JSON text: the tag is
// a newline, and the length makes sense as well.
func jsonLikeTexts(rnd *rand.Rand) (texts []string) {
	digits := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('1' + rnd.IntN(9))
		}
		return string(b)
	}
	for _, n := range []int{'\t', '\n', '\r', ' '} {
		texts = append(texts, digits(n), `"`+digits(n-2)+`"`, "{"+strings.Repeat(" ", n-2)+"}", "["+digits(n-2)+"]")
	}
	for n := '0'; n <= '9'; n++ {
		texts = append(texts, digits(int(n)), strings.Repeat(" ", int(n)))
	}
	fill := func(n int, start string) string { return start + strings.Repeat(" ", n-len(start)) }
	return append(texts, digits('"'-1)+`"`, digits('-'), digits('['-1)+"]", fill('{', `"a":1}`),
		fill('t', "rue"), fill('f', "alse"), fill('n', "ull"))
}

// TestProtobufIsNeverTakenForJSON: a message of known fields is what it is, whatever
// its bytes look like; but for the brace, which begins no message of these types.
func TestProtobufIsNeverTakenForJSON(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	check := func(guess func([]byte) Codec, m proto.Message) {
		t.Helper()
		body, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if got := guess(body); got != CodecProto {
			t.Errorf("seed %d: a %T, %q, is taken for %v", seed, m, body, got)
		}
	}
	forText, forBytes := guesser(&wrapperspb.StringValue{}), guesser(&wrapperspb.BytesValue{})
	for _, text := range jsonLikeTexts(rnd) {
		check(forText, wrapperspb.String(text))
		check(forBytes, wrapperspb.Bytes([]byte(text)))
	}
	const alphabet = "0123456789 \t\r\n\"{}[]:,-+.eEtrufalsnl\\\x00\x0fü"
	random := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = alphabet[rnd.IntN(len(alphabet))]
		}
		return strings.ToValidUTF8(string(b), "")
	}
	forNumber, forLong, forDouble := guesser(&wrapperspb.UInt32Value{}), guesser(&wrapperspb.Int64Value{}), guesser(&wrapperspb.DoubleValue{})
	forObject, forFloat, forTrue := guesser(&structpb.Struct{}), guesser(&wrapperspb.FloatValue{}), guesser(&wrapperspb.BoolValue{})
	for i := range 20_000 {
		text := random(i % 130)
		check(forText, wrapperspb.String(text))
		check(forBytes, wrapperspb.Bytes([]byte(text)))
		check(forObject, &structpb.Struct{Fields: map[string]*structpb.Value{text: structpb.NewStringValue(random(i % 60))}})
		check(forNumber, wrapperspb.UInt32(rnd.Uint32()))
		check(forLong, wrapperspb.Int64(int64(rnd.Uint64())))
		check(forTrue, wrapperspb.Bool(i%2 == 0))
		eight := []byte(random(8) + "12345678")[:8]
		check(forDouble, wrapperspb.Double(math.Float64frombits(binary.LittleEndian.Uint64(eight))))
		check(forFloat, wrapperspb.Float(math.Float32frombits(binary.LittleEndian.Uint32(eight))))
	}
}

// TestJSONIsTakenForJSON: the JSON of a message is recognised, with what people and their tools put
// around it, unless it is the Protobuf of one too.
func TestJSONIsTakenForJSON(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	check := func(guess func([]byte) Codec, m proto.Message) {
		t.Helper()
		text, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, around := range [][2]string{{"", ""}, {"", "\n"}, {" ", ""}, {"\n", "\n"}, {"\r\n", ""}, {"\t", "\t"}, {"\uFEFF", ""}, {"\uFEFF\n", "\n"}} {
			body := []byte(around[0] + string(text) + around[1])
			if got := guess(body); got != CodecJSON && !isKnownProto(body, proto.Clone(m)) {
				t.Errorf("seed %d: %q for a %T is taken for %v", seed, body, m, got)
			}
		}
	}
	for i := range 2000 {
		n := rnd.Uint64() >> (i % 64)
		check(guesser(&wrapperspb.UInt32Value{}), wrapperspb.UInt32(uint32(n)))
		check(guesser(&wrapperspb.UInt64Value{}), wrapperspb.UInt64(n))
		check(guesser(&wrapperspb.DoubleValue{}), wrapperspb.Double(float64(n)/3))
		check(guesser(&wrapperspb.StringValue{}), wrapperspb.String(fmt.Sprint(n)))
		check(guesser(&wrapperspb.BytesValue{}), wrapperspb.Bytes(fmt.Append(nil, n)))
		check(guesser(&wrapperspb.BoolValue{}), wrapperspb.Bool(n%2 == 0))
		check(guesser(&structpb.Struct{}), &structpb.Struct{Fields: map[string]*structpb.Value{fmt.Sprint(n): structpb.NewNumberValue(float64(n))}})
		check(guesser(&structpb.ListValue{}), &structpb.ListValue{Values: []*structpb.Value{structpb.NewNumberValue(float64(n))}})
	}
}

// namesType is a message type with everything that a JSON text can have unknown names in.
func namesType(t *testing.T) protoreflect.MessageDescriptor {
	const source = `
		syntax = "proto2";
		package test.v1;
		import "google/protobuf/struct.proto";
		message T {
			optional string some_text = 1;
			optional State state = 2;
			map<string, State> states = 3;
			map<string, T> by_name = 4;
			repeated T list = 5;
			optional google.protobuf.Struct object = 6;
			optional Many many = 7;
			optional Nothing nothing = 8;
			repeated State several = 9;
			optional group Grouped = 10 { optional string inner = 1; }
		}
		enum State { STATE_OLD = 0; STATE_NEW = 1; }
		message Nothing {}
		message Many { %s }
		message Required { required string needed = 1; }`
	var many strings.Builder
	for i := range maxNames + 5 {
		fmt.Fprintf(&many, "optional string field_%d = %d;", i, i+1)
	}
	files := protocompile.SourceAccessorFromMap(map[string]string{"names.proto": fmt.Sprintf(source, many.String())})
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: files})}
	compiled, err := compiler.Compile(t.Context(), "names.proto")
	if err != nil {
		t.Fatal(err)
	}
	return compiled[0].Messages().ByName("T")
}

// TestUnknownNamesOfGoogle: messages of google.protobuf are like others, but for those that have a
// JSON form of their own.
func TestUnknownNamesOfGoogle(t *testing.T) {
	for _, test := range []struct {
		message    proto.Message
		text, want string
	}{
		{new(emptypb.Empty), `{"x":1}`, `unknown field "x"; google.protobuf.Empty has no fields`},
		{new(sourcecontextpb.SourceContext), `{"x":1}`, `unknown field "x"; google.protobuf.SourceContext has fileName`},
		{new(structpb.Struct), `{"x":1}`, ""},
		{new(anypb.Any), `{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}`, ""},
		{new(timestamppb.Timestamp), `{"x":1}`, "unexpected token"},
		{new(wrapperspb.StringValue), `{"x":1}`, "invalid value"},
	} {
		err := jsonOptions{strict: strictAlways}.unmarshal([]byte(test.text), test.message)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%T: %s is refused with %v, want %q", test.message, test.text, err, test.want)
		}
	}
}

// TestUnknownNames: what is refused is named with its place and with what there is; known names are
// not.
func TestUnknownNames(t *testing.T) {
	names := namesType(t)
	fields := "test.v1.T has someText, state, states, byName, list, object, many, nothing, several, grouped"
	states := "is no value of test.v1.State, which has STATE_OLD, STATE_NEW"
	for _, test := range []struct{ text, want string }{
		{`{"someText":"x","state":"STATE_NEW","states":{"a":"STATE_OLD","b":1},"byName":{"a":{"list":[{}]}}}`, ""},
		{`{"some_text":"x","by_name":{},"several":[0,"STATE_NEW"],"Grouped":{"inner":"x"}}`, ""},
		{`{"object":{"anything":{"goes":1}},"state":null,"list":null,"byName":null,"states":null,"nothing":{}}`, ""},
		{`{"state":7}`, ""}, // enums are open to numbers
		{`{"tex":1}`, `unknown field "tex"; ` + fields},
		{`{"SomeText":1}`, `unknown field "SomeText"; ` + fields},
		{`{"list":[{},{"byName":{"k":{"x":1}}}]}`, `unknown field "list[1].byName.k.x"; ` + fields},
		{`{"list":{"x":1}}`, `unknown field "list.x"; ` + fields},
		{`{"nothing":{"x":1}}`, `unknown field "nothing.x"; test.v1.Nothing has no fields`},
		{`{"grouped":{"x":1}}`, `unknown field "grouped.x"; test.v1.T.Grouped has inner`},
		{`{"many":{"x":1}}`, `field28, field29, and 5 more`},
		{`{"state":"NEW"}`, `field "state": "NEW" ` + states},
		{`{"states":{"a":"STATE_NEW","b":"state_new"}}`, `field "states.b": "state_new" ` + states},
		{`{"several":["STATE_NEW",""]}`, `field "several[1]": "" ` + states},
		{`{"x`, "unexpected"}, // no JSON: what protojson says
		{`{"someText":1}`, "invalid value"},
		{`{"[test.v1.ext]":1}`, "test.v1.ext"},
	} {
		read := func(o jsonOptions) error { return o.unmarshal([]byte(test.text), dynamicpb.NewMessage(names)) }
		err := read(jsonOptions{strict: strictAlways})
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s is refused with %v, want %q", test.text, err, test.want)
		}
		for _, strict := range []strictness{strictByForm, strictNever} {
			ignores := !strings.HasPrefix(test.want, "unexpected") && !strings.HasPrefix(test.want, "invalid") && !strings.Contains(test.want, `"list.x"`)
			if err := read(jsonOptions{strict: strict}); (err == nil) != ignores {
				t.Errorf("%s, not strictly: %v", test.text, err)
			}
		}
	}
	required := dynamicpb.NewMessage(names.ParentFile().Messages().ByName("Required"))
	for _, text := range []string{"{}", "", " "} {
		if err := (jsonOptions{}).unmarshal([]byte(text), required); err == nil || !strings.Contains(err.Error(), "needed") {
			t.Errorf("%q for a message with a required field: %v", text, err)
		}
	}
}
