package scsi

import "testing"

// Each function that is reported is there, each other one is not. The bits are written
// from SPC-4 §6.36.
func TestReportTMFs(t *testing.T) {
	bits := map[TMFunc]int{
		AbortTask: 7, AbortTaskSet: 6, ClearACA: 5, ClearTaskSet: 4, LUNReset: 3, QueryTask: 2,
		TargetWarmReset: 1, TargetColdReset: 1, QueryAsyncEvent: 10, QueryTaskSet: 9, NexusReset: 8,
	}
	n := newRig(t, goldenConf(), newRigStore(1<<20)).nexus()
	b := n.expect("good", "a3 0d 00 00 0000 00000004 00 00", nil, 64).in()
	for f := AbortTask; f <= QueryAsyncEvent+1; f++ {
		m := &TMF{Func: f, Lane: n.ln}
		done := make(chan struct{})
		m.Done = func(*TMF) { close(done) }
		n.nx.Manage(m)
		<-done
		bit, known := bits[f]
		if told := known && b[bit/8]>>(bit%8)&1 != 0; told != (m.Response != TMNotSupported) {
			t.Errorf("%v: told %v, answers %v", f, told, m.Response)
		}
	}
}
