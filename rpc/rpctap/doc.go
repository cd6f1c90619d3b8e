// Package rpctap says what the NATS messages of natscall mean, for programs that listen to calls of
// others: the tool's `natscall tap`, a recorder, a test.
//
// [Decode] reads one message. It is a pure function: kinds, ids, timeouts, codecs, frames of
// streams, items of batches, errors, plain requests, and messages decompressed. [Calls] follows the
// calls in the messages that it is shown: it joins answers with their requests, and puts the
// messages of streams together from their frames.
//
//	calls := rpctap.NewCalls()
//	sub, err := nc.Subscribe("order.v1.OrderService.>", func(m *nats.Msg) {
//		event := calls.Observe(m, time.Now())
//		fmt.Println(event.Kind, event.Subject.Method, event.Messages)
//	})
//
// Messages are the encoded bytes of the call's codec: what they say needs the schema of the
// service. A listener must not join a queue group, since it would take the calls of its members.
// The answers go to the inboxes of the callers, so it has to subscribe to these too. While it
// listens to the subject of a method, NATS does not say "no responders" to callers where no
// instance is there: their calls end later, and "may have run".
//
// The bytes come from anybody who may publish, so nothing here trusts them: what is wrong is
// reported in [Message.Err], beside what could be read, and memory is bounded.
package rpctap
