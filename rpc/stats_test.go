package rpc

import (
	"math"
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	var h histogram
	if h.quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
	for ms := 1; ms <= 100; ms++ {
		h.add(time.Duration(ms) * time.Millisecond)
	}
	for q, want := range map[float64]float64{0.5: 51, 0.99: 100} {
		if got := milliseconds(h.quantile(q)); math.Abs(got-want) > 0.1*want {
			t.Errorf("quantile %v is %v ms, want %v", q, got, want)
		}
	}
}
