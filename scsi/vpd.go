package scsi

import (
	"encoding/binary"
	"fmt"

	"github.com/vtgt/vtgt/backing"
)

// Vital product data pages: SPC-4 §7.8, SBC-3 §6.6.

// Page codes.
const (
	vpdSupported       = 0x00
	vpdSerial          = 0x80
	vpdIdentification  = 0x83
	vpdExtended        = 0x86
	vpdModePolicy      = 0x87
	vpdPorts           = 0x88
	vpdCopy            = 0x8f
	vpdBlockLimits     = 0xb0
	vpdCharacteristics = 0xb1
	vpdProvisioning    = 0xb2
	vpdZoned           = 0xb6
)

// maxVPD is more than any page needs, bytes, but that of the ports where there are
// many.
const maxVPD = 2048

// appendPage appends the header of a page; the caller appends the rest and calls
// pageEnd. A page always begins at the start of its buffer.
func appendPage(b []byte, page byte) []byte { return append(b, pdtDisk, page, 0, 0) }

// pageEnd fills in PAGE LENGTH.
func pageEnd(b []byte) []byte {
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	return b
}

// appendVPDSupported appends page 00h, ascending (SPC-4 §7.8.14).
func appendVPDSupported(b []byte) []byte {
	b = appendPage(b, vpdSupported)
	b = append(b, vpdSupported, vpdSerial, vpdIdentification, vpdExtended, vpdModePolicy, vpdPorts, vpdCopy,
		vpdBlockLimits, vpdCharacteristics, vpdProvisioning, vpdZoned)
	return pageEnd(b)
}

// maxSerial bounds the serial number on the wire, bytes.
const maxSerial = 64

// serialASCII is the serial number as it may stand on the wire.
func serialASCII(s string) []byte {
	b := make([]byte, min(len(s), maxSerial))
	putPadded(b, s)
	return b
}

// appendVPDSerial appends page 80h, unit serial number (SPC-4 §7.8.15).
func appendVPDSerial(b []byte, c *UnitConfig) []byte {
	b = appendPage(b, vpdSerial)
	b = append(b, serialASCII(c.Serial)...)
	return pageEnd(b)
}

// Code sets, associations and designator types (SPC-4 §7.8.6).
const (
	codeBinary = 1
	codeASCII  = 2
	codeUTF8   = 3

	assocUnit   = 0 << 4
	assocPort   = 1 << 4
	assocDevice = 2 << 4
	piv         = 0x80

	designatorT10     = 1
	designatorNAA     = 3
	designatorRelPort = 4
	designatorGroup   = 5
	designatorName    = 8
)

// Designator lengths. Windows guests have been seen to hang over designators of 252
// bytes on virtio-scsi, so everything stays within 64 bytes with its header,
// except iSCSI names, which may be longer and which RFC 7143 wants there.
const (
	maxDesignator     = 60
	maxDesignatorName = 252
)

// appendVPDIdentification appends page 83h, device identification (SPC-4 §7.8.6), as
// it is at port p of target port group group.
func appendVPDIdentification(b []byte, c *UnitConfig, p *PortConfig, group uint16) []byte {
	b = appendPage(b, vpdIdentification)
	// NAA first: it is what systems prefer, and some look at the first only.
	b = append(b, codeBinary, assocUnit|designatorNAA, 0, 8)
	b = binary.BigEndian.AppendUint64(b, c.NAA)

	id := t10Designator(c)
	b = append(b, codeASCII, assocUnit|designatorT10, 0, byte(len(id)))
	b = append(b, id...)

	b = appendName(b, codeUTF8, assocUnit|designatorName, 0, fmt.Sprintf("naa.%016x", c.NAA), maxDesignator)

	proto := p.Protocol << 4
	b = append(b, proto|codeBinary, piv|assocPort|designatorRelPort, 0, 4)
	b = binary.BigEndian.AppendUint32(b, uint32(p.RelID))
	b = append(b, proto|codeBinary, piv|assocPort|designatorGroup, 0, 4)
	b = binary.BigEndian.AppendUint32(b, uint32(group))

	b = appendPortName(b, p)
	b = appendName(b, proto|codeUTF8, piv|assocDevice|designatorName, 0, p.DeviceName, p.maxName())
	return pageEnd(b)
}

// t10Designator is the designator of type T10 vendor ID (SPC-4 §7.8.6.4).
func t10Designator(c *UnitConfig) []byte {
	b := []byte("        ")
	putPadded(b, c.Vendor)
	b = append(b, serialASCII(c.Serial)...)
	return b[:min(len(b), maxDesignator)]
}

// appendPortName appends the designator with the name of a target port.
func appendPortName(b []byte, p *PortConfig) []byte {
	return appendName(b, p.Protocol<<4|codeUTF8, piv|assocPort|designatorName, 0, p.Name, p.maxName())
}

// maxName bounds name designators of the port.
func (p *PortConfig) maxName() int {
	if p.Protocol == protocolISCSI {
		return maxDesignatorName
	}
	return maxDesignator
}

// appendName appends a SCSI name string designator: UTF-8, ended by a NUL and
// padded with NULs to a multiple of four (SPC-4 §7.8.6.11). A name that is empty
// or too long is left out: half a name is another name.
func appendName(b []byte, head0, head1, head2 byte, name string, limit int) []byte {
	n := (len(name) + 4) &^ 3
	if name == "" || n > limit {
		return b
	}
	b = append(b, head0, head1, head2, byte(n))
	b = append(b, name...)
	return append(b, "\x00\x00\x00\x00"[:n-len(name)]...)
}

// appendVPDExtended appends page 86h, extended INQUIRY data (SPC-4 §7.8.7). What is
// zero is not there: protection information, GROUP NUMBER, priorities, sense key
// specific data of unit attentions, WRITE LONG, a nonvolatile cache, referrals,
// history snapshots, CbCS, microcode by WRITE BUFFER, extended self-tests.
func appendVPDExtended(b []byte, i *backing.Info) []byte {
	b = appendPage(b, vpdExtended)
	b = append(b, make([]byte, 60)...)
	b[5] = 0x07 // HEADSUP, ORDSUP, SIMPSUP
	if i.Volatile {
		b[6] = 0x01 // V_SUP: a volatile cache
	}
	b[7] = 0x01 // LUICLR: REPORT LUNS ends the unit attentions 3F/0E of all units
	b[13] = MaxSense
	return pageEnd(b)
}

// appendVPDModePolicy appends page 87h, mode page policy (SPC-4 §7.8.9): every page
// and subpage is shared by all nexuses of the unit, and by no other unit.
func appendVPDModePolicy(b []byte) []byte {
	b = appendPage(b, vpdModePolicy)
	b = append(b, modeAllPages, modeAllSubpages, 0x00, 0)
	return pageEnd(b)
}

// appendVPDPorts appends page 88h, SCSI ports (SPC-4 §7.8.13). Ports that would not
// fit into a page any more are left out.
func appendVPDPorts(b []byte, ports []*Port) []byte {
	b = appendPage(b, vpdPorts)
	for _, p := range ports {
		at := len(b)
		b = append(b, 0, 0, byte(p.conf.RelID>>8), byte(p.conf.RelID))
		b = append(b, 0, 0, 0, 0) // no initiator port
		b = append(b, 0, 0, 0, 0)
		list := len(b)
		b = appendPortName(b, &p.conf)
		binary.BigEndian.PutUint16(b[list-2:], uint16(len(b)-list))
		if len(b)-4 > 0xffff {
			b = b[:at]
			break
		}
	}
	return pageEnd(b)
}

// appendVPDZoned appends page B6h, zoned block device characteristics (ZBC §6.5.2),
// as it is for a disk that has no zones: nothing is reported.
func appendVPDZoned(b []byte) []byte {
	b = appendPage(b, vpdZoned)
	b = append(b, make([]byte, 60)...)
	// OPTIMAL NUMBER OF OPEN SEQUENTIAL WRITE PREFERRED ZONES, OPTIMAL NUMBER OF
	// NON-SEQUENTIALLY WRITTEN …: not reported. MAXIMUM NUMBER OF OPEN SEQUENTIAL
	// WRITE REQUIRED ZONES: no limit.
	for at := 8; at < 20; at += 4 {
		binary.BigEndian.PutUint32(b[at:], 0xffffffff)
	}
	return pageEnd(b)
}

// The limits that page B0h tells, from the block length in bytes. MAXIMUM TRANSFER
// LENGTH is advice: longer READs and WRITEs work.
const (
	maxTransferBytes = 4 << 20
	maxSameBytes     = 1 << 30
	maxUnmapBlocks   = 1 << 20
	maxUnmapDescs    = 256
)

func maxWriteSame(bs int64) uint64 { return uint64(maxSameBytes / bs) }

// maxCompareAndWrite is what one step can hold and one byte can say.
func maxCompareAndWrite(bs int64) uint64 { return uint64(min(255, max(stepBytes/bs, 1))) }

// physicalBlock is the number of bytes below which a write costs the store a read
// (never less than a logical block).
func physicalBlock(c *UnitConfig, i *backing.Info) int {
	p := c.PhysicalBlockSize
	if p == 0 {
		p = i.PhysicalBlock
	}
	if p < c.BlockSize || p&(p-1) != 0 {
		p = c.BlockSize
	}
	return p
}

// appendVPDBlockLimits appends page B0h, block limits (SBC-3 §6.6.4).
func appendVPDBlockLimits(b []byte, c *UnitConfig, i *backing.Info) []byte {
	b = appendPage(b, vpdBlockLimits)
	b = append(b, make([]byte, 60)...)
	bs := int64(c.BlockSize)
	phys := physicalBlock(c, i)
	b[5] = byte(maxCompareAndWrite(bs))
	binary.BigEndian.PutUint16(b[6:], uint16(min(phys/c.BlockSize, 0xffff)))
	binary.BigEndian.PutUint32(b[8:], uint32(maxTransferBytes/bs))
	// Linux warns of an optimal length that is no multiple of a physical block.
	if o := i.OptimalIO; o >= phys && o%phys == 0 && o <= maxTransferBytes {
		binary.BigEndian.PutUint32(b[12:], uint32(o/c.BlockSize))
	}
	if c.Thin {
		binary.BigEndian.PutUint32(b[20:], maxUnmapBlocks)
		binary.BigEndian.PutUint32(b[24:], maxUnmapDescs)
		g := max(phys, i.DiscardGranularity)
		binary.BigEndian.PutUint32(b[28:], uint32(g/c.BlockSize))
		binary.BigEndian.PutUint32(b[32:], 0x80000000) // UGAVALID, alignment 0
	}
	binary.BigEndian.PutUint64(b[36:], maxWriteSame(bs))
	if n := maxAtomic(bs, i); n > 0 {
		binary.BigEndian.PutUint32(b[44:], uint32(n))
		binary.BigEndian.PutUint32(b[48:], 1) // ATOMIC ALIGNMENT
		binary.BigEndian.PutUint32(b[52:], 1) // ATOMIC TRANSFER LENGTH GRANULARITY
		// MAXIMUM ATOMIC TRANSFER LENGTH WITH ATOMIC BOUNDARY, MAXIMUM ATOMIC
		// BOUNDARY SIZE: zero, no boundaries inside of one.
	}
	return pageEnd(b)
}

// appendVPDCharacteristics appends page B1h, block device characteristics
// (SBC-3 §6.6.3).
func appendVPDCharacteristics(b []byte, c *UnitConfig, i *backing.Info) []byte {
	b = appendPage(b, vpdCharacteristics)
	b = append(b, make([]byte, 60)...)
	// Nothing has to be written before it is read after a SANITIZE: blocks that
	// were erased read zero, under a new key they read zero or anything.
	if c.Thin && !c.Migratable {
		b[7] |= 1 << 6 // WABEREQ
	}
	if i.Rekeys {
		b[7] |= 1 << 4 // WACEREQ
	}
	if !i.Rotational {
		b[5] = 1 // MEDIUM ROTATION RATE 0001h: does not rotate
	}
	// FUAB: FUA and SYNCHRONIZE CACHE as in this standard. VBULS: VERIFY compares
	// unmapped blocks as zeros. ZONED is zero: no zones.
	b[8] = 0x02 | 0x01
	return pageEnd(b)
}

// appendVPDProvisioning appends page B2h, logical block provisioning (SBC-3
// §6.6.5).
func appendVPDProvisioning(b []byte, c *UnitConfig, thresholds bool) []byte {
	b = appendPage(b, vpdProvisioning)
	b = append(b, 0, 0, 0, 0)
	if thresholds {
		b[4] = thresholdExponent(c.BlockSize)
	}
	if c.Thin {
		b[5] = 0x80 | 0x40 | 0x20 | 0x04 // LBPU, LBPWS, LBPWS10, LBPRZ
		b[6] = 2                         // thin provisioned
	}
	return pageEnd(b)
}
