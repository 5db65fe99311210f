package pdu

import "fmt"

// SNACKType is the Type field of a SNACK Request (RFC 7143 §11.16.1).
type SNACKType uint8

// The types.
const (
	SNACKDataR2T SNACKType = 0
	SNACKStatus  SNACKType = 1
	SNACKDataACK SNACKType = 2
	SNACKRData   SNACKType = 3
)

func (t SNACKType) String() string {
	switch t {
	case SNACKDataR2T:
		return "Data/R2T SNACK"
	case SNACKStatus:
		return "Status SNACK"
	case SNACKDataACK:
		return "DataACK"
	case SNACKRData:
		return "R-Data SNACK"
	}
	return fmt.Sprintf("SNACK type %d", uint8(t))
}

// SNACKType is of a SNACK Request.
func (h *BHS) SNACKType() SNACKType { return SNACKType(h[1] & 0x0f) }

// SetSNACKType sets it.
func (h *BHS) SetSNACKType(t SNACKType) { h[1] = bhsFinal | byte(t)&0x0f }

// BegRun is of a SNACK Request: the first number wanted again.
func (h *BHS) BegRun() uint32 { return h.u32(40) }

// SetBegRun sets it.
func (h *BHS) SetBegRun(v uint32) { h.put32(40, v) }

// RunLength is of a SNACK Request: how many; 0 means all from BegRun on.
func (h *BHS) RunLength() uint32 { return h.u32(44) }

// SetRunLength sets it.
func (h *BHS) SetRunLength(v uint32) { h.put32(44, v) }
