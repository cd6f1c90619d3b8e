package tool

import _ "github.com/jhump/protoreflect/v2/protoprint"
