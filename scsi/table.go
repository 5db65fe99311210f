package scsi

// The operation codes that code names (SPC-4 annex E).
const (
	opWriteSame10 = 0x41
	opWriteSame16 = 0x93
	opUnmap       = 0x42
	opSyncCache10 = 0x35
	opSyncCache16 = 0x91
	opPreFetch10  = 0x34
	opPreFetch16  = 0x90
	opPROut       = 0x5f
	opSanitize    = 0x48
	opFormatUnit  = 0x04
	opWriteAtomic = 0x9c
)

// feature is what a row needs of its unit; a row with 0 is for every unit.
type feature uint16

const (
	featThin      feature = 1 << iota // logical block provisioning management
	featFull                          // the opposite
	featSaves                         // mode pages can be saved
	featForgets                       // the opposite
	featSetAccess                     // initiators may set access states
	featKey                           // the store has a data key to replace
	featAtomic                        // the store has atomic writes
)

// diskRow is a row of the disk's table.
type diskRow struct {
	command
	need feature
}

// cmdInquire is what the commands have in common that never touch the medium and
// can be answered at any moment.
const cmdInquire = cmdAnyLUN | cmdKeepUA | cmdImmediate | cmdAnyAccess

// diskTable is the command set of a disk: SBC-3 with SPC-4, in ascending order of
// operation code and service action. It never changes.
//
// The usage masks say what is looked at. Not in them, so refused: RDPROTECT,
// WRPROTECT and VRPROTECT (there is no protection information), ANCHOR, and NACA
// in the CONTROL byte. GROUP NUMBER (GROUP_SUP is zero) and the obsolete SYNC_NV
// are in them and have no effect.
var diskTable = prepared([]diskRow{
	{command: command{op: 0x00, sa: noSA, name: "TEST UNIT READY",
		usage:    []byte{0x00, 0, 0, 0, 0, 0},
		conflict: conflictReserve, flags: cmdMedium | cmdImmediate, run: (*Task).good}},
	{command: command{op: 0x03, sa: noSA, name: "REQUEST SENSE",
		usage: []byte{0x03, 0x01, 0, 0, 0xff, 0},
		dir:   dirIn, length: lenByte4, conflict: conflictNone, flags: cmdInquire, run: runRequestSense}},
	{command: command{op: 0x04, sa: noSA, name: "FORMAT UNIT",
		usage: []byte{0x04, 0x3f, 0, 0, 0, 0},
		dir:   dirOut, length: lenFormat, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdExclusive, run: runFormatUnit}},
	{command: command{op: 0x08, sa: noSA, name: "READ(6)",
		usage: []byte{0x08, 0x1f, 0xff, 0xff, 0xff, 0},
		dir:   dirIn, length: lenBlocks, conflict: conflictRead, flags: cmdMedium | cmdFast, run: runRead}},
	{command: command{op: 0x0a, sa: noSA, name: "WRITE(6)",
		usage: []byte{0x0a, 0x1f, 0xff, 0xff, 0xff, 0},
		dir:   dirOut, length: lenBlocks, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdFast, run: runWrite}},
	{command: command{op: 0x12, sa: noSA, name: "INQUIRY",
		usage: []byte{0x12, 0x01, 0xff, 0xff, 0xff, 0},
		dir:   dirIn, length: lenBytes3, conflict: conflictNone, flags: cmdInquire, run: runInquiry}},
	{command: command{op: 0x15, sa: noSA, name: "MODE SELECT(6)",
		usage: []byte{0x15, 0x11, 0, 0, 0xff, 0},
		dir:   dirOut, length: lenByte4, conflict: conflictWrite, flags: cmdExclusive | cmdStandby, run: runModeSelect6}, need: featSaves},
	{command: command{op: 0x15, sa: noSA, name: "MODE SELECT(6)",
		usage: []byte{0x15, 0x10, 0, 0, 0xff, 0},
		dir:   dirOut, length: lenByte4, conflict: conflictWrite, flags: cmdExclusive | cmdStandby, run: runModeSelect6}, need: featForgets},
	{command: command{op: 0x16, sa: noSA, name: "RESERVE(6)",
		usage:    []byte{0x16, 0, 0, 0, 0, 0},
		conflict: conflictOwn, flags: cmdExclusive, run: runReserve}},
	{command: command{op: 0x17, sa: noSA, name: "RELEASE(6)",
		usage:    []byte{0x17, 0, 0, 0, 0, 0},
		conflict: conflictOwn, flags: cmdExclusive, run: runRelease}},
	{command: command{op: 0x1a, sa: noSA, name: "MODE SENSE(6)",
		usage: []byte{0x1a, 0x08, 0xff, 0xff, 0xff, 0},
		dir:   dirIn, length: lenByte4, conflict: conflictRead, flags: cmdImmediate | cmdStandby, run: runModeSense6}},
	{command: command{op: 0x1b, sa: noSA, name: "START STOP UNIT",
		usage:    []byte{0x1b, 0x01, 0, 0x0f, 0xf7, 0},
		conflict: conflictOwn, flags: cmdExclusive, run: runStartStop}},
	{command: command{op: 0x1c, sa: noSA, name: "RECEIVE DIAGNOSTIC RESULTS",
		usage: []byte{0x1c, 0x01, 0xff, 0xff, 0xff, 0},
		dir:   dirIn, length: lenBytes3, conflict: conflictRead, flags: cmdImmediate | cmdStandby, run: runReceiveDiagnostic}},
	{command: command{op: 0x1d, sa: noSA, name: "SEND DIAGNOSTIC",
		usage: []byte{0x1d, 0x17, 0, 0xff, 0xff, 0},
		dir:   dirOut, length: lenBytes3, conflict: conflictWrite, flags: cmdStandby, run: runSendDiagnostic}},
	{command: command{op: 0x1e, sa: noSA, name: "PREVENT ALLOW MEDIUM REMOVAL",
		usage:    []byte{0x1e, 0, 0, 0, 0x01, 0},
		conflict: conflictOwn, flags: cmdExclusive, run: runPreventAllow}},
	{command: command{op: 0x25, sa: noSA, name: "READ CAPACITY(10)",
		usage: []byte{0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		dir:   dirIn, length: lenCapacity10, conflict: conflictNone, flags: cmdMedium | cmdImmediate | cmdStandby, run: runReadCapacity10}},
	{command: command{op: 0x28, sa: noSA, name: "READ(10)",
		usage: []byte{0x28, 0x18, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0},
		dir:   dirIn, length: lenBlocks, conflict: conflictRead, flags: cmdMedium | cmdFast, run: runRead}},
	{command: command{op: 0x2a, sa: noSA, name: "WRITE(10)",
		usage: []byte{0x2a, 0x18, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0},
		dir:   dirOut, length: lenBlocks, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdFast, run: runWrite}},
	{command: command{op: 0x2e, sa: noSA, name: "WRITE AND VERIFY(10)",
		usage: []byte{0x2e, 0x16, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0},
		dir:   dirOut, length: lenBlocks, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdBlocks, run: runWriteVerify}},
	{command: command{op: 0x2f, sa: noSA, name: "VERIFY(10)",
		usage: []byte{0x2f, 0x16, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0},
		dir:   dirOut, length: lenVerify, conflict: conflictRead, flags: cmdMedium | cmdBlocks, run: runVerify}},
	{command: command{op: opPreFetch10, sa: noSA, name: "PRE-FETCH(10)",
		usage:    []byte{0x34, 0x02, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0},
		conflict: conflictRead, flags: cmdMedium, run: runPreFetch}},
	{command: command{op: opSyncCache10, sa: noSA, name: "SYNCHRONIZE CACHE(10)",
		usage:    []byte{0x35, 0x06, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0},
		conflict: conflictWrite, flags: cmdMedium, run: runSyncCache}},
	{command: command{op: 0x37, sa: noSA, name: "READ DEFECT DATA(10)",
		usage: []byte{0x37, 0, 0x1f, 0, 0, 0, 0, 0xff, 0xff, 0},
		dir:   dirIn, length: lenBytes7, conflict: conflictRead, flags: cmdMedium, run: runReadDefects10}},
	{command: command{op: opWriteSame10, sa: noSA, name: "WRITE SAME(10)",
		usage: []byte{0x41, 0x08, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0},
		dir:   dirOut, length: lenOneBlock, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdBlocks, run: runWriteSame}, need: featThin},
	{command: command{op: opWriteSame10, sa: noSA, name: "WRITE SAME(10)",
		usage: []byte{0x41, 0, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0},
		dir:   dirOut, length: lenOneBlock, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdBlocks, run: runWriteSame}, need: featFull},
	{command: command{op: opUnmap, sa: noSA, name: "UNMAP",
		usage: []byte{0x42, 0, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0},
		dir:   dirOut, length: lenBytes7, conflict: conflictWrite, flags: cmdMedium | cmdWrite, run: runUnmap}, need: featThin},
	{command: command{op: opSanitize, sa: sanitizeOverwrite, name: "SANITIZE, OVERWRITE",
		usage: []byte{0x48, 0xa1, 0, 0, 0, 0, 0, 0xff, 0xff, 0},
		dir:   dirOut, length: lenBytes7, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdExclusive, run: runSanitize}},
	{command: command{op: opSanitize, sa: sanitizeBlockErase, name: "SANITIZE, BLOCK ERASE",
		usage: []byte{0x48, 0xa2, 0, 0, 0, 0, 0, 0xff, 0xff, 0},
		dir:   dirOut, length: lenBytes7, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdExclusive, run: runSanitize}, need: featThin},
	{command: command{op: opSanitize, sa: sanitizeCryptoErase, name: "SANITIZE, CRYPTOGRAPHIC ERASE",
		usage: []byte{0x48, 0xa3, 0, 0, 0, 0, 0, 0xff, 0xff, 0},
		dir:   dirOut, length: lenBytes7, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdExclusive, run: runSanitize}, need: featKey},
	{command: command{op: opSanitize, sa: sanitizeExit, name: "SANITIZE, EXIT FAILURE MODE",
		usage: []byte{0x48, 0x9f, 0, 0, 0, 0, 0, 0xff, 0xff, 0},
		dir:   dirOut, length: lenBytes7, conflict: conflictWrite, flags: cmdExclusive, run: runSanitizeExit}},
	{command: command{op: 0x4c, sa: noSA, name: "LOG SELECT",
		usage:    []byte{0x4c, 0x02, 0xff, 0xff, 0, 0, 0, 0, 0, 0},
		conflict: conflictWrite, flags: cmdExclusive | cmdStandby, run: runLogSelect}},
	{command: command{op: 0x4d, sa: noSA, name: "LOG SENSE",
		usage: []byte{0x4d, 0, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0},
		dir:   dirIn, length: lenBytes7, conflict: conflictReserve, flags: cmdImmediate | cmdStandby, run: runLogSense}},
	{command: command{op: 0x55, sa: noSA, name: "MODE SELECT(10)",
		usage: []byte{0x55, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, 0},
		dir:   dirOut, length: lenBytes7, conflict: conflictWrite, flags: cmdExclusive | cmdStandby, run: runModeSelect10}, need: featSaves},
	{command: command{op: 0x55, sa: noSA, name: "MODE SELECT(10)",
		usage: []byte{0x55, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff, 0},
		dir:   dirOut, length: lenBytes7, conflict: conflictWrite, flags: cmdExclusive | cmdStandby, run: runModeSelect10}, need: featForgets},
	{command: command{op: 0x56, sa: noSA, name: "RESERVE(10)",
		usage:    []byte{0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		conflict: conflictOwn, flags: cmdExclusive, run: runReserve}},
	{command: command{op: 0x57, sa: noSA, name: "RELEASE(10)",
		usage:    []byte{0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		conflict: conflictOwn, flags: cmdExclusive, run: runRelease}},
	{command: command{op: 0x5a, sa: noSA, name: "MODE SENSE(10)",
		usage: []byte{0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0},
		dir:   dirIn, length: lenBytes7, conflict: conflictRead, flags: cmdImmediate | cmdStandby, run: runModeSense10}},
	prIn(0x00, "READ KEYS", runPRReadKeys),
	prIn(0x01, "READ RESERVATION", runPRReadReservation),
	prIn(0x02, "REPORT CAPABILITIES", runPRReportCapabilities),
	prIn(0x03, "READ FULL STATUS", runPRReadFullStatus),
	prOut(0x00, "REGISTER", cmdExclusive),
	prOut(0x01, "RESERVE", cmdExclusive),
	prOut(0x02, "RELEASE", cmdExclusive),
	prOut(0x03, "CLEAR", cmdExclusive),
	prOut(0x04, "PREEMPT", cmdExclusive),
	prOut(0x05, "PREEMPT AND ABORT", cmdPreempt),
	prOut(0x06, "REGISTER AND IGNORE EXISTING KEY", cmdExclusive),
	prOut(0x07, "REGISTER AND MOVE", cmdExclusive),
	prOut(0x08, "REPLACE LOST RESERVATION", cmdExclusive),
	{command: command{op: 0x83, sa: 0x00, name: "EXTENDED COPY(LID1)",
		usage: []byte{0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirOut, length: lenCopyOut, conflict: conflictWrite, run: runExtendedCopy}},
	{command: command{op: 0x83, sa: 0x10, name: "POPULATE TOKEN",
		usage: []byte{0x83, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenCopyOut, conflict: conflictWrite, flags: cmdMedium, run: runPopulateToken}},
	{command: command{op: 0x83, sa: 0x11, name: "WRITE USING TOKEN",
		usage: []byte{0x83, 0x11, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenCopyOut, conflict: conflictWrite, run: runWriteUsingToken}},
	{command: command{op: 0x83, sa: 0x1c, name: "COPY OPERATION ABORT",
		usage:    []byte{0x83, 0x1c, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		conflict: conflictWrite, flags: cmdImmediate, run: runCopyAbort}},
	{command: command{op: 0x84, sa: 0x00, name: "RECEIVE COPY STATUS(LID1)",
		usage: []byte{0x84, 0x00, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytesAx4, conflict: conflictWrite, flags: cmdImmediate, run: runCopyStatus}},
	{command: command{op: 0x84, sa: 0x01, name: "RECEIVE COPY DATA(LID1)",
		usage: []byte{0x84, 0x01, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytesAx4, conflict: conflictWrite, flags: cmdImmediate, run: runCopyData}},
	{command: command{op: 0x84, sa: 0x03, name: "RECEIVE COPY OPERATING PARAMETERS",
		usage: []byte{0x84, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytesAx4, conflict: conflictWrite, flags: cmdImmediate, run: runCopyParameters}},
	{command: command{op: 0x84, sa: 0x04, name: "RECEIVE COPY FAILURE DETAILS(LID1)",
		usage: []byte{0x84, 0x04, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytesAx4, conflict: conflictWrite, flags: cmdImmediate, run: runCopyFailure}},
	{command: command{op: 0x84, sa: 0x05, name: "RECEIVE COPY STATUS(LID4)",
		usage: []byte{0x84, 0x05, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytesAx4, conflict: conflictNone, flags: cmdImmediate, run: runCopyStatus4}},
	{command: command{op: 0x84, sa: 0x07, name: "RECEIVE ROD TOKEN INFORMATION",
		usage: []byte{0x84, 0x07, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytesAx4, conflict: conflictNone, flags: cmdImmediate, run: runTokenInfo}},
	{command: command{op: 0x88, sa: noSA, name: "READ(16)",
		usage: []byte{0x88, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirIn, length: lenBlocks, conflict: conflictRead, flags: cmdMedium | cmdFast, run: runRead}},
	{command: command{op: 0x89, sa: noSA, name: "COMPARE AND WRITE",
		usage: []byte{0x89, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenTwiceBlocks, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdRange, run: runCompareAndWrite}},
	{command: command{op: 0x8a, sa: noSA, name: "WRITE(16)",
		usage: []byte{0x8a, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenBlocks, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdFast, run: runWrite}},
	{command: command{op: 0x8b, sa: noSA, name: "ORWRITE(16)",
		usage: []byte{0x8b, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenBlocks, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdRange, run: runORWrite}},
	{command: command{op: 0x8e, sa: noSA, name: "WRITE AND VERIFY(16)",
		usage: []byte{0x8e, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenBlocks, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdBlocks, run: runWriteVerify}},
	{command: command{op: 0x8f, sa: noSA, name: "VERIFY(16)",
		usage: []byte{0x8f, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenVerify, conflict: conflictRead, flags: cmdMedium | cmdBlocks, run: runVerify}},
	{command: command{op: opPreFetch16, sa: noSA, name: "PRE-FETCH(16)",
		usage:    []byte{0x90, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		conflict: conflictRead, flags: cmdMedium, run: runPreFetch}},
	{command: command{op: opSyncCache16, sa: noSA, name: "SYNCHRONIZE CACHE(16)",
		usage:    []byte{0x91, 0x06, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		conflict: conflictWrite, flags: cmdMedium, run: runSyncCache}},
	{command: command{op: opWriteSame16, sa: noSA, name: "WRITE SAME(16)",
		usage: []byte{0x93, 0x09, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenWriteSame16, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdBlocks, run: runWriteSame}, need: featThin},
	{command: command{op: opWriteSame16, sa: noSA, name: "WRITE SAME(16)",
		usage: []byte{0x93, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenWriteSame16, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdBlocks, run: runWriteSame}, need: featFull},
	{command: command{op: opWriteAtomic, sa: noSA, name: "WRITE ATOMIC(16)",
		usage: []byte{0x9c, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenBlocks, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdRange, run: runWriteAtomic}, need: featAtomic},
	{command: command{op: 0x9e, sa: 0x10, name: "READ CAPACITY(16)",
		usage: []byte{0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytesAx4, conflict: conflictNone, flags: cmdMedium | cmdImmediate | cmdStandby, run: runReadCapacity16}},
	{command: command{op: 0x9e, sa: 0x12, name: "GET LBA STATUS",
		usage: []byte{0x9e, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0},
		dir:   dirIn, length: lenBytesAx4, conflict: conflictRead, flags: cmdMedium, run: runGetLBAStatus}},
	{command: command{op: 0xa0, sa: noSA, name: "REPORT LUNS",
		usage: []byte{0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytes6x4, conflict: conflictNone, flags: cmdInquire, run: runReportLUNs}},
	{command: command{op: 0xa3, sa: 0x05, name: "REPORT IDENTIFYING INFORMATION",
		usage: []byte{0xa3, 0x05, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xfe, 0},
		dir:   dirIn, length: lenBytes6x4, conflict: conflictNone, flags: cmdImmediate | cmdStandby, run: runReportIdentity}, need: featSaves},
	{command: command{op: 0xa3, sa: 0x0a, name: "REPORT TARGET PORT GROUPS",
		usage: []byte{0xa3, 0xea, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytes6x4, conflict: conflictNone, flags: cmdImmediate | cmdAnyAccess, run: runReportPortGroups}},
	{command: command{op: 0xa3, sa: 0x0c, name: "REPORT SUPPORTED OPERATION CODES",
		usage: []byte{0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytes6x4, conflict: conflictRead, flags: cmdImmediate | cmdStandby, run: runReportOpcodes}},
	{command: command{op: 0xa3, sa: 0x0d, name: "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
		usage: []byte{0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytes6x4, conflict: conflictRead, flags: cmdImmediate | cmdStandby, run: runReportTMFs}},
	{command: command{op: 0xa3, sa: 0x0f, name: "REPORT TIMESTAMP",
		usage: []byte{0xa3, 0x0f, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytes6x4, conflict: conflictNone, flags: cmdImmediate | cmdStandby, run: runReportTimestamp}},
	{command: command{op: 0xa4, sa: 0x06, name: "SET IDENTIFYING INFORMATION",
		usage: []byte{0xa4, 0x06, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xfe, 0},
		dir:   dirOut, length: lenBytes6x4, conflict: conflictWrite, flags: cmdExclusive, run: runSetIdentity}, need: featSaves},
	{command: command{op: 0xa4, sa: 0x0a, name: "SET TARGET PORT GROUPS",
		usage: []byte{0xa4, 0x0a, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirOut, length: lenBytes6x4, conflict: conflictWrite, flags: cmdExclusive | cmdAnyAccess, run: runSetPortGroups}, need: featSetAccess},
	{command: command{op: 0xa4, sa: 0x0f, name: "SET TIMESTAMP",
		usage: []byte{0xa4, 0x0f, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirOut, length: lenBytes6x4, conflict: conflictWrite, flags: cmdExclusive, run: runSetTimestamp}},
	{command: command{op: 0xa8, sa: noSA, name: "READ(12)",
		usage: []byte{0xa8, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirIn, length: lenBlocks, conflict: conflictRead, flags: cmdMedium | cmdFast, run: runRead}},
	{command: command{op: 0xaa, sa: noSA, name: "WRITE(12)",
		usage: []byte{0xaa, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenBlocks, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdFast, run: runWrite}},
	{command: command{op: 0xae, sa: noSA, name: "WRITE AND VERIFY(12)",
		usage: []byte{0xae, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenBlocks, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdBlocks, run: runWriteVerify}},
	{command: command{op: 0xaf, sa: noSA, name: "VERIFY(12)",
		usage: []byte{0xaf, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0},
		dir:   dirOut, length: lenVerify, conflict: conflictRead, flags: cmdMedium | cmdBlocks, run: runVerify}},
	{command: command{op: 0xb7, sa: noSA, name: "READ DEFECT DATA(12)",
		usage: []byte{0xb7, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirIn, length: lenBytes6x4, conflict: conflictRead, flags: cmdMedium, run: runReadDefects12}},
})

// prIn is the row of a service action of PERSISTENT RESERVE IN (SPC-4 §6.15).
func prIn(sa uint8, name string, run func(*Task)) diskRow {
	return diskRow{command: command{op: 0x5e, sa: int16(sa), name: "PERSISTENT RESERVE IN, " + name,
		usage: []byte{0x5e, sa, 0, 0, 0, 0, 0, 0xff, 0xff, 0},
		dir:   dirIn, length: lenBytes7, conflict: conflictOwn, flags: cmdImmediate | cmdStandby, run: run}}
}

// prOut is the row of a service action of PERSISTENT RESERVE OUT (SPC-4 §6.16).
func prOut(sa uint8, name string, excludes cmdFlags) diskRow {
	return diskRow{command: command{op: opPROut, sa: int16(sa), name: "PERSISTENT RESERVE OUT, " + name,
		usage: []byte{opPROut, sa, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0},
		dir:   dirOut, length: lenPROut, conflict: conflictOwn, flags: excludes | cmdStandby, run: runPROut}}
}

// prepared works out of the rows what the checks need.
func prepared(rows []diskRow) []diskRow {
	for i := range rows {
		rows[i].prepare()
	}
	return rows
}
