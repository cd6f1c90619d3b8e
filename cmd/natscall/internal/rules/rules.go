// Package rules holds buf/validate/validate.proto, which .proto files with rules of protovalidate
// import (docs/validation.md). It is a copy of the file in github.com/bufbuild/protovalidate v1.2.2
// and stands under the Apache License 2.0, as LICENSE in this folder says.
package rules

import _ "embed"

// Path is the path under which .proto files import the rules.
const Path = "buf/validate/validate.proto"

// Text is the text of the file at [Path].
//
//go:embed buf/validate/validate.proto
var Text []byte
