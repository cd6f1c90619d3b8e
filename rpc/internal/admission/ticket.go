package admission

import "time"

// Ticket is what admission knows of a call. The caller of Push sets Method. It is part of every
// call, and so as small as it can be.
type Ticket struct {
	Method *Method

	next    Task // that waits for the same method
	refused Reason
	waits   bool // there was no free slot when it came
	ran     bool
	span    time.Duration // the estimated wait; of a call that has run, how long it did
	need    time.Duration // what has to be left of the deadline; 0 if it has not waited
	ended   time.Duration // when
}

// Reason says why a call is not run.
type Reason uint8

const (
	// NotRefused is the zero value.
	NotRefused Reason = iota
	// QueueFull says that as many calls of the service wait as may.
	QueueFull
	// MethodFull says that as many calls of the method wait as may.
	MethodFull
	// Hopeless says that the call could not be answered before its deadline.
	Hopeless
	// Late says the same of a call that has waited.
	Late
)

// Begin reports whether the call is to run now. If it has waited and has too little time left, it
// is not, and Refused says so. It is called after Pop, without the owner's lock.
func (k *Ticket) Begin(now, deadline time.Duration) bool {
	k.ended = now
	if deadline != 0 && deadline-now < k.need {
		k.refused = Late
	}
	return k.refused == NotRefused
}

// Ran notes that the handler has run. It is called before Done, without the owner's lock.
func (k *Ticket) Ran(ended, took time.Duration) { k.ran, k.ended, k.span = true, ended, took }

// Waited reports whether there was no free slot when the call came.
func (k *Ticket) Waited() bool { return k.waits }

// Refused returns why the call is refused.
func (k *Ticket) Refused() Reason { return k.refused }

// Wait returns how long a refused call was expected to wait.
func (k *Ticket) Wait() time.Duration { return k.span }

// Need returns how much time a refused call would have had to have left.
func (k *Ticket) Need() time.Duration { return k.need }
