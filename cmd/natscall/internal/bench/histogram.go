package bench

import (
	"math"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// maxBins is how many rows a histogram has at most: it is to be seen at one glance.
const maxBins = 16

// divisions are what a decade may be divided into, from the finest, so that the bounds of bins are
// numbers that people read easily.
var divisions = [][]float64{{1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8}, {1, 1.5, 2, 3, 5, 7}, {1, 2, 5}, {1}}

// bins sorts latencies into bins that grow with the latency: the tail of a distribution is a
// hundred times as long as its middle, and both are to be seen.
func bins(h *hdrhistogram.Histogram) []Bin {
	if h.TotalCount() == 0 {
		return nil
	}
	bounds := boundsOf(millis(h.Min()), millis(h.Max()))
	out := make([]Bin, len(bounds)-1)
	for i := range out {
		out[i].From, out[i].To = bounds[i], bounds[i+1]
	}
	i := 0
	for _, bar := range h.Distribution() {
		for i < len(out)-1 && millis(bar.From) >= out[i].To {
			i++
		}
		out[i].Count += bar.Count
	}
	for len(out) > 1 && out[len(out)-1].Count == 0 { // the largest is rounded up
		out = out[:len(out)-1]
	}
	return out
}

// boundsOf returns the bounds of bins, from one that is not above the least to one above the most,
// as fine as there are rows for.
func boundsOf(least, most float64) (bounds []float64) {
	for _, division := range divisions {
		if bounds = bounded(division, least, most); len(bounds) <= maxBins+1 {
			break
		}
	}
	return bounds
}

func bounded(division []float64, least, most float64) (bounds []float64) {
	for decade := math.Floor(math.Log10(least)) - 1; ; decade++ { // -1, as logarithms are rounded
		for _, step := range division {
			bound := step * math.Pow(10, decade)
			if bound <= least {
				bounds = bounds[:0]
			}
			if bounds = append(bounds, bound); bound > most {
				return bounds
			}
		}
	}
}
