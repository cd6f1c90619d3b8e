package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
)

// aliasProtos have bytes in all the places where a message may have them.
var aliasProtos = map[string]string{
	"blob.proto": `syntax = "proto3";
		message Blob {
			bytes data = 1;
			string name = 2;
			oneof one { bytes raw = 3; string text = 4; Blob child = 5; }
			repeated bytes list = 6;
			map<string, bytes> table = 7;
			optional bytes maybe = 8;
			repeated int64 numbers = 9;
		}`,
	"sealed.proto": `syntax = "proto2";
		message Sealed {
			required bytes data = 1;
			required string name = 2;
			optional bytes more = 3 [default = "some"];
			optional group Pair = 4 { optional bytes left = 1; }
			extensions 100 to 199;
		}
		extend Sealed { optional bytes extra = 100; }`,
}

func newBlob() proto.Message   { return dynamicpb.NewMessage(aliasMessage("blob.proto")) }
func newSealed() proto.Message { return dynamicpb.NewMessage(aliasMessage("sealed.proto")) }

var aliasFiles = map[string]protoreflect.MessageDescriptor{}

// aliasMessage is the one message of a file.
func aliasMessage(file string) protoreflect.MessageDescriptor {
	if d := aliasFiles[file]; d != nil {
		return d
	}
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(aliasProtos)}}
	files, err := compiler.Compile(context.Background(), file)
	if err != nil {
		panic(err) // of a constant
	}
	aliasFiles[file] = files[0].Messages().Get(0)
	return aliasFiles[file]
}

var aliasTypes = []struct {
	name string
	make func() proto.Message
}{
	{"BytesValue", func() proto.Message { return new(wrapperspb.BytesValue) }},
	{"StringValue", func() proto.Message { return new(wrapperspb.StringValue) }},
	{"Any", func() proto.Message { return new(anypb.Any) }},
	{"Struct", func() proto.Message { return new(structpb.Struct) }},
	{"Status", func() proto.Message { return new(natscallv1.Status) }},
	{"UninterpretedOption", func() proto.Message { return new(descriptorpb.UninterpretedOption) }},
	{"Blob", newBlob},
	{"Sealed", newSealed},
	{"vtprotobuf", func() proto.Message { return &vtSealed{newSealed()} }},
}

// vtSealed decodes like the code of vtprotobuf, which merges, and wants to
// see the required fields in the very bytes that it is given.
type vtSealed struct{ proto.Message }

func (m *vtSealed) UnmarshalVT(b []byte) error {
	part := newSealed()
	if err := proto.Unmarshal(b, part); err != nil {
		return err
	}
	proto.Merge(m.Message, part)
	return nil
}

// checkAlias: whatever the bytes, the result is that of package proto.
func checkAlias(t testing.TB, name string, newMessage func() proto.Message, data []byte, minimum int) {
	t.Helper()
	want, got, before := newMessage(), newMessage(), slices.Clone(data)
	panicked, wantErr := unmarshalOrPanic(slices.Clone(data), want)
	if panicked {
		return
	}
	err := decodeProto(data, got, minimum)
	switch {
	case (err == nil) != (wantErr == nil):
		t.Fatalf("%s, minimum %d, %x: error is %v, that of package proto %v", name, minimum, data, err, wantErr)
	case err == nil && !proto.Equal(got, want):
		t.Fatalf("%s, minimum %d, %x: got %v, want %v", name, minimum, data, got, want)
	case !bytes.Equal(data, before):
		t.Fatalf("%s, minimum %d: %x has become %x", name, minimum, before, data)
	}
}

// unmarshalOrPanic is there because package proto panics on a dynamic message
// with a map entry that has a second key of a wrong wire type (v1.36.12).
func unmarshalOrPanic(data []byte, m proto.Message) (panicked bool, err error) {
	defer func() { panicked = recover() != nil }()
	return false, proto.Unmarshal(data, m)
}

func bytesField(n protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), value)
}

func varintField(n protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), value)
}

// tagged appends a field of another wire type.
func tagged(n protowire.Number, kind protowire.Type, value ...byte) []byte {
	return append(protowire.AppendTag(nil, n, kind), value...)
}

// TestUnmarshalAlias decodes messages in which each field in turn is the large
// one, whole and cut off at each byte, into each type.
func TestUnmarshalAlias(t *testing.T) {
	for _, kind := range aliasTypes {
		t.Run(kind.name, func(t *testing.T) {
			for _, n := range []protowire.Number{1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 100, 1000, protowire.MaxValidNumber} {
				for name, data := range largeFields(n) {
					for end := range len(data) + 1 {
						checkAlias(t, fmt.Sprintf("field %d, %s", n, name), kind.make, data[:end], 8)
					}
				}
			}
		})
	}
}

// largeFields are messages whose field n is large, by what is special about them.
func largeFields(n protowire.Number) map[string][]byte {
	large, other, small, name := bytes.Repeat([]byte("L"), 48), bytes.Repeat([]byte("O"), 40), []byte("s"), []byte("n")
	required := slices.Concat(bytesField(1, small), bytesField(2, name))
	field := func(b []byte) []byte { return bytesField(n, b) }
	group := func(b []byte) []byte {
		return slices.Concat(tagged(4, protowire.StartGroupType), b, tagged(4, protowire.EndGroupType))
	}
	return map[string][]byte{
		"alone":                 field(large),
		"first":                 slices.Concat(field(large), required),
		"last":                  slices.Concat(required, field(large)),
		"between":               slices.Concat(bytesField(1, small), field(large), bytesField(2, name)),
		"twice":                 slices.Concat(required, field(large), field(other)),
		"twice, the second one": slices.Concat(field(small), field(large), required),
		"small again":           slices.Concat(field(large), required, field(small)),
		"empty again":           slices.Concat(field(large), required, field(nil)),
		"half of all":           slices.Concat(field(large), bytesField(2, bytes.Repeat([]byte("x"), 50))),
		"a member of a oneof":   slices.Concat(bytesField(5, bytesField(1, small)), field(large), bytesField(5, bytesField(2, small))),
		"other wire types":      slices.Concat(varintField(n, 1<<40), field(large), tagged(n, protowire.Fixed32Type, 1, 2, 3, 4)),
		"a group before":        slices.Concat(group(bytesField(1, small)), field(large), required),
		"in a group":            slices.Concat(group(bytesField(1, large)), required),
		"a group that ends":     slices.Concat(field(large), tagged(4, protowire.EndGroupType)),
		"a group of another":    slices.Concat(tagged(4, protowire.StartGroupType), field(large), tagged(3, protowire.EndGroupType)),
		"not UTF-8":             slices.Concat(bytesField(2, []byte{0xff}), field(large)),
		"number 0":              slices.Concat(field(large), required, []byte{0x02, 0x00}),
		"wire type 7":           slices.Concat(field(large), required, []byte{0x0f, 0x00}),
		"absurd length":         slices.Concat(field(large), tagged(1, protowire.BytesType), bytes.Repeat([]byte{0xff}, 9), []byte{0x01}),
		"many before":           slices.Concat(bytes.Repeat(varintField(9, 1), maxScan), required, field(large)),
	}
}

// TestUnmarshalAliasAtRandom decodes fields in random order, some of them damaged.
func TestUnmarshalAliasAtRandom(t *testing.T) {
	for i, kind := range aliasTypes {
		t.Run(kind.name, func(t *testing.T) {
			for seed := range uint64(2000) {
				rnd := rand.New(rand.NewPCG(seed, uint64(i)))
				data := randomFields(rnd)
				if rnd.IntN(8) == 0 && len(data) > 0 {
					data[rnd.IntN(len(data))] = byte(rnd.Uint32())
				}
				checkAlias(t, fmt.Sprintf("seed %d", seed), kind.make, data, 1+rnd.IntN(32))
			}
		})
	}
}

func randomFields(rnd *rand.Rand) (data []byte) {
	for range rnd.IntN(7) {
		n := protowire.Number(1 + rnd.IntN(10))
		switch rnd.IntN(6) {
		case 0:
			data = append(data, varintField(n, rnd.Uint64()>>rnd.IntN(64))...)
		case 1:
			data = append(data, bytesField(n, randomFields(rnd))...)
		case 2:
			data = append(data, bytesField(n, bytes.Repeat([]byte{byte(rnd.Uint32())}, rnd.IntN(200)))...)
		default:
			data = append(data, bytesField(n, []byte("text")[:rnd.IntN(5)])...)
		}
	}
	return data
}

// FuzzUnmarshalAlias is the same with the bytes of the fuzzer.
func FuzzUnmarshalAlias(f *testing.F) {
	for seed := range uint64(32) {
		f.Add(randomFields(rand.New(rand.NewPCG(seed, 5))), uint8(seed), uint8(7))
	}
	f.Fuzz(func(t *testing.T, data []byte, which, minimum uint8) {
		kind := aliasTypes[int(which)%len(aliasTypes)]
		checkAlias(t, kind.name, kind.make, data, max(1, int(minimum)))
	})
}

// TestWhatIsShared: the large field, and nothing else, is where it was
// received, and who appends to it does not write into what stands behind.
func TestWhatIsShared(t *testing.T) {
	const minimum = 64
	value := func(n int) []byte { return bytes.Repeat([]byte{'v'}, n) }
	for _, test := range []struct {
		name   string
		data   []byte
		shared bool
	}{
		{"large", slices.Concat(bytesField(1, []byte("type")), bytesField(2, value(100))), true},
		{"large, before others", slices.Concat(bytesField(2, value(100)), bytesField(1, []byte("type"))), true},
		{"just large enough", bytesField(2, value(minimum)), true},
		{"too small", bytesField(2, value(minimum-1)), false},
		{"less than half", slices.Concat(bytesField(2, value(100)), bytesField(1, value(200))), false},
		{"behind many fields", slices.Concat(bytes.Repeat(bytesField(1, nil), maxScan), bytesField(2, value(100))), false},
		{"replaced by a small one", slices.Concat(bytesField(2, value(100)), bytesField(2, value(10))), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := new(anypb.Any)
			if err := decodeProto(test.data, m, minimum); err != nil {
				t.Fatal(err)
			}
			got, before := m.GetValue(), slices.Clone(test.data)
			if test.shared && cap(got) != len(got) {
				t.Errorf("%d bytes have room for %d", len(got), cap(got))
			}
			if _ = append(got, 'x'); !bytes.Equal(test.data, before) {
				t.Error("an append has changed what was received")
			}
			clear(test.data)
			if shared := got[0] == 0; shared != test.shared {
				t.Errorf("shared: %v, want %v", shared, test.shared)
			}
		})
	}
}

// TestAliasOfVT: a message of vtprotobuf is decoded by its own method, in one
// piece or around the large field, and the error of any piece is that of all.
func TestAliasOfVT(t *testing.T) {
	large := bytes.Repeat([]byte("L"), 100)
	before, after := bytesField(1, []byte("before")), bytesField(1, []byte("after"))
	for _, test := range []struct {
		name string
		data []byte
		fail int // the call of UnmarshalVT that fails
		want []int
	}{
		{"small", before, -1, []int{len(before)}},
		{"alone", bytesField(2, large), -1, nil},
		{"between", slices.Concat(before, bytesField(2, large), after), -1, []int{len(before), len(after)}},
		{"small that fails", before, 0, []int{len(before)}},
		{"before fails", slices.Concat(before, bytesField(2, large), after), 0, []int{len(before)}},
		{"after fails", slices.Concat(before, bytesField(2, large), after), 1, []int{len(before), len(after)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, want := &vtAny{fail: test.fail}, new(anypb.Any)
			err := decodeProto(test.data, m, 64)
			if (test.fail >= 0) != errors.Is(err, errVT) || !slices.Equal(m.steps, test.want) {
				t.Fatalf("error is %v after %v, want %v", err, m.steps, test.want)
			}
			if err == nil {
				if err := proto.Unmarshal(test.data, want); err != nil || !proto.Equal(&m.Any, want) {
					t.Errorf("got %v, want %v", &m.Any, want)
				}
			}
		})
	}
}

var errVT = errors.New("vtprotobuf")

// vtAny is a message whose method notes what it is given.
type vtAny struct {
	anypb.Any
	fail  int
	steps []int // the sizes of the pieces
}

func (m *vtAny) UnmarshalVT(b []byte) error {
	m.steps = append(m.steps, len(b))
	if len(m.steps)-1 == m.fail {
		return errVT
	}
	return proto.UnmarshalOptions{Merge: true}.Unmarshal(b, &m.Any)
}

// BenchmarkUnmarshalAlias measures decoding a large field beside package proto.
func BenchmarkUnmarshalAlias(b *testing.B) {
	for _, size := range []int{minAlias, 4 << 10, 64 << 10, 1 << 20} {
		data := slices.Concat(bytesField(1, []byte("type.googleapis.com/test.v1.Blob")), bytesField(2, make([]byte, size)))
		run := func(name string, decode func(m proto.Message) error) {
			b.Run(strconv.Itoa(size)+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for b.Loop() {
					if err := decode(new(anypb.Any)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("proto", func(m proto.Message) error { return proto.Unmarshal(data, m) })
		run("natscall", func(m proto.Message) error { return decodeProto(data, m, minAlias) })
	}
}
