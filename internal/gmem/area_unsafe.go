package gmem

import (
	"errors"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// An Area is a piece of guest memory that holds fields which both sides change:
// a descriptor table, an available or a used ring. Fields are little-endian
// (virtio 1.x); values are the host's. Loads and stores named Load and Store are
// atomic and, as all Go atomics, sequentially consistent; Put ones are plain, for
// what the other side reads only after a Store that follows.
//
// Offsets are bytes into the area. One outside is a fault of our own and panics.
//
// Go has no 16-bit atomics. A 16-bit load goes through the aligned 32-bit word
// that holds the field; that word may reach two bytes beyond the area, never
// beyond its page. A 16-bit field that we share with nobody within its word is
// stored as that word (used.flags|idx). Where the other half is not ours
// (avail_event) it is a plain aligned store, and the barrier that must follow is
// an atomic swap on a word of our own: see [Barrier].
type Area struct {
	b []byte
}

// ErrAlignment is the answer of NewArea for an address that its kind forbids.
var ErrAlignment = errors.New("is not aligned as its kind demands")

// NewArea is b, out of a Map's region, as an Area; its address must be a multiple
// of align (2, 4, 8 or 16).
func NewArea(b []byte, align int) (Area, error) {
	if addr(b)&uintptr(align-1) != 0 {
		return Area{}, ErrAlignment
	}
	return Area{b}, nil
}

// Len is the size of the area in bytes.
func (a Area) Len() int { return len(a.b) }

// Overlaps tells whether two areas share a byte.
func (a Area) Overlaps(o Area) bool {
	return len(a.b) > 0 && len(o.b) > 0 && (within(a.b, addr(o.b)) || within(o.b, addr(a.b)))
}

func swap16(v uint16) uint16 {
	if cpu.IsBigEndian {
		return v<<8 | v>>8
	}
	return v
}

func swap32(v uint32) uint32 {
	if cpu.IsBigEndian {
		return uint32(swap16(uint16(v)))<<16 | uint32(swap16(uint16(v>>16)))
	}
	return v
}

func swap64(v uint64) uint64 {
	if cpu.IsBigEndian {
		return uint64(swap32(uint32(v)))<<32 | uint64(swap32(uint32(v>>32)))
	}
	return v
}

// Load16 loads the 16-bit field at off, whose address is even.
func (a Area) Load16(off int) uint16 {
	_ = a.b[off+1]
	p := unsafe.Pointer(&a.b[off])
	half := uintptr(p) & 2
	w := load32((*uint32)(unsafe.Add(p, -int(half))))
	if cpu.IsBigEndian {
		half ^= 2
	}
	return swap16(uint16(w >> (half * 8)))
}

// Load32 loads the 32-bit field at off, whose address is a multiple of 4.
func (a Area) Load32(off int) uint32 {
	_ = a.b[off+3]
	return swap32(load32((*uint32)(unsafe.Pointer(&a.b[off]))))
}

// Load64 loads the 64-bit field at off, whose address is a multiple of 8.
func (a Area) Load64(off int) uint64 {
	_ = a.b[off+7]
	return swap64(load64((*uint64)(unsafe.Pointer(&a.b[off]))))
}

// Store32 stores the 32-bit field at off, whose address is a multiple of 4: what
// was put before is seen by who sees v.
func (a Area) Store32(off int, v uint32) {
	_ = a.b[off+3]
	store32((*uint32)(unsafe.Pointer(&a.b[off])), swap32(v))
}

// Or32 sets bits of the 32-bit field at off, whose address is a multiple of 4.
func (a Area) Or32(off int, v uint32) {
	_ = a.b[off+3]
	atomic.OrUint32((*uint32)(unsafe.Pointer(&a.b[off])), swap32(v))
}

// Put16 stores the 16-bit field at off, whose address is even, and nothing beside
// it.
func (a Area) Put16(off int, v uint16) {
	_ = a.b[off+1]
	*(*uint16)(unsafe.Pointer(&a.b[off])) = swap16(v)
}

// Put32 stores the 32-bit field at off, whose address is a multiple of 4.
func (a Area) Put32(off int, v uint32) {
	_ = a.b[off+3]
	*(*uint32)(unsafe.Pointer(&a.b[off])) = swap32(v)
}

// Put64 stores the 64-bit field at off, whose address is a multiple of 8.
func (a Area) Put64(off int, v uint64) {
	_ = a.b[off+7]
	*(*uint64)(unsafe.Pointer(&a.b[off])) = swap64(v)
}

// Load128 copies the 16 bytes at off by two 64-bit loads, each byte once. Unlike
// the other loads it takes any address: a table that a driver put at an odd one is
// copied bytewise.
func (a Area) Load128(off int) (lo, hi uint64) {
	p := unsafe.Pointer((*[16]byte)(a.b[off:]))
	if !anyAddress && uintptr(p)&7 != 0 {
		return load128((*[16]byte)(p))
	}
	return swap64(load64((*uint64)(p))), swap64(load64((*uint64)(unsafe.Add(p, 8))))
}

// anyAddress: the machine loads 64 bits from any address, so that Load128 is small enough
// to be inlined; a chain has some four descriptors.
const anyAddress = runtime.GOARCH == "amd64"

// load128 is Load128 of any address.
func load128(b *[16]byte) (lo, hi uint64) {
	for i := 7; i >= 0; i-- {
		lo = lo<<8 | uint64(b[i])
		hi = hi<<8 | uint64(b[8+i])
	}
	return lo, hi
}

// A Barrier orders plain stores before it against loads after it. The zero value
// is ready; it belongs to one goroutine.
type Barrier struct {
	w uint32
}

// Full is a full barrier: an atomic swap on a word that nobody else looks at.
func (b *Barrier) Full() { atomic.SwapUint32(&b.w, 1) }
