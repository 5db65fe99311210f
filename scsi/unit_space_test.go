package scsi

import (
	"testing"

	"github.com/vtgt/vtgt/backing"
)

const tur = "00 00 00 00 00 00"

func TestThreshold(t *testing.T) {
	c := goldenConf()
	r := newRig(t, c, newRigStore(1<<20))
	n, other := r.nexus(), r.nexus()
	const gib = 1 << 30
	space := func(avail int64) bool {
		return r.u.SetSpace(backing.Space{Used: 5<<20 + 1, Available: avail, Total: 100 * gib})
	}
	// Without numbers there are neither thresholds nor their page.
	n.expect("05 24/00 cdb 3.7", "1a 08 1c 02 ff 00", nil, 255)
	b := n.expect("good", "12 01 b2 00 ff 00", nil, 255).in()
	if b[4] != 0 {
		t.Errorf("THRESHOLD EXPONENT %d", b[4])
	}
	if _, _, ok := r.u.provisioning(); ok {
		t.Error("numbers without a source")
	}

	if space(50 * gib) {
		t.Error("half the room is too little")
	}
	if a, used, ok := r.u.provisioning(); a != 50*1024 || used != 6 || !ok {
		t.Error(a, used, ok)
	}
	if b := n.expect("good", "12 01 b2 00 ff 00", nil, 255).in(); b[4] != 11 {
		t.Errorf("THRESHOLD EXPONENT %d", b[4])
	}
	// 10 GiB are 2800h sets of 1 MiB.
	page := n.expect("good", "1a 08 1c 02 ff 00", nil, 255).in()[4:]
	wantBytes(t, "page 1Ch/02h", page, unhex(t, "5c02 0014 00 "+zeros(11)+" 80 01 0000 00002800"))
	wantBytes(t, "what can be changed", n.expect("good", "1a 08 5c 02 ff 00", nil, 255).in()[4:], unhex(t, "5c02 0014 00 "+zeros(11)+" 80 00 0000 ffffffff"))

	n.expect("good", tur, nil, 0)
	if !space(10*gib) || space(10*gib) || space(0) {
		t.Error("the crossing is told once")
	}
	n.expect("06 38/07 info 16", tur, nil, 0)
	n.expect("good", tur, nil, 0)
	wantBytes(t, "REQUEST SENSE", other.expect("good", "03 00 00 00 ff 00", nil, 255).in(), unhex(t, "f0 00 06 00000010 0a 00000000 3807 00 000000"))
	if space(11*gib) || space(9*gib) {
		t.Error("not clear of the threshold in between")
	}
	if space(12*gib) || !space(9*gib) {
		t.Error("the second crossing is one, too")
	}
	n.expect("06 38/07 info 16", tur, nil, 0)
	other.expect("06 38/07 info 16", tur, nil, 0)

	n.expect("good", "15 10 00 00 1c 00", append(make([]byte, 4), page...), 0) // nothing new
	other.expect("good", tur, nil, 0)

	// An initiator's own threshold, 1 GiB.
	set := func(outcome, descriptor string) {
		t.Helper()
		b := unhex(t, "00000000 5c02 0014 00 "+zeros(11)+descriptor)
		n.expect(outcome, "15 10 00 00 1c 00", b, 0)
	}
	set("05 26/00 param 20.2", "81 01 0000 00000400") // increasing
	set("05 26/00 param 20.5", "88 01 0000 00000400") // a percentage
	set("05 26/00 param 21.7", "80 02 0000 00000400")
	set("good", "80 01 0000 00000400")
	other.expect("06 2a/01", tur, nil, 0)
	if space(9*gib) || space(2*gib) || !space(1*gib) {
		t.Error("threshold of 1 GiB")
	}
	n.expect("06 38/07 info 16", tur, nil, 0)
	other.expect("06 38/07 info 16", tur, nil, 0)
	set("good", "00 01 0000 00000400") // disabled
	other.expect("06 2a/01", tur, nil, 0)
	if space(0) {
		t.Error("told although it is disabled")
	}
	set("good", "80 01 0000 00000000") // the usual one again
	other.expect("06 2a/01", tur, nil, 0)
	if !space(0) {
		t.Error("not told although it is enabled")
	}
	n.expect("06 38/07 info 16", tur, nil, 0)
	// LBPERE of the error recovery page turns all of it off.
	n.expect("good", "15 10 00 00 10 00", unhex(t, "00000000 010a 80 00 00000000 00 00 0000"), 0)
	if space(50*gib) || space(0) {
		t.Error("told although LBPERE is zero")
	}

	// A large file system's threshold is 10 GiB as well.
	wide := newRig(t, c, newRigStore(1<<20))
	if wide.u.SetSpace(backing.Space{Available: 11 * gib, Total: 1024 * gib}) || !wide.u.SetSpace(backing.Space{Available: 10 * gib, Total: 1024 * gib}) {
		t.Error("not 10 GiB of 1 TiB")
	}

	c.Thin = false
	full := newRig(t, c, newRigStore(1<<20))
	if full.u.SetSpace(backing.Space{Total: 100 * gib}) {
		t.Error("a unit that is not thin has a threshold")
	}
	full.nexus().expect("05 24/00 cdb 3.7", "1a 08 1c 02 ff 00", nil, 255)
}
