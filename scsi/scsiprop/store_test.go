package scsiprop

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
)

const (
	blockSize = 512
	// blocks is the size of the medium: small, so that commands meet.
	blocks = 48
)

// A block holds one word, 64 times. word is it; ok is false for a torn block.
func word(b []byte) (w uint64, ok bool) {
	w = binary.BigEndian.Uint64(b)
	for i := 8; i < blockSize; i += 8 {
		if binary.BigEndian.Uint64(b[i:]) != w {
			return w, false
		}
	}
	return w, true
}

func putWord(b []byte, w uint64) {
	for i := 0; i < blockSize; i += 8 {
		binary.BigEndian.PutUint64(b[i:], w)
	}
}

// memory is a store whose blocks are atomic, each for itself, like a disk's sectors:
// what is more than that is the command core's doing. It answers inline.
type memory struct {
	info backing.Info
	mu   [blocks]sync.Mutex
	b    [blocks][blockSize]byte
	// stores are those that it can copy from; moved counts blocks.
	stores map[backing.Store]*memory
	moved  atomic.Int64
}

// newMemory has n blocks.
func newMemory(thin bool, n int) *memory {
	m := &memory{info: backing.Info{Size: int64(n * blockSize), BlockAlign: blockSize, Volatile: true, Extents: true, Cached: true,
		AtomicMax: n * blockSize}}
	if thin {
		m.info.DiscardGranularity, m.info.DiscardZeroes = blockSize, true
	}
	return m
}

func (m *memory) Info() *backing.Info                     { return &m.info }
func (m *memory) Watch(func(*backing.Info)) (stop func()) { return func() {} }
func (m *memory) Resize(int64) error                      { return backing.ErrNotSupported }
func (m *memory) Reopen() error                           { return nil }
func (m *memory) Close() error                            { return nil }

func (m *memory) Queue(*loop.Loop) (backing.Queue, error) { return memoryQueue{m}, nil }

type memoryQueue struct{ m *memory }

func (memoryQueue) Kick()              {}
func (memoryQueue) Cancel(*backing.Op) {}
func (memoryQueue) Close(done func())  { done() }

func (q memoryQueue) Submit(op *backing.Op) bool {
	op.N, op.Err = 0, nil
	if op.Off < 0 || op.Len < 0 || op.Off%blockSize != 0 || op.Len%blockSize != 0 || op.Off+op.Len > q.m.info.Size {
		op.Err = backing.ErrRange
		return true
	}
	if op.Kind == backing.Sync {
		return true
	}
	src := q.m.stores[op.Src]
	if op.Kind == backing.Copy && src == nil {
		op.Err = backing.ErrNotSupported
		return true
	}
	at := 0 // in Bufs
	var one [blockSize]byte
	for i := op.Off / blockSize; i < (op.Off+op.Len)/blockSize; i++ {
		switch op.Kind {
		case backing.Read:
			q.m.mu[i].Lock()
			one = q.m.b[i]
			q.m.mu[i].Unlock()
			at = spread(op.Bufs, at, one[:], true)
			op.N += blockSize
		case backing.Write:
			at = spread(op.Bufs, at, one[:], false)
			q.m.mu[i].Lock()
			q.m.b[i] = one
			q.m.mu[i].Unlock()
			op.N += blockSize
		case backing.Copy:
			from := (op.SrcOff-op.Off)/blockSize + i
			src.mu[from].Lock()
			one = src.b[from]
			src.mu[from].Unlock()
			q.m.mu[i].Lock()
			q.m.b[i] = one
			q.m.mu[i].Unlock()
			op.N += blockSize
			q.m.moved.Add(1)
		case backing.Zero, backing.Discard:
			q.m.mu[i].Lock()
			q.m.b[i] = [blockSize]byte{}
			q.m.mu[i].Unlock()
		case backing.Extents:
			if int(op.N) == len(op.Ext) {
				return true
			}
			q.m.mu[i].Lock()
			op.Ext[op.N] = backing.Extent{Off: i * blockSize, Len: blockSize, Allocated: q.m.b[i] != [blockSize]byte{}}
			q.m.mu[i].Unlock()
			op.N++
		}
	}
	return true
}

// spread copies b to or from the bytes of bufs from at on.
func spread(bufs [][]byte, at int, b []byte, to bool) (next int) {
	skip := at
	for _, v := range bufs {
		if skip >= len(v) {
			skip -= len(v)
			continue
		}
		var n int
		if to {
			n = copy(v[skip:], b)
		} else {
			n = copy(b, v[skip:])
		}
		skip = 0
		at += n
		if b = b[n:]; len(b) == 0 {
			break
		}
	}
	return at
}
