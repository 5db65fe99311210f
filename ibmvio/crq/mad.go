package crq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrShort: a datagram that is shorter than its type or its own length ask for.
var ErrShort = errors.New("management datagram too short")

// MADType is the type of a management datagram.
type MADType uint32

// The types.
const (
	EmptyIU        MADType = 1
	ErrorLog       MADType = 2
	AdapterInfo    MADType = 3
	HostConfig     MADType = 4
	Capabilities   MADType = 5
	EnableFastFail MADType = 8
)

func (t MADType) String() string {
	switch t {
	case EmptyIU:
		return "EMPTY_IU"
	case ErrorLog:
		return "ERROR_LOG"
	case AdapterInfo:
		return "ADAPTER_INFO"
	case HostConfig:
		return "HOST_CONFIG"
	case Capabilities:
		return "CAPABILITIES"
	case EnableFastFail:
		return "ENABLE_FAST_FAIL"
	}
	return fmt.Sprintf("MAD type %#x", uint32(t))
}

// MADStatus is the status of a management datagram.
type MADStatus uint16

// The status codes.
const (
	MADSuccess      MADStatus = 0x00
	MADNotSupported MADStatus = 0xf1
	MADFailed       MADStatus = 0xf7
)

// Lengths of datagrams, bytes: the header alone, and with the address of a buffer.
const (
	MADLen       = 16
	MADBufferLen = 24
)

// Datagram is the header of a management datagram in its unit.
type Datagram [MADLen]byte

// AsDatagram looks at b, at least MADLen bytes, as one.
func AsDatagram(b []byte) *Datagram { return (*Datagram)(b[:MADLen]) }

// Type is the type.
func (m *Datagram) Type() MADType { return MADType(binary.BigEndian.Uint32(m[:])) }

// Status is the status.
func (m *Datagram) Status() MADStatus { return MADStatus(binary.BigEndian.Uint16(m[4:])) }

// SetStatus sets it.
func (m *Datagram) SetStatus(s MADStatus) { binary.BigEndian.PutUint16(m[4:], uint16(s)) }

// Length is the length of the buffer that the datagram is about, bytes; of one without
// a buffer the datagram's own.
func (m *Datagram) Length() int { return int(binary.BigEndian.Uint16(m[6:])) }

// Tag is the tag.
func (m *Datagram) Tag() uint64 { return binary.BigEndian.Uint64(m[8:]) }

// Set fills the header in.
func (m *Datagram) Set(t MADType, length int, tag uint64) {
	binary.BigEndian.PutUint32(m[:], uint32(t))
	m.SetStatus(0)
	binary.BigEndian.PutUint16(m[6:], uint16(length))
	binary.BigEndian.PutUint64(m[8:], tag)
}

// ParseMAD takes a unit apart: its header, and for types that have one the I/O bus
// address of the buffer.
func ParseMAD(b []byte) (m *Datagram, buffer uint64, err error) {
	if len(b) < MADLen {
		return nil, 0, ErrShort
	}
	m = AsDatagram(b)
	switch m.Type() {
	case EmptyIU, ErrorLog, AdapterInfo, HostConfig, Capabilities:
		if len(b) < MADBufferLen {
			return m, 0, ErrShort
		}
		buffer = binary.BigEndian.Uint64(b[MADLen:])
	}
	return m, buffer, nil
}

// OS is the type of operating system of a partition.
type OS uint32

// The types.
const (
	OSUnknown  OS = 0
	OSOS400    OS = 1
	OSLinux    OS = 2
	OSAIX      OS = 3
	OSFirmware OS = 4
)

func (o OS) String() string {
	switch o {
	case OSUnknown:
		return "unknown"
	case OSOS400:
		return "OS/400"
	case OSLinux:
		return "Linux"
	case OSAIX:
		return "AIX"
	case OSFirmware:
		return "firmware"
	}
	return fmt.Sprintf("OS %d", uint32(o))
}

// InfoLen is the length of adapter information, bytes.
const InfoLen = 148

// Info is what the partitions tell each other of themselves (ADAPTER_INFO).
type Info [InfoLen]byte

// Version is the version of SRP ("16.a").
func (i *Info) Version() string { return cString(i[:8]) }

// SetVersion sets it.
func (i *Info) SetVersion(s string) { putCString(i[:8], s) }

// Partition is the name of the partition.
func (i *Info) Partition() string { return cString(i[8:104]) }

// SetPartition sets it.
func (i *Info) SetPartition(s string) { putCString(i[8:104], s) }

// Number is the number of the partition.
func (i *Info) Number() uint32 { return binary.BigEndian.Uint32(i[104:]) }

// SetNumber sets it.
func (i *Info) SetNumber(n uint32) { binary.BigEndian.PutUint32(i[104:], n) }

// MADVersion is the version of the datagrams (1).
func (i *Info) MADVersion() uint32 { return binary.BigEndian.Uint32(i[108:]) }

// SetMADVersion sets it.
func (i *Info) SetMADVersion(n uint32) { binary.BigEndian.PutUint32(i[108:], n) }

// OS is the operating system.
func (i *Info) OS() OS { return OS(binary.BigEndian.Uint32(i[112:])) }

// SetOS sets it.
func (i *Info) SetOS(o OS) { binary.BigEndian.PutUint32(i[112:], uint32(o)) }

// MaxTransfer is the most that one command may move, bytes (port_max_txu[0]).
func (i *Info) MaxTransfer() uint32 { return binary.BigEndian.Uint32(i[116:]) }

// SetMaxTransfer sets it.
func (i *Info) SetMaxTransfer(n uint32) { binary.BigEndian.PutUint32(i[116:], n) }

// CapsLen is the length of capabilities before their list, bytes.
const CapsLen = 68

// CapsFlags are the flags of CAPABILITIES.
type CapsFlags uint32

// The flags.
const (
	ClientMigrated CapsFlags = 1 << iota
	ClientReconnect
	CapListSupported
	CapListData
)

// CapType is the type of a capability.
type CapType uint32

// The types, and what a record of type CapReserve asks for.
const (
	CapMigration  CapType = 1
	CapReserve    CapType = 2
	ReserveSCSI2          = 1
	capHeaderLen          = 8
	capReserveLen         = 12
)

// Flags are the flags of the capabilities in b, at least CapsLen bytes.
func Flags(b []byte) CapsFlags { return CapsFlags(binary.BigEndian.Uint32(b)) }

// Grant makes an answer of the capabilities that a client has written into b: those
// that it asks for and the server has not are taken back. SCSI-2 reservations are what
// there is. What of the list cannot be read stays as it is, and err says why.
func Grant(b []byte) (reserve bool, err error) {
	if len(b) < CapsLen {
		return false, ErrShort
	}
	f := Flags(b)
	binary.BigEndian.PutUint32(b, uint32(f&CapListSupported))
	if f&CapListSupported == 0 {
		return false, nil
	}
	for rest := b[CapsLen:]; len(rest) > 0; {
		if len(rest) < capHeaderLen {
			return reserve, ErrShort
		}
		n := int(binary.BigEndian.Uint16(rest[4:]))
		if n < capHeaderLen || n > len(rest) {
			return reserve, ErrShort
		}
		ok := CapType(binary.BigEndian.Uint32(rest)) == CapReserve && n >= capReserveLen &&
			binary.BigEndian.Uint32(rest[capHeaderLen:]) == ReserveSCSI2
		var v uint16
		if ok {
			v, reserve = 1, true
		}
		binary.BigEndian.PutUint16(rest[6:], v)
		rest = rest[n:]
	}
	return reserve, nil
}

// cString is what stands before the first zero byte, printable ASCII only.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, b))
}

// putCString puts s into b with a zero byte behind it, cut where it is too long.
func putCString(b []byte, s string) {
	clear(b)
	copy(b[:len(b)-1], s)
}
