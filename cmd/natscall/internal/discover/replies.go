package discover

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// replies are the answers to a question, with the times at which they have come.
type replies struct {
	sub   *nats.Subscription
	came  chan reply
	done  chan struct{} // closed when nobody waits for more
	began time.Time
}

// reply is an answer, and how long after the question it has come.
type reply struct {
	msg   *nats.Msg
	after time.Duration
}

// someReplies is how many may wait until they are looked at; then NATS waits.
const someReplies = 256

// listen returns an inbox for the answers to a question that is asked now.
func listen(nc *nats.Conn) (*replies, error) {
	r := &replies{came: make(chan reply, someReplies), done: make(chan struct{}), began: time.Now()}
	sub, err := nc.Subscribe(nc.NewInbox(), func(m *nats.Msg) {
		select {
		case r.came <- reply{m, time.Since(r.began)}:
		case <-r.done:
		}
	})
	r.sub = sub
	return r, err
}

func (r *replies) close() {
	close(r.done)
	_ = r.sub.Unsubscribe() // fails only if the connection has been closed
}

// next returns the next answer, or one without a message when there are no more.
func (r *replies) next(ctx context.Context, patience time.Duration) (reply, error) {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case m := <-r.came:
		if len(m.msg.Data) == 0 && m.msg.Header.Get("Status") == noResponders {
			return reply{}, nil
		}
		return m, nil
	case <-waiting.Done():
		if err := ctx.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return reply{}, err
		}
		return reply{}, nil
	}
}

// noResponders is the status with which NATS says that nobody listens.
const noResponders = "503"
