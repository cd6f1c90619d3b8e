package main

import (
	"encoding/binary"
	"hash/crc32"
)

// A message's data starts with its number (8 bytes) and a checksum (4 bytes), which the server
// computes over the number and up to workSize bytes of the filler that follows. That is the
// handler's piece of work, the same in all systems; by it a client sees that an answer belongs
// to its call.
const (
	sumAt    = 8
	fillerAt = 12
	workSize = 48 // the filler of a 60-byte message
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newData returns data of so many bytes, at least fillerAt.
func newData(size int) []byte {
	data := make([]byte, size)
	for i := fillerAt; i < size; i++ {
		data[i] = 'x'
	}
	return data
}

func setNumber(data []byte, n uint64) { binary.LittleEndian.PutUint64(data, n) }

func number(data []byte) uint64 { return binary.LittleEndian.Uint64(data) }

// work writes the checksum into data.
func work(data []byte) { binary.LittleEndian.PutUint32(data[sumAt:], checksum(data)) }

// valid says whether data is of this size and worked on.
func valid(data []byte, size int) bool {
	return len(data) == size && binary.LittleEndian.Uint32(data[sumAt:]) == checksum(data)
}

func checksum(data []byte) uint32 {
	sum := crc32.Update(0, castagnoli, data[:sumAt])
	return crc32.Update(sum, castagnoli, data[fillerAt:min(len(data), fillerAt+workSize)])
}
