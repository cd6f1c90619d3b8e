package rpctest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// socketBuffer is how much a pump between sockets holds in one direction, which is about what the
// buffers of TCP do. Beyond it the sender has to wait.
const socketBuffer = 8 << 20

// link is one connection: a pair of sockets or pipes, and a pump for each direction.
type link struct {
	client, server net.Conn
	limit          int // bytes that a pump holds; 0 means no limit
	once           sync.Once
	closed         chan struct{}
	hole           atomic.Bool  // nothing comes out any more
	ends           atomic.Int32 // how many sides of a hole have closed it
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.closed)
		_, _ = l.client.Close(), l.server.Close() // they may be closed from the other end
	})
}

// pump carries one direction of a link. One goroutine reads and decides what happens to messages,
// another one writes what is due. Between them is a buffer: a pipe has none, and a side that has
// to wait for the other one while it holds a lock would stop the clock of a bubble.
type pump struct {
	proxy *Proxy
	link  *link
	to    Direction
	dst   net.Conn
	r     *bufio.Reader
	held  []byte // a message to deliver after the next

	mu     sync.Mutex
	queue  []parcel
	size   int       // bytes in the queue
	last   time.Time // when the last of the queue is due
	filled chan struct{}
	taken  chan struct{}
}

// parcel is what is to be written. One without data is the end of the link.
type parcel struct {
	data []byte
	due  time.Time
}

func newPump(p *Proxy, l *link, to Direction) *pump {
	src, dst := l.client, l.server
	if to == ToClient {
		src, dst = dst, src
	}
	return &pump{
		proxy: p, link: l, to: to, dst: dst, r: bufio.NewReaderSize(src, 64<<10),
		filled: make(chan struct{}, 1), taken: make(chan struct{}, 1),
	}
}

// read runs until the source is closed, or a message cuts the link.
func (p *pump) read() {
	for p.step() {
	}
	if p.link.hole.Load() {
		if p.link.ends.Add(1) == 2 {
			p.link.close()
		}
		return
	}
	p.put(nil, 0)
}

// step reads one protocol line, with the message that it announces. It returns false at the end of
// the link.
func (p *pump) step() bool {
	line, err := p.r.ReadString('\n')
	if err != nil {
		return false
	}
	m, size, ok := parseLine(line, p.to)
	if !ok {
		return p.put([]byte(line), 0)
	}
	raw := make([]byte, len(line)+size.total+len("\r\n"))
	copy(raw, line)
	body := raw[len(line):]
	if _, err := io.ReadFull(p.r, body); err != nil {
		return false
	}
	return p.act(p.decide(&m, body[:size.total], size.header), raw)
}

func (p *pump) decide(m *Message, body []byte, header int) Action {
	f := *p.proxy.fault.Load()
	if f == nil {
		return Pass
	}
	m.Data = body[header:]
	if header > 0 {
		m.Header, _ = nats.DecodeHeadersMsg(body[:header]) // one that does not parse is none
	}
	return f(*m)
}

// act does what was decided about the message raw. It returns false at the end of the link.
func (p *pump) act(a Action, raw []byte) bool {
	switch {
	case a == Cut:
		return false
	case a == Lose:
		return true
	case a == Swap && p.held == nil:
		p.held = raw
		return true
	case a == Duplicate:
		raw = append(raw, raw...)
	}
	raw = append(raw, p.held...)
	p.held = nil
	return p.put(raw, max(0, time.Duration(a)))
}

// put queues data for the writer, with a delay before it, and waits for room. It returns false when
// the link is closed.
func (p *pump) put(data []byte, delay time.Duration) bool {
	if p.link.hole.Load() {
		return true
	}
	p.mu.Lock()
	if latency := time.Duration(p.proxy.latency.Load()); latency > 0 {
		p.last = later(p.last, time.Now().Add(latency))
	}
	if delay > 0 {
		p.last = later(p.last, time.Now()).Add(delay)
	}
	p.queue = append(p.queue, parcel{data, p.last})
	p.size += len(data)
	full := p.link.limit > 0 && p.size > p.link.limit
	p.mu.Unlock()
	signal(p.filled)
	for full {
		select {
		case <-p.taken:
		case <-p.link.closed:
			return false
		}
		p.mu.Lock()
		full = p.size > p.link.limit
		p.mu.Unlock()
	}
	return true
}

// write runs until the link ends. What cannot be written is dropped: the end that made it fail is
// on its way in the other direction.
func (p *pump) write() {
	defer p.link.close()
	w := bufio.NewWriterSize(p.dst, 64<<10)
	for {
		next, ok := p.peek()
		gate := p.proxy.gates[p.to].wait()
		switch wait := time.Until(next.due); {
		case !ok:
			ok = await(p.link, w, p.filled)
		case wait > 0:
			timer := time.NewTimer(wait)
			ok = await(p.link, w, timer.C)
			timer.Stop()
		case gate != nil:
			ok = await(p.link, w, gate)
		case next.data == nil:
			_ = w.Flush()
			return
		default:
			p.writeFirst(w, next.data)
		}
		if !ok {
			return
		}
	}
}

// await lets what was written go, and waits for c. It returns false when the link is closed.
func await[T any](l *link, w *bufio.Writer, c <-chan T) bool {
	_ = w.Flush()
	select {
	case <-c:
		return true
	case <-l.closed:
		return false
	}
}

// peek returns the first of the queue, if there is one.
func (p *pump) peek() (parcel, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return parcel{}, false
	}
	return p.queue[0], true
}

// writeFirst writes the data of the first of the queue, and removes it.
func (p *pump) writeFirst(w io.Writer, data []byte) {
	if !p.link.hole.Load() {
		_, _ = w.Write(data)
	}
	p.mu.Lock()
	p.queue[0] = parcel{}
	if p.queue = p.queue[1:]; len(p.queue) == 0 {
		p.queue = nil
	}
	p.size -= len(data)
	p.mu.Unlock()
	signal(p.taken)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// signal wakes the goroutine that waits for c, or lets it not wait the next time.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sizes are those of a message: of its header, and with it.
type sizes struct{ header, total int }

// parseLine reads the line before a message:
//
//	PUB subject [reply] size           MSG subject sid [reply] size
//	HPUB subject [reply] header size   HMSG subject sid [reply] header size
func parseLine(line string, to Direction) (m Message, s sizes, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return m, s, false
	}
	numbers, addresses := 1, 1
	switch verb := strings.ToUpper(fields[0]); {
	case to == ToServer && verb == "PUB", to == ToClient && verb == "MSG":
	case to == ToServer && verb == "HPUB", to == ToClient && verb == "HMSG":
		numbers = 2
	default:
		return m, s, false
	}
	if to == ToClient {
		addresses = 2 // the sid
	}
	first := len(fields) - numbers
	if first < 1+addresses {
		return m, s, false
	}
	m = Message{To: to, Subject: fields[1]}
	if first > 1+addresses {
		m.Reply = fields[1+addresses]
	}
	s, err := parseSizes(fields[first:])
	return m, s, err == nil
}

func parseSizes(fields []string) (s sizes, err error) {
	if s.total, err = strconv.Atoi(fields[len(fields)-1]); err != nil {
		return s, err
	}
	if len(fields) == 2 {
		s.header, err = strconv.Atoi(fields[0])
	}
	if err == nil && (s.header < 0 || s.total < s.header) {
		err = fmt.Errorf("header of %d bytes in a message of %d", s.header, s.total)
	}
	return s, err
}
