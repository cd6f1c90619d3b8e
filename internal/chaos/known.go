package main

// What the runtime does not keep yet, and callers therefore do not do. Each constant goes with
// the repair.
const (
	// closesAfterCancel lets a client that has canceled a client stream call CloseAndRecv
	// nevertheless. The handler may see a clean end then, and commit.
	closesAfterCancel = false

	// largeRepliesWhereLost lets clients ask for responses that do not fit into max_payload also
	// where messages are lost. A replica that has announced such a response waits for its client
	// until the call's deadline, however long it has heard nothing, and so does its shutdown.
	largeRepliesWhereLost = false
)
