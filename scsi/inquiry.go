package scsi

import "encoding/binary"

// INQUIRY: SPC-4 §6.6.

const inquiryLen = 96

// Peripheral device types and qualifiers (SPC-4 §6.6.2).
const (
	pdtDisk   = 0x00
	pdtWLUN   = 0x1e // well-known logical unit
	pdtNoUnit = 0x7f // qualifier 011b, type 1Fh: no unit here
)

// Version descriptors (SPC-4 §6.6.2 table 142).
const (
	versionSAM5  = 0x00a0
	versionSPC4  = 0x0460
	versionSBC3  = 0x04c0
	versioniSCSI = 0x0960
	versionSRP   = 0x0940
)

// Protocol identifiers (SPC-4 §7.6.1).
const (
	protocolSRP   = 0x4
	protocolISCSI = 0x5
)

// putPadded writes s to dst, padded with spaces or cut, as left-aligned ASCII
// (SPC-4 §4.3.1): what is not printable ASCII becomes a space.
func putPadded(dst []byte, s string) {
	for i := range dst {
		dst[i] = ' '
		if i < len(s) && s[i] >= 0x20 && s[i] <= 0x7e {
			dst[i] = s[i]
		}
	}
}

// standardInquiry makes the standard INQUIRY data of a disk that is reached by
// protocol and, where multi is set, by other ports as well. dst has inquiryLen bytes.
func standardInquiry(dst []byte, c *UnitConfig, protocol uint8, multi bool) {
	clear(dst)
	dst[0] = pdtDisk
	if c.Removable {
		dst[1] = 0x80
	}
	inquiryHead(dst)
	dst[5] = 0x10 | 0x08 // TPGS: implicit; 3PC
	if c.SetAccess {
		dst[5] |= 0x20 // and explicit
	}
	if multi {
		dst[6] = 0x10 // MULTIP: VPD page 88h has them
	}
	putPadded(dst[8:16], c.Vendor)
	putPadded(dst[16:32], c.Product)
	putPadded(dst[32:36], c.Revision)
	v := append(make([]uint16, 0, 4), versionSAM5)
	switch protocol {
	case protocolISCSI:
		v = append(v, versioniSCSI)
	case protocolSRP:
		v = append(v, versionSRP)
	}
	v = append(v, versionSPC4, versionSBC3)
	for i, x := range v {
		binary.BigEndian.PutUint16(dst[58+2*i:], x)
	}
}

// noUnitInquiry makes the standard INQUIRY data where there is no disk: pdt is
// pdtNoUnit or pdtWLUN.
func noUnitInquiry(dst []byte, pdt byte) {
	clear(dst)
	dst[0] = pdt
	inquiryHead(dst)
	putPadded(dst[8:16], vendorDefault)
	putPadded(dst[16:32], productDefault)
	putPadded(dst[32:36], "")
	binary.BigEndian.PutUint16(dst[58:], versionSAM5)
	binary.BigEndian.PutUint16(dst[60:], versionSPC4)
}

// inquiryHead fills in what is the same everywhere.
func inquiryHead(dst []byte) {
	dst[2] = 0x06        // SPC-4
	dst[3] = 0x10 | 0x02 // HISUP, response data format 2
	dst[4] = inquiryLen - 5
	dst[7] = 0x02 // CMDQUE
}

const (
	vendorDefault  = "VTGT"
	productDefault = "VIRTUAL DISK"
)

func runInquiry(t *Task) {
	alloc := lenBytes3(t)
	evpd, page := t.CDB[1]&1 != 0, t.CDB[2]
	if !evpd && page != 0 {
		t.check(InvalidCDBField(2, 7))
		return
	}
	if evpd {
		t.inquiryVPD(page, alloc)
		return
	}
	b := t.scratch(inquiryLen)
	switch {
	case t.unit != nil:
		c := t.portConf()
		standardInquiry(b, &t.unit.conf, c.Protocol, len(t.unit.paths()) > 1)
		if c.Vendor != "" {
			putPadded(b[8:16], c.Vendor)
		}
		if c.Product != "" {
			putPadded(b[16:32], c.Product)
		}
	case t.LUN == LUNReportLUNs:
		noUnitInquiry(b, pdtWLUN)
	default:
		noUnitInquiry(b, pdtNoUnit)
	}
	t.reply(b, alloc)
}

// inquiryVPD answers with a vital product data page.
func (t *Task) inquiryVPD(page byte, alloc int64) {
	b := t.scratch(maxVPD)[:0]
	if t.unit == nil {
		if page != vpdSupported {
			t.check(InvalidCDBField(2, 7))
			return
		}
		pdt := byte(pdtNoUnit)
		if t.LUN == LUNReportLUNs {
			pdt = pdtWLUN
		}
		t.reply(append(b, pdt, vpdSupported, 0, 1, vpdSupported), alloc)
		return
	}
	c := &t.unit.conf
	switch page {
	case vpdSupported:
		b = appendVPDSupported(b)
	case vpdSerial:
		b = appendVPDSerial(b, c)
	case vpdIdentification:
		b = appendVPDIdentification(b, c, t.portConf(), t.target().Group())
	case vpdExtended:
		b = appendVPDExtended(b, t.unit.info())
	case vpdModePolicy:
		b = appendVPDModePolicy(b)
	case vpdPorts:
		b = appendVPDPorts(b, t.unit.paths())
	case vpdCopy:
		if d, ok := t.unit.server.(*disk); ok {
			b = appendVPDCopy(b, d.rows, t.unit.blockSize)
		}
	case vpdZoned:
		b = appendVPDZoned(b)
	case vpdBlockLimits:
		b = appendVPDBlockLimits(b, c, t.unit.info())
	case vpdCharacteristics:
		b = appendVPDCharacteristics(b, &t.unit.conf, t.unit.info())
	case vpdProvisioning:
		b = appendVPDProvisioning(b, c, t.unit.usualThreshold() != 0)
	default:
		t.check(InvalidCDBField(2, 7))
		return
	}
	t.reply(b, alloc)
}
