package scsi

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
)

// TransportIDs (SPC-4 §7.6.4) as they stand in parameter lists and as they are kept.

const (
	minTransportID = 24
	// maxTransportID is the longest: an iSCSI name of 223 bytes, ",i,0x", an ISID of 12
	// digits and a null byte, padded.
	maxTransportID = 4 + 244
	maxISCSIName   = 223
)

// cutTransportID cuts the first TransportID off b. ok is false where it is not whole.
func cutTransportID(b []byte) (id, rest []byte, ok bool) {
	if len(b) < minTransportID {
		return nil, nil, false
	}
	n := minTransportID
	if b[0]&0x0f == protocolISCSI {
		n = 4 + int(binary.BigEndian.Uint16(b[2:]))
	}
	if n < minTransportID || n%4 != 0 || n > len(b) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// canonicalTransportID brings a TransportID into the form that it is compared in: no
// reserved bits, iSCSI names and ISIDs in lower case, no more padding than needed.
// "": it names no initiator port.
func canonicalTransportID(b []byte) string {
	id, _, ok := cutTransportID(b)
	if !ok {
		return ""
	}
	format, protocol := id[0]>>6, id[0]&0x0f
	if protocol != protocolISCSI {
		if format != 0 {
			return ""
		}
		var c [minTransportID]byte
		c[0] = protocol
		switch protocol {
		case 0x0, 0x3: // Fibre Channel, IEEE 1394: a name of 8 bytes
			copy(c[8:16], id[8:])
		case protocolSRP:
			copy(c[8:24], id[8:])
		case 0x6: // SAS
			copy(c[4:12], id[4:])
		case 0xa: // PCI Express
			copy(c[2:4], id[2:])
		default:
			return ""
		}
		return string(c[:])
	}
	text := id[4:]
	if i := strings.IndexByte(string(text), 0); i >= 0 {
		text = text[:i]
	} else {
		return ""
	}
	name, isid, port := strings.Cut(string(text), ",i,0x")
	if port != (format == 1) || format > 1 || name == "" || len(name) > maxISCSIName {
		return ""
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c == ',' || c == 0x7f {
			return ""
		}
	}
	if !port {
		return iscsiTransportID(strings.ToLower(name))
	}
	v, err := strconv.ParseUint(isid, 16, 48)
	if err != nil {
		return ""
	}
	var d [8]byte
	binary.BigEndian.PutUint64(d[:], v)
	return iscsiTransportID(strings.ToLower(name) + ",i,0x" + hex.EncodeToString(d[2:]))
}

// iscsiTransportID is the TransportID of name, with or without ",i,0x" and an ISID.
func iscsiTransportID(name string) string {
	var c [maxTransportID]byte
	c[0] = protocolISCSI
	if strings.Contains(name, ",i,0x") {
		c[0] |= 0x40
	}
	n := 4 + copy(c[4:maxTransportID-1], name)
	n = max((n+4)&^3, minTransportID) // a null byte at least
	binary.BigEndian.PutUint16(c[2:], uint16(n-4))
	return string(c[:n])
}

// TransportName is the name in a TransportID, as InitiatorID has it: "iqn.…,i,0x…",
// "srp.…"; of other protocols the protocol identifier and the hexadecimal digits.
func TransportName(id []byte) string {
	if len(id) < minTransportID {
		return "?"
	}
	switch id[0] & 0x0f {
	case protocolISCSI:
		s, _, _ := strings.Cut(string(id[4:]), "\x00")
		return s
	case protocolSRP:
		return "srp." + hex.EncodeToString(id[8:24])
	}
	return "protocol " + string(hexDigit(id[0])) + "h 0x" + hex.EncodeToString(id[4:])
}

// deviceName is the iSCSI name in a canonical TransportID, of whatever format.
func deviceName(transport string) string {
	if transport == "" || transport[0]&0x0f != protocolISCSI {
		return ""
	}
	s, _, _ := strings.Cut(transport[4:], "\x00")
	s, _, _ = strings.Cut(s, ",i,0x")
	return s
}

// wholeDevice reports whether a canonical TransportID names an iSCSI node, not one
// port of it (format 00b).
func wholeDevice(transport string) bool {
	return transport != "" && transport[0] == protocolISCSI
}

// regID names the nexus for registrations. Without Unit.mu.
func (n *Nexus) regID() regID {
	var b [maxTransportID + 16]byte
	l := n.fe.TransportID(b[:])
	return regID{n.port.conf.RelID, canonicalTransportID(b[:max(min(l, len(b)), 0)])}
}
