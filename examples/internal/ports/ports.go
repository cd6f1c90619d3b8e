// Package ports is for tests whose servers must have ports that are known before they start.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Free returns ports at which nothing listens. They are none of those that systems give to whoever
// asks for any, or a server of another test could get one before it is used.
func Free(t testing.TB, n int) []int {
	t.Helper()
	var free []int
	for range 100 * n {
		port := 20000 + rand.IntN(10000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close() // when there are n different ones
		if free = append(free, port); len(free) == n {
			return free
		}
	}
	t.Fatalf("%d ports are free, and %d are needed", len(free), n)
	return nil
}
