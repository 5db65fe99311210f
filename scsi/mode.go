package scsi

import (
	"encoding/binary"

	"github.com/vtgt/vtgt/backing"
)

// Mode pages of a disk: SPC-4 §7.5, SBC-3 §6.5.

// Page codes.
const (
	modeErrorRecovery = 0x01
	modeCaching       = 0x08
	modeControl       = 0x0a
	modeExceptions    = 0x1c
	modeAllPages      = 0x3f
	modeAllSubpages   = 0xff
)

// Values of the PAGE CONTROL field.
const (
	pcCurrent    = 0
	pcChangeable = 1
	pcDefault    = 2
	pcSaved      = 3
)

// modeState is what MODE SELECT can change.
type modeState struct {
	wce    bool // write cache enabled
	dSense bool // descriptor sense data
	swp    bool // software write protect
	tas    bool // aborted tasks of others answer TASK ABORTED
}

// Bits of the pages.
const (
	cachingWCE    = 0x04 // byte 2
	controlDSense = 0x04 // byte 2
	controlSWP    = 0x08 // byte 4
	controlTAS    = 0x40 // byte 5
)

// modePage is one page: how to make it and how to take it in.
type modePage struct {
	code   byte
	length int // in bytes, with the two-byte header
	// put fills b, of length zero bytes after the header, with the values of s.
	put func(b []byte, s *modeState)
	// mask fills b with the changeable bits.
	mask func(b []byte, i *backing.Info)
	// get takes the changeable bits of b over into s.
	get func(b []byte, s *modeState)
}

// modePages in ascending order of code.
var modePages = [...]modePage{
	{modeErrorRecovery, 12, putErrorRecovery, nil, nil},
	{modeCaching, 20, putCaching, maskCaching, getCaching},
	{modeControl, 12, putControl, maskControl, getControl},
	{modeExceptions, 12, putExceptions, nil, nil},
}

// putErrorRecovery: the store reallocates by itself, nothing is retried here
// (SBC-3 §6.5.8).
func putErrorRecovery(b []byte, _ *modeState) {
	b[2] = 0x80 // AWRE
}

// putCaching: SBC-3 §6.5.6.
func putCaching(b []byte, s *modeState) {
	if s.wce {
		b[2] = cachingWCE
	}
}

// maskCaching: a write cache can be turned off by syncing after each write; one
// that does not exist cannot be turned on.
func maskCaching(b []byte, i *backing.Info) {
	if i.Volatile {
		b[2] = cachingWCE
	}
}

func getCaching(b []byte, s *modeState) { s.wce = b[2]&cachingWCE != 0 }

// putControl: SPC-4 §7.5.8.
func putControl(b []byte, s *modeState) {
	b[2] = 0x02 // GLTSD: there is no log to save
	if s.dSense {
		b[2] |= controlDSense
	}
	b[3] = 0x10 // QUEUE ALGORITHM MODIFIER: unrestricted reordering
	if s.swp {
		b[4] = controlSWP
	}
	if s.tas {
		b[5] = controlTAS
	}
	binary.BigEndian.PutUint16(b[8:], 0xffff) // BUSY TIMEOUT PERIOD: unlimited
}

func maskControl(b []byte, _ *backing.Info) {
	b[2], b[4], b[5] = controlDSense, controlSWP, controlTAS
}

func getControl(b []byte, s *modeState) {
	s.dSense = b[2]&controlDSense != 0
	s.swp = b[4]&controlSWP != 0
	s.tas = b[5]&controlTAS != 0
}

// putExceptions: SPC-4 §7.5.11.
func putExceptions(b []byte, _ *modeState) {
	b[2] = 0x08 // DEXCPT: no informational exceptions
}

// append appends the page with the values that pc asks for.
func (p *modePage) append(b []byte, pc byte, s *modeState, i *backing.Info) []byte {
	at := len(b)
	b = append(b, make([]byte, p.length)...)
	d := b[at:]
	if pc == pcChangeable {
		if p.mask != nil {
			p.mask(d, i)
		}
	} else {
		p.put(d, s)
	}
	d[0], d[1] = p.code, byte(p.length-2)
	return b
}
