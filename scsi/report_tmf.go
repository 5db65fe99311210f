package scsi

// tmfTable has the functions that there are, and where REPORT SUPPORTED TASK
// MANAGEMENT FUNCTIONS tells it (SPC-4 §6.36): a byte of the parameter data and a bit.
// Target resets have the bit that SPC-3 §6.24 gave them.
var tmfTable = [...]struct {
	f        TMFunc
	at, mask byte
}{
	{AbortTask, 0, 0x80},
	{AbortTaskSet, 0, 0x40},
	{ClearTaskSet, 0, 0x10},
	{LUNReset, 0, 0x08},
	{QueryTask, 0, 0x04},
	{TargetWarmReset, 0, 0x02},
	{TargetColdReset, 0, 0x02},
	{QueryAsyncEvent, 1, 0x04},
	{QueryTaskSet, 1, 0x02},
	{NexusReset, 1, 0x01},
	// Not CLEAR ACA: NORMACA is zero, there is no ACA condition to clear.
}

// supported reports whether the core has function f.
func (f TMFunc) supported() bool {
	for i := range tmfTable {
		if tmfTable[i].f == f {
			return true
		}
	}
	return false
}

// Lengths of the parameter data without and with timeouts (REPD).
const (
	tmfDataLen     = 4
	tmfDataLenLong = 16
)

func runReportTMFs(t *Task) {
	b := t.scratch(tmfDataLenLong)
	clear(b)
	for _, r := range tmfTable {
		b[r.at] |= r.mask
	}
	n := tmfDataLen
	if t.CDB[2]&0x80 != 0 { // REPD: no timeouts to tell
		b[3] = tmfDataLenLong - tmfDataLen
		n = tmfDataLenLong
	}
	t.reply(b[:n], lenBytes6x4(t))
}
