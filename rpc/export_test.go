package rpc

// OpenStreams is how many streams a client has in its table.
func (c *Client) OpenStreams() int { return len(c.streams.all()) }

// Open is how many streams and calls a server has in its tables.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.streams.all())
	for _, svc := range s.services {
		n += len(svc.calls.all())
	}
	return n
}
