package scsi

import "encoding/binary"

// Log pages of a disk: SPC-4 §7.3, SBC-3 §6.4. Counters begin with the unit and are
// not saved (DS, TSD).

// Page codes.
const (
	logSupported   = 0x00
	logWriteErrors = 0x02
	logReadErrors  = 0x03
	logVerifyErrs  = 0x05
	logProvision   = 0x0c
	logTemperature = 0x0d
	logStatistics  = 0x19
	logExceptions  = 0x2f
)

// logAllSubpages is the subpage code of the list of pages and subpages.
const logAllSubpages = 0xff

// Values of the PAGE CONTROL field of LOG SENSE and LOG SELECT.
const (
	logThreshold         = 0
	logCumulative        = 1
	logDefaultThreshold  = 2
	logDefaultCumulative = 3
)

// Parameter control bytes (SPC-4 §7.3.2.2.2): TSD, and the format.
const (
	logCounter = 0x20 | 0x00 // bounded data counter
	logList    = 0x20 | 0x03 // binary format list
)

// maxLog is more than any page needs, bytes.
const maxLog = 512

// logPage is one page. append appends its parameters, ascending, as they are for page
// control pc.
type logPage struct {
	code   byte
	append func(b []byte, u *Unit, pc byte) []byte
}

// logPages in ascending order, but for the lists of pages (00h, 00h/FFh).
var logPages = [...]logPage{
	{logWriteErrors, appendWriteErrors},
	{logReadErrors, appendReadErrors},
	{logVerifyErrs, appendVerifyErrors},
	{logProvision, appendProvisioning},
	{logTemperature, appendTemperature},
	{logStatistics, appendStatistics},
	{logExceptions, appendExceptions},
}

// has reports whether u has the page.
func (p *logPage) has(u *Unit) bool {
	if p.code == logProvision {
		_, _, ok := u.provisioning()
		return ok
	}
	return true
}

// appendLogPages appends the contents of page 00h (SPC-4 §7.3.15), or of 00h/FFh
// (§7.3.16).
func appendLogPages(b []byte, u *Unit, subpages bool) []byte {
	add := func(code, sub byte) {
		if b = append(b, code); subpages {
			b = append(b, sub)
		}
	}
	add(logSupported, 0)
	if subpages {
		add(logSupported, logAllSubpages)
	}
	for i := range logPages {
		if logPages[i].has(u) {
			add(logPages[i].code, 0)
		}
	}
	return b
}

// appendLogParam appends the header of a log parameter with n bytes to follow.
func appendLogParam(b []byte, code uint16, control byte, n int) []byte {
	return append(b, byte(code>>8), byte(code), control, byte(n))
}

// appendLogCounter appends a counter: its value, its default, or its threshold, which
// is the largest value there is.
func appendLogCounter(b []byte, code uint16, pc byte, v uint64) []byte {
	switch pc {
	case logThreshold, logDefaultThreshold:
		v = ^uint64(0)
	case logDefaultCumulative:
		v = 0
	}
	return binary.BigEndian.AppendUint64(appendLogParam(b, code, logCounter, 8), v)
}

// appendErrorCounters appends the parameters of the error counter pages (SPC-4
// §7.3.6): nothing is corrected here, what the store cannot do it cannot.
func appendErrorCounters(b []byte, pc byte, bytes, failed uint64) []byte {
	for code := range uint16(7) {
		var v uint64
		switch code {
		case 5: // total bytes processed
			v = bytes
		case 6: // total uncorrected errors
			v = failed
		}
		b = appendLogCounter(b, code, pc, v)
	}
	return b
}

func appendWriteErrors(b []byte, u *Unit, pc byte) []byte {
	c := u.logCounts(logWriteErrors)
	return appendErrorCounters(b, pc, c.writeBytes, c.writeErrs)
}

func appendReadErrors(b []byte, u *Unit, pc byte) []byte {
	c := u.logCounts(logReadErrors)
	return appendErrorCounters(b, pc, c.readBytes, c.readErrs)
}

func appendVerifyErrors(b []byte, u *Unit, pc byte) []byte {
	c := u.logCounts(logVerifyErrs)
	return appendErrorCounters(b, pc, c.verifyBytes, c.verifyErrs)
}

// appendProvisioning appends the LBA mapping resources, in threshold sets (SBC-3
// §6.4.5): those that are available are for all that is on the file system, those
// that are used are the unit's.
func appendProvisioning(b []byte, u *Unit, _ byte) []byte {
	const dedicated, shared = 1, 2 // SCOPE
	available, used, _ := u.provisioning()
	b = appendLogParam(b, resourceAvailable, logList, 8)
	b = append(binary.BigEndian.AppendUint32(b, available), shared, 0, 0, 0)
	b = appendLogParam(b, resourceUsed, logList, 8)
	return append(binary.BigEndian.AppendUint32(b, used), dedicated, 0, 0, 0)
}

// resourceUsed is the code of the used LBA mapping resources.
const resourceUsed = 0x02

// appendTemperature: there is no sensor (SPC-4 §7.3.21).
func appendTemperature(b []byte, _ *Unit, _ byte) []byte {
	b = append(appendLogParam(b, 0, logList, 2), 0, 0xff) // not available
	return append(appendLogParam(b, 1, logList, 2), 0, 0xff)
}

// appendStatistics appends the general access statistics and the idle time (SPC-4
// §7.3.8), in intervals of 1 us. How long commands waited in a queue is not counted: the
// weighted fields are zero.
func appendStatistics(b []byte, u *Unit, pc byte) []byte {
	const us = 1000
	c := u.logCounts(logStatistics)
	b = appendLogParam(b, 1, logList, 64)
	for _, v := range [8]uint64{
		c.reads, c.writes, c.writeBytes / uint64(u.blockSize), c.readBytes / uint64(u.blockSize),
		c.readTime / us, c.writeTime / us,
	} {
		switch pc {
		case logThreshold, logDefaultThreshold:
			v = ^uint64(0)
		case logDefaultCumulative:
			v = 0
		}
		b = binary.BigEndian.AppendUint64(b, v)
	}
	idle := c.idle / us
	switch pc {
	case logThreshold, logDefaultThreshold:
		idle = ^uint64(0)
	case logDefaultCumulative:
		idle = 0
	}
	b = binary.BigEndian.AppendUint64(appendLogParam(b, 2, logList, 8), idle)
	// Time interval: 1 * 10^-6 s.
	b = appendLogParam(b, 3, logList, 8)
	b = binary.BigEndian.AppendUint32(b, 6)
	return binary.BigEndian.AppendUint32(b, 1)
}

// appendExceptions: no informational exception, no temperature (SPC-4 §7.3.11).
func appendExceptions(b []byte, _ *Unit, _ byte) []byte {
	return append(appendLogParam(b, 0, logList, 4), 0, 0, 0xff, 0xff)
}
