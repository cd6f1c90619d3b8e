// Package proto holds the .proto files that users of natscall import.
package proto

import _ "embed"

// OptionsPath is the path under which .proto files import the options.
const OptionsPath = "natscall/v1/options.proto"

// Options is the text of the file at [OptionsPath].
//
//go:embed natscall/v1/options.proto
var Options []byte
