package srp

// Repeatable tells whether a command that an earlier process may have run may run
// again: those that do the same twice, and those that only tell. Whatever else is
// found in flight is answered with a unit attention, so that the initiator looks.
// cdb has 10 bytes at least.
func Repeatable(cdb []byte) bool {
	switch cdb[0] {
	case 0x08, 0x28, 0xa8, 0x88, // READ(6), (10), (12), (16)
		0x0a, 0x2a, 0xaa, 0x8a, // WRITE
		0x2e, 0xae, 0x8e, // WRITE AND VERIFY
		0x2f, 0xaf, 0x8f, // VERIFY
		0x34, 0x90, // PRE-FETCH
		0x41, 0x93, // WRITE SAME
		0x42,       // UNMAP
		0x35, 0x91, // SYNCHRONIZE CACHE
		0x00,       // TEST UNIT READY
		0x03,       // REQUEST SENSE
		0x12,       // INQUIRY
		0x1a, 0x5a, // MODE SENSE
		0x25,       // READ CAPACITY(10)
		0x37, 0xb7, // READ DEFECT DATA
		0x4d, // LOG SENSE
		0x5e, // PERSISTENT RESERVE IN
		0xa0: // REPORT LUNS
		return true
	case 0x7f: // by service action: READ(32), VERIFY(32), WRITE(32), WRITE AND VERIFY(32), WRITE SAME(32)
		switch uint16(cdb[8])<<8 | uint16(cdb[9]) {
		case 0x0009, 0x000a, 0x000b, 0x000c, 0x000d:
			return true
		}
	case 0x9e: // SERVICE ACTION IN(16): READ CAPACITY(16), GET LBA STATUS
		sa := cdb[1] & 0x1f
		return sa == 0x10 || sa == 0x12
	case 0xa3: // MAINTENANCE IN: it only tells
		return true
	}
	return false
}
