package rpcauth

import "time"

// WithClock replaces the clock.
func WithClock(now func() time.Time) Option {
	return option(func(c *common) error { c.now = now; return nil })
}

// WithServerVersion replaces the version of the NATS server.
func WithServerVersion(version func() string) VerifierOption {
	return verifierOption(func(v *Verifier) error { v.servers.connected = version; return nil })
}

var (
	// Millis writes a time as a signature does.
	Millis = millis
	// IsVulnerable reports whether a version of the NATS server has CVE-2026-33223.
	IsVulnerable = isVulnerable
)

// Cached returns how many JWTs of signed calls are remembered, and their size.
func (v *Verifier) Cached() (n, size int) {
	v.trust.tokens.mu.RLock()
	defer v.trust.tokens.mu.RUnlock()
	return len(v.trust.tokens.claims), v.trust.tokens.size
}

// ParseInfo returns who calls, by what the NATS server says.
func ParseInfo(header string, userNames bool) (Identity, error) {
	info, err := parseInfo(header)
	if err != nil {
		return Identity{}, err
	}
	return (&infoReader{userNames: userNames}).identity(info), nil
}
