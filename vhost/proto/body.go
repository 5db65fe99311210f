package proto

import "fmt"

// MaxTable is the most regions of one SET_MEM_TABLE; more come by ADD_MEM_REG.
const MaxTable = 8

// Sizes of bodies in bytes.
const (
	u64Size       = 8
	vringSize     = 8
	vringAddrSize = 40
	regionSize    = 32
	inflightSize  = 20 // as specified; QEMU sends its padded structure:
	inflightQEMU  = 24
	logSize       = 16
)

func wrongSize(what string, b []byte, want string) error {
	return fmt.Errorf("%w: %s in %d bytes, it has %s", ErrSize, what, len(b), want)
}

// ParseU64 reads the body of a message with one number: features, status, queues, an
// outcome.
func ParseU64(b []byte) (uint64, error) {
	if len(b) != u64Size {
		return 0, wrongSize("a number", b, "8")
	}
	return ne.Uint64(b), nil
}

// AppendU64 is the inverse of ParseU64.
func AppendU64(dst []byte, v uint64) []byte { return ne.AppendUint64(dst, v) }

// ParseEmpty checks that a message has no body. Some front ends of old send a number
// nobody reads: that is let pass.
func ParseEmpty(b []byte) error {
	if len(b) != 0 && len(b) != u64Size {
		return wrongSize("a message without a body", b, "0")
	}
	return nil
}

// A VringState is the body of SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE and its
// answer, SET_VRING_ENABLE.
type VringState struct {
	Index uint32 // of the ring
	Num   uint32 // entries, available index, or 1 and 0 for on and off
}

// ParseVringState reads b.
func ParseVringState(b []byte) (VringState, error) {
	if len(b) != vringSize {
		return VringState{}, wrongSize("a vring state", b, "8")
	}
	return VringState{ne.Uint32(b[0:]), ne.Uint32(b[4:])}, nil
}

// Append is the inverse of ParseVringState.
func (s VringState) Append(dst []byte) []byte {
	return ne.AppendUint32(ne.AppendUint32(dst, s.Index), s.Num)
}

// VringLog is the bit of VringAddr.Flags that asks to log writes to the used ring.
const VringLog = 1

// A VringAddr is the body of SET_VRING_ADDR.
type VringAddr struct {
	Index, Flags      uint32
	Desc, Used, Avail uint64 // addresses of the front end's process
	Log               uint64 // guest physical, of the used ring
}

// ParseVringAddr reads b.
func ParseVringAddr(b []byte) (VringAddr, error) {
	if len(b) != vringAddrSize {
		return VringAddr{}, wrongSize("vring addresses", b, "40")
	}
	return VringAddr{
		Index: ne.Uint32(b[0:]), Flags: ne.Uint32(b[4:]),
		Desc: ne.Uint64(b[8:]), Used: ne.Uint64(b[16:]), Avail: ne.Uint64(b[24:]), Log: ne.Uint64(b[32:]),
	}, nil
}

// Append is the inverse of ParseVringAddr.
func (a VringAddr) Append(dst []byte) []byte {
	dst = ne.AppendUint32(ne.AppendUint32(dst, a.Index), a.Flags)
	dst = ne.AppendUint64(ne.AppendUint64(dst, a.Desc), a.Used)
	return ne.AppendUint64(ne.AppendUint64(dst, a.Avail), a.Log)
}

// A VringFD is the number in SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR.
type VringFD uint64

const (
	vringFDIndex = 0xff
	vringFDNone  = 1 << 8
)

// MaxVringFD is the number of rings that eventfds can be given to: a VringFD has eight
// bits for the index.
const MaxVringFD = vringFDIndex + 1

// NewVringFD makes the number for a ring; none: no descriptor comes with it.
func NewVringFD(index uint8, none bool) VringFD {
	v := VringFD(index)
	if none {
		v |= vringFDNone
	}
	return v
}

// Index is the ring's.
func (v VringFD) Index() int { return int(v & vringFDIndex) }

// None tells that no descriptor comes with the message.
func (v VringFD) None() bool { return v&vringFDNone != 0 }

// A MemRegion is a part of guest memory and where it is found.
type MemRegion struct {
	Guest uint64 // guest physical address
	Size  uint64 // bytes
	User  uint64 // address in the front end's process
	Off   uint64 // in the descriptor's file, bytes
}

func parseRegion(b []byte) MemRegion {
	return MemRegion{ne.Uint64(b[0:]), ne.Uint64(b[8:]), ne.Uint64(b[16:]), ne.Uint64(b[24:])}
}

func (r MemRegion) append(dst []byte) []byte {
	dst = ne.AppendUint64(ne.AppendUint64(dst, r.Guest), r.Size)
	return ne.AppendUint64(ne.AppendUint64(dst, r.User), r.Off)
}

// ParseMemTable reads the body of SET_MEM_TABLE into dst and returns the number of
// regions. A body that has room for all eight is taken for any number.
func ParseMemTable(b []byte, dst *[MaxTable]MemRegion) (int, error) {
	if len(b) < 8 {
		return 0, wrongSize("a memory table", b, "8 and 32 for each region")
	}
	n := ne.Uint32(b)
	if n > MaxTable {
		return 0, fmt.Errorf("vhost-user: a memory table of %d regions, at most %d can be in one", n, MaxTable)
	}
	if len(b) != 8+int(n)*regionSize && len(b) != 8+MaxTable*regionSize {
		return 0, wrongSize(fmt.Sprintf("a memory table of %d regions", n), b, fmt.Sprint(8+int(n)*regionSize))
	}
	for i := range int(n) {
		dst[i] = parseRegion(b[8+i*regionSize:])
	}
	return int(n), nil
}

// AppendMemTable is the inverse of ParseMemTable.
func AppendMemTable(dst []byte, rs []MemRegion) []byte {
	dst = ne.AppendUint32(ne.AppendUint32(dst, uint32(len(rs))), 0)
	for _, r := range rs {
		dst = r.append(dst)
	}
	return dst
}

// ParseMemReg reads the body of ADD_MEM_REG and REM_MEM_REG.
func ParseMemReg(b []byte) (MemRegion, error) {
	if len(b) != 8+regionSize {
		return MemRegion{}, wrongSize("a memory region", b, "40")
	}
	return parseRegion(b[8:]), nil
}

// AppendMemReg is the inverse of ParseMemReg.
func AppendMemReg(dst []byte, r MemRegion) []byte {
	return r.append(ne.AppendUint64(dst, 0))
}

// An Inflight is the body of GET_INFLIGHT_FD, its answer, and SET_INFLIGHT_FD.
type Inflight struct {
	Size, Off uint64 // of the region in the descriptor's file, bytes
	Queues    uint16
	QueueSize uint16
	Pad       bool // with QEMU's four bytes of padding; an answer has them as its request
}

// ParseInflight reads b.
func ParseInflight(b []byte) (Inflight, error) {
	if len(b) != inflightSize && len(b) != inflightQEMU {
		return Inflight{}, wrongSize("an inflight description", b, "20 or 24")
	}
	return Inflight{ne.Uint64(b[0:]), ne.Uint64(b[8:]), ne.Uint16(b[16:]), ne.Uint16(b[18:]), len(b) == inflightQEMU}, nil
}

// Append is the inverse of ParseInflight.
func (f Inflight) Append(dst []byte) []byte {
	dst = ne.AppendUint64(ne.AppendUint64(dst, f.Size), f.Off)
	dst = ne.AppendUint16(ne.AppendUint16(dst, f.Queues), f.QueueSize)
	if f.Pad {
		dst = ne.AppendUint32(dst, 0)
	}
	return dst
}

// A Log is the body of SET_LOG_BASE with ProtocolLogShmFD.
type Log struct{ Size, Off uint64 }

// ParseLog reads b.
func ParseLog(b []byte) (Log, error) {
	if len(b) != logSize {
		return Log{}, wrongSize("a log description", b, "16")
	}
	return Log{ne.Uint64(b[0:]), ne.Uint64(b[8:])}, nil
}

// Append is the inverse of ParseLog.
func (l Log) Append(dst []byte) []byte {
	return ne.AppendUint64(ne.AppendUint64(dst, l.Size), l.Off)
}
