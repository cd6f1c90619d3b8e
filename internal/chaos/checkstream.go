package main

// checkStream checks what both sides say about the items of a stream: each came once and in
// order, and a clean end says that nothing is missing.
func (c *history) checkStream(e *record, say sayer) {
	if !e.Got.whole() {
		say("the client got the items %v", e.Got)
	}
	if len(c.runs) != 1 {
		return // violations has said what there is to be said
	}
	h, returned := c.ran[c.runs[0].Run]
	if !returned { // it was killed
		if e.Run == "" && (e.Code == okCode || e.Code == abortedCode) {
			say("the client says that the handler has returned, but it has not")
		}
		return
	}
	if !h.Got.whole() {
		say("the handler got the items %v", h.Got)
	}
	// A Send that fails may have sent its item nevertheless.
	if got, sent := h.Got.count(), e.Sent; got > sent+1 {
		say("the handler got %d items of %d that the client sent", got, sent)
	}
	if got, sent := e.Got.count(), h.Sent; got > sent+1 {
		say("the client got %d items of %d that the handler sent", got, sent)
	}
	c.checkCleanEnds(e, h, say)
}

// checkCleanEnds checks both directions: e is the client's end of the stream, h the handler's.
func (c *history) checkCleanEnds(e, h *record, say sayer) {
	if h.Closed && !e.Closed {
		say("the handler saw a clean end of the items, but the client has not closed its half")
	}
	if h.Closed && h.Got.count() != e.Sent {
		say("the handler saw a clean end after %d items, but the client sent %d", h.Got.count(), e.Sent)
	}
	if e.Code != okCode && e.Code != abortedCode {
		return
	}
	// What the client got is the handler's own end. Where it names the execution, checkAnswer has
	// compared them.
	if e.Run == "" && e.Code != h.Code {
		say("its client says that the handler ended with %s, but it ended with %s", e.Code, h.Code)
	}
	if c.began.Method != methodImport && e.Got.count() != h.Sent {
		say("the stream ended with %s after %d items, but the handler sent %d", e.Code, e.Got.count(), h.Sent)
	}
	if e.Code != okCode || c.began.Method == methodWatch {
		return
	}
	if !h.Closed {
		say("the stream ended cleanly, but the handler has not seen the end of the items")
	}
	if c.began.Method == methodImport && e.Count != e.Sent {
		say("the response is about %d items, but the client sent %d", e.Count, e.Sent)
	}
}
