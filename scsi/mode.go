package scsi

import (
	"encoding/binary"

	"github.com/vtgt/vtgt/backing"
)

// Mode pages of a disk: SPC-4 §7.5, SBC-3 §6.5.

// Page codes.
const (
	modeErrorRecovery = 0x01
	modeReconnect     = 0x02
	modeCaching       = 0x08
	modeControl       = 0x0a
	modePower         = 0x1a
	modeExceptions    = 0x1c
	modeAllPages      = 0x3f
)

// Subpage codes.
const (
	modeControlExt  = 0x01 // of modeControl
	modeThresholds  = 0x02 // of modeExceptions
	modeAllSubpages = 0xff
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
	lbpere bool // thin provisioning thresholds are reported
	// limit is the threshold, in threshold sets; 0: Unit.usualThreshold.
	limit uint32
	// unlimited: the threshold is disabled.
	unlimited bool
}

// Bits of the pages.
const (
	recoveryLBPERE = 0x80 // byte 7
	cachingWCE     = 0x04 // byte 2
	controlDSense  = 0x04 // byte 2
	controlSWP     = 0x08 // byte 4
	controlTAS     = 0x40 // byte 5
	modePS         = 0x80 // byte 0: the page can be saved
	modeSPF        = 0x40 // byte 0: subpage format
)

// modeUnit is what pages show of their unit besides the state.
type modeUnit struct {
	info  *backing.Info
	thin  bool
	saves bool // there is a Memory
	// usual is Unit.usualThreshold; 0: there are no thresholds.
	usual uint32
}

func (u *Unit) modeUnit() modeUnit {
	return modeUnit{info: u.info(), thin: u.conf.Thin, saves: u.conf.Memory != nil, usual: u.usualThreshold()}
}

// modePage is one page: how to make it and how to take it in.
type modePage struct {
	code, sub byte
	length    int // in bytes, with the header of two bytes, four with a subpage
	// put fills b, of length zero bytes after the header, with the values of s.
	put func(b []byte, s *modeState, u *modeUnit)
	// mask fills b with the changeable bits; nil: there are none. They are
	// what can be saved, too.
	mask func(b []byte, u *modeUnit)
	// get takes the changeable bits of b over into s.
	get func(b []byte, s *modeState)
	// fields are those of several bits.
	fields []modeField
}

// modePages in ascending order of code and subpage code.
var modePages = [...]modePage{
	{modeErrorRecovery, 0, 12, putErrorRecovery, maskErrorRecovery, getErrorRecovery, recoveryFields},
	{modeReconnect, 0, 16, putNothing, nil, nil, reconnectFields},
	{modeCaching, 0, 20, putCaching, maskCaching, getCaching, cachingFields},
	{modeControl, 0, 12, putControl, maskControl, getControl, controlFields},
	{modeControl, modeControlExt, 32, putControlExt, nil, nil, extensionFields},
	{modePower, 0, 40, putPower, nil, nil, powerFields},
	{modeExceptions, 0, 12, putExceptions, nil, nil, exceptionFields},
	{modeExceptions, modeThresholds, 24, putThresholds, maskThresholds, getThresholds, thresholdFields},
}

// putNothing is the disconnect-reconnect page (SPC-4 §7.5.10): zero is "no limit"
// for the burst sizes, and neither iSCSI nor SRP uses the others. iSCSI negotiates
// its burst lengths at login.
func putNothing([]byte, *modeState, *modeUnit) {}

// putErrorRecovery: the store reallocates by itself, nothing is retried here
// (SBC-3 §6.5.8).
func putErrorRecovery(b []byte, s *modeState, u *modeUnit) {
	b[2] = 0x80 // AWRE
	if s.lbpere && u.thin {
		b[7] = recoveryLBPERE
	}
}

func maskErrorRecovery(b []byte, u *modeUnit) {
	if u.thin {
		b[7] = recoveryLBPERE
	}
}

func getErrorRecovery(b []byte, s *modeState) { s.lbpere = b[7]&recoveryLBPERE != 0 }

// putCaching: SBC-3 §6.5.6.
func putCaching(b []byte, s *modeState, _ *modeUnit) {
	if s.wce {
		b[2] = cachingWCE
	}
}

// maskCaching: a write cache can be turned off by syncing after each write; one
// that does not exist cannot be turned on.
func maskCaching(b []byte, u *modeUnit) {
	if u.info.Volatile {
		b[2] = cachingWCE
	}
}

func getCaching(b []byte, s *modeState) { s.wce = b[2]&cachingWCE != 0 }

// putControl: SPC-4 §7.5.8. TST and QERR are zero: one task set for all nexuses, and
// an error of one task does not touch the others.
func putControl(b []byte, s *modeState, _ *modeUnit) {
	b[2] = 0x02 // GLTSD: log parameters are not saved
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

func maskControl(b []byte, _ *modeUnit) {
	b[2], b[4], b[5] = controlDSense, controlSWP, controlTAS
}

func getControl(b []byte, s *modeState) {
	s.dSense = b[2]&controlDSense != 0
	s.swp = b[4]&controlSWP != 0
	s.tas = b[5]&controlTAS != 0
}

// putControlExt is the control extension page (SPC-4 §7.5.9). MAXIMUM SENSE DATA
// LENGTH zero: no limit below what VPD page 86h tells.
func putControlExt(b []byte, _ *modeState, _ *modeUnit) {
	// TCMOS: the clock begins with the host's. SCSIP: SET TIMESTAMP prevails.
	// IALUAE: asymmetric access states change by what an operator does.
	b[4] = 0x04 | 0x02 | 0x01
}

// putPower is the power condition page (SPC-4 §7.5.13): no timer runs, and coming
// back from a power condition is no reason for CHECK CONDITION.
func putPower(b []byte, _ *modeState, _ *modeUnit) {
	b[39] = 0x40 | 0x10 | 0x04 // CCF IDLE, CCF STANDBY, CCF STOPPED: disabled
}

// putExceptions: SPC-4 §7.5.11.
func putExceptions(b []byte, _ *modeState, _ *modeUnit) {
	b[2] = 0x08 // DEXCPT: no informational exceptions
}

// has reports whether u has the page.
func (p *modePage) has(u *modeUnit) bool {
	return u.usual != 0 || p.code != modeExceptions || p.sub != modeThresholds
}

// append appends the page with the values that pc asks for.
func (p *modePage) append(b []byte, pc byte, s *modeState, u *modeUnit) []byte {
	at := len(b)
	b = append(b, make([]byte, p.length)...)
	d := b[at:]
	if pc == pcChangeable {
		if p.mask != nil {
			p.mask(d, u)
		}
	} else {
		p.put(d, s, u)
	}
	d[0] = p.code
	if p.sub != 0 {
		d[0] |= modeSPF
		d[1] = p.sub
		binary.BigEndian.PutUint16(d[2:], uint16(p.length-4))
	} else {
		d[1] = byte(p.length - 2)
	}
	if u.saves && p.mask != nil {
		d[0] |= modePS
	}
	return b
}
