package vring

// The split virtqueue's layout in bytes, VIRTIO 1.2 §2.7.5 to §2.7.8.
const (
	descBytes = 16 // addr 8, len 4, flags 2, next 2

	availFlags = 0
	availIdx   = 2
	availRing  = 4 // 2 each; used_event follows the last

	usedFlags = 0 // with idx one aligned 32-bit word, both halves ours
	usedRing  = 4 // id 4, len 4 each; avail_event follows the last
	usedBytes = 8

	descAlign  = 16
	availAlign = 2
	usedAlign  = 4
)

// Flags of a descriptor, VIRTIO 1.2 §2.7.5.
const (
	DescNext     = 1 // the chain goes on at next
	DescWrite    = 2 // the device writes, else it reads
	DescIndirect = 4 // the buffer is a table of descriptors
)

// noInterrupt is avail.flags' and noNotify used.flags' only bit.
const (
	noInterrupt = 1
	noNotify    = 1
)

// MaxSize is the largest ring, VIRTIO 1.2 §2.7.
const MaxSize = 32768

// DescSize is the size in bytes of the descriptor table of a ring of n entries.
func DescSize(n int) int { return descBytes * n }

// AvailSize is the size in bytes of the available ring of n entries, used_event
// included.
func AvailSize(n int) int { return availRing + 2*n + 2 }

// UsedSize is the size in bytes of the used ring of n entries, avail_event
// included.
func UsedSize(n int) int { return usedRing + usedBytes*n + 2 }

func usedEvent(n int) int  { return availRing + 2*n }
func availEvent(n int) int { return usedRing + usedBytes*n }

// A desc is a descriptor as it was read: a private copy of its two halves.
type desc struct{ lo, hi uint64 }

func (d desc) addr() uint64  { return d.lo }
func (d desc) len() uint32   { return uint32(d.hi) }
func (d desc) flags() uint16 { return uint16(d.hi >> 32) }
func (d desc) next() uint16  { return uint16(d.hi >> 48) }

// needEvent tells whether going from old to new passed event, all modulo 2^16
// (VIRTIO 1.2 §2.7.7.2 and §2.7.10): whether the other side asked to hear of it.
func needEvent(event, new, old uint16) bool {
	return new-event-1 < new-old
}
