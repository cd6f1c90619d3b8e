package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	comparev1 "github.com/natscall/natscall/rpc/internal/compare/gen/compare/v1"
)

// rawNATS is what a user would write by hand, with nothing but bytes: requests against a
// callback that runs them one after the other, and for streams publish and subscribe, without
// flow control.
var rawNATS = system{name: baseline, streams: true, serve: serveRaw, dial: dialRaw}

const (
	rawEcho     = "raw.echo"
	rawUpload   = "raw.upload."  // and the stream's name: messages, then a request for their number
	rawDownload = "raw.download" // a request with size and count; its reply is where to publish
	rawStop     = "raw.stop"     // a request with the subject of a download that is to stop
	rawQueue    = "q"
)

// connectNATS connects as a user would, by default options.
func connectNATS(url string) (*nats.Conn, error) { return nats.Connect(url) }

// rawServer has the state of the streams.
type rawServer struct {
	nc        *nats.Conn
	downloads sync.Map          // subject -> *atomic.Bool, true when it is to stop
	uploads   map[string]uint64 // subject -> messages that came; of one callback
}

func serveRaw(url string) (string, error) {
	nc, err := connectNATS(url)
	if err != nil {
		return "", err
	}
	s := &rawServer{nc: nc, uploads: map[string]uint64{}}
	for subject, handler := range map[string]nats.MsgHandler{
		rawEcho: s.echo, rawDownload: s.download, rawStop: s.stop, rawUpload + "*": s.upload,
	} {
		sub, err := nc.QueueSubscribe(subject, rawQueue, handler)
		if err != nil {
			return "", err
		}
		if err := sub.SetPendingLimits(-1, -1); err != nil { // so that what is lost is lost by NATS
			return "", err
		}
	}
	return "", nc.Flush()
}

func (s *rawServer) echo(m *nats.Msg) {
	handle(m.Data)
	_ = m.Respond(m.Data)
}

// download starts a goroutine that ends with the count or by stop.
func (s *rawServer) download(m *nats.Msg) {
	stopped := new(atomic.Bool)
	s.downloads.Store(m.Reply, stopped)
	req := &comparev1.DownloadRequest{Size: binary.LittleEndian.Uint32(m.Data), Count: binary.LittleEndian.Uint64(m.Data[4:])}
	go func() {
		defer s.downloads.Delete(m.Reply)
		_ = handleDownload(req, func(data []byte) error {
			if stopped.Load() {
				return context.Canceled
			}
			return s.nc.Publish(m.Reply, data)
		})
		_ = s.nc.Publish(m.Reply, nil) // the end
	}()
}

func (s *rawServer) stop(m *nats.Msg) {
	if stopped, ok := s.downloads.Load(string(m.Data)); ok {
		stopped.(*atomic.Bool).Store(true)
	}
	_ = m.Respond(nil)
}

func (s *rawServer) upload(m *nats.Msg) {
	if m.Reply == "" {
		s.uploads[m.Subject]++
		handle(m.Data)
		return
	}
	_ = m.Respond(binary.LittleEndian.AppendUint64(nil, s.uploads[m.Subject]))
	delete(s.uploads, m.Subject)
}

type rawPeer struct{ nc *nats.Conn }

func dialRaw(url, _ string) (peer, error) {
	nc, err := connectNATS(url)
	return rawPeer{nc}, err
}

func (p rawPeer) echo(ctx context.Context, data []byte) ([]byte, error) {
	m, err := p.nc.RequestWithContext(ctx, rawEcho, data)
	if err != nil {
		return nil, err
	}
	return m.Data, nil
}

func (p rawPeer) download(ctx context.Context, size int, count uint64, got func([]byte) bool) error {
	inbox := p.nc.NewInbox()
	done := make(chan struct{})
	ended := false // of the callback
	sub, err := p.nc.Subscribe(inbox, func(m *nats.Msg) {
		if !ended && (len(m.Data) == 0 || !got(m.Data)) {
			ended = true
			close(done)
		}
	})
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	order := binary.LittleEndian.AppendUint32(nil, uint32(size))
	order = binary.LittleEndian.AppendUint64(order, count)
	if err := p.nc.PublishRequest(rawDownload, inbox, order); err != nil {
		return err
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
	if _, err := p.nc.RequestWithContext(ctx, rawStop, []byte(inbox)); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}

func (p rawPeer) upload(ctx context.Context, next func() []byte) (uint64, error) {
	subject := rawUpload + nats.NewInbox()[len(nats.InboxPrefix):]
	for data := next(); data != nil; data = next() {
		if err := p.nc.Publish(subject, data); err != nil {
			return 0, err
		}
	}
	m, err := p.nc.RequestWithContext(ctx, subject, nil)
	if err != nil {
		return 0, fmt.Errorf("end: %w", err)
	}
	return binary.LittleEndian.Uint64(m.Data), nil
}

// chat is request and reply: raw NATS has nothing else that a peer answers on.
func (p rawPeer) chat(ctx context.Context) (exchange, error) {
	return func(data []byte) ([]byte, error) { return p.echo(ctx, data) }, nil
}
