package pdu

import (
	"encoding/binary"
	"errors"
)

// AHS codes (RFC 7143 §11.2.2.1).
const (
	ahsExtendedCDB  = 1
	ahsBidiReadData = 2
	ahsCode         = 0x3f
)

// Errors of [ParseAHS]. The first four are format errors (§7.6: the connection
// ends, the framing can't be trusted); the last is a header that is well made but
// asks for what nobody knows.
var (
	ErrAHSShort   = errors.New("an additional header segment is longer than TotalAHSLength says")
	ErrAHSLength  = errors.New("AHSLength does not fit the AHS type")
	ErrAHSTwice   = errors.New("two additional header segments of one type")
	ErrAHSUnknown = errors.New("unknown AHS type")
)

// AHS is what the additional header segments of a SCSI Command say.
type AHS struct {
	// ExtendedCDB holds the bytes of the CDB from the 17th on, in place (it
	// belongs to whoever owns the parsed bytes); nil where there are none.
	ExtendedCDB []byte
	// BidiReadLength is the Bidirectional Read Expected Data Transfer Length in
	// bytes, valid where HasBidi.
	BidiReadLength uint32
	HasBidi        bool
}

// ParseAHS reads the additional header segments of a SCSI Command: b is all of them
// with their padding, TotalAHSLength words. Lengths are checked, nothing is copied.
func ParseAHS(b []byte) (AHS, error) {
	var a AHS
	for len(b) > 0 {
		if len(b) < 4 {
			return AHS{}, ErrAHSShort
		}
		// AHSLength counts what follows the type byte, without padding.
		n := int(binary.BigEndian.Uint16(b))
		full := PaddedLen(3 + n)
		if full > len(b) {
			return AHS{}, ErrAHSShort
		}
		switch b[2] & ahsCode {
		case ahsExtendedCDB:
			// The reserved byte and at least one byte of CDB.
			if n < 2 {
				return AHS{}, ErrAHSLength
			}
			if a.ExtendedCDB != nil {
				return AHS{}, ErrAHSTwice
			}
			a.ExtendedCDB = b[4 : 3+n : 3+n]
		case ahsBidiReadData:
			if n != 5 {
				return AHS{}, ErrAHSLength
			}
			if a.HasBidi {
				return AHS{}, ErrAHSTwice
			}
			a.HasBidi, a.BidiReadLength = true, binary.BigEndian.Uint32(b[4:])
		default:
			return AHS{}, ErrAHSUnknown
		}
		b = b[full:]
	}
	return a, nil
}

// AppendExtendedCDB appends the AHS that carries cdb[16:] (nothing for CDBs of 16
// bytes or fewer), padded.
func AppendExtendedCDB(b, cdb []byte) []byte {
	if len(cdb) <= 16 {
		return b
	}
	ext := cdb[16:]
	b = binary.BigEndian.AppendUint16(b, uint16(len(ext)+1))
	b = append(b, ahsExtendedCDB, 0)
	b = append(b, ext...)
	return append(b, make([]byte, Pad(len(ext)))...)
}

// AppendBidiReadLength appends the AHS with the read length of a bidirectional
// command, bytes.
func AppendBidiReadLength(b []byte, n uint32) []byte {
	b = append(b, 0, 5, ahsBidiReadData, 0)
	return binary.BigEndian.AppendUint32(b, n)
}
