package srptest

import (
	"errors"
	"sync"

	"github.com/vtgt/vtgt/srp/iu"
)

// ErrAddress: outside the initiator's memory.
var ErrAddress = errors.New("address outside the initiator's memory")

// memBase is the lowest address, and memKey the memory handle of all.
const memBase, memKey = 0x10000, 0x5a

// Memory is an initiator's memory as its descriptors name it.
type Memory struct {
	mu     sync.Mutex
	blocks map[uint64][]byte
	next   uint64
}

// Alloc makes n bytes of memory; an unmapped gap lies behind them.
func (m *Memory) Alloc(n int) iu.Segment {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blocks == nil {
		m.blocks, m.next = make(map[uint64][]byte), memBase
	}
	s := iu.Segment{Addr: m.next, Key: memKey, Len: uint32(n)}
	m.blocks[s.Addr] = make([]byte, n)
	m.next += uint64(n+0x1fff) &^ 0xfff
	return s
}

// Free unmaps it.
func (m *Memory) Free(s iu.Segment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blocks, s.Addr)
}

// At gives the bytes of s, which may be part of a block.
func (m *Memory) At(s iu.Segment) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for a, b := range m.blocks {
		if s.Key == memKey && s.Addr >= a && s.Addr-a <= uint64(len(b)) && uint64(s.Len) <= uint64(len(b))-(s.Addr-a) {
			return b[s.Addr-a:][:s.Len:s.Len], nil
		}
	}
	return nil, ErrAddress
}
