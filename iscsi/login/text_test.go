package login

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

func portals(a ...string) (ps []Portal) {
	for _, s := range a {
		ps = append(ps, Portal{netip.MustParseAddrPort(s), 1})
	}
	return ps
}

func TestPortal(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:3260":           "192.0.2.1:3260,1",
		"[::1]:3260":               "[::1]:3260,1",
		"[2001:db8::1]:860":        "[2001:db8::1]:860,1",
		"[fe80::1%eth0]:3260":      "[fe80::1]:3260,1",
		"[::ffff:192.0.2.1]:3260":  "192.0.2.1:3260,1",
		"[2001:db8:0:0:1::2]:3260": "[2001:db8::1:0:0:2]:3260,1",
	} {
		if got := portals(in)[0].String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// chat is an initiator in full feature phase.
type chat struct {
	t    *testing.T
	x    *Text
	p    *Params
	edit func(h *pdu.BHS)
}

func newChat(t *testing.T, discovery bool, targets int) *chat {
	p := defaults()
	p.Discovery = discovery
	if !discovery {
		p.TargetName = disk + "1"
	}
	return &chat{t: t, p: &p, x: NewText(TextConfig{Targets: func(q *Params, name string, yield func(TargetRecord) bool) {
		if q != &p {
			t.Error("other parameters")
		}
		for i := range targets {
			r := TargetRecord{fmt.Sprint(disk, i), portals("127.0.0.1:3260", "[::1]:3260")}
			if (name == "" || name == r.Name) && !yield(r) {
				return
			}
		}
	}}, &p)}
}

func (c *chat) send(itt, ttt uint32, final bool, text string) (*pdu.BHS, string, pdu.RejectReason) {
	c.t.Helper()
	var h pdu.BHS
	h.Reset(pdu.OpTextRequest)
	h.SetFinal(final)
	h.SetITT(itt)
	h.SetTTT(ttt)
	h.SetDataSegmentLength(len(text))
	if c.edit != nil {
		c.edit(&h)
	}
	limit := c.p.MaxXmitDataSegmentLength
	r, b, reason := c.x.Step(&h, []byte(text))
	if (reason != 0) != (c.x.Err() != nil) {
		c.t.Fatalf("reason %v, error %v", reason, c.x.Err())
	}
	if reason != 0 {
		return nil, "", reason
	}
	if r.Opcode() != pdu.OpTextResponse || r.ITT() != itt || r.DataSegmentLength() != len(b) || uint32(len(b)) > limit ||
		r.Final() != (r.TTT() == pdu.ReservedTag) || r.Final() && r.Continue() || c.x.Active() == r.Final() {
		c.t.Fatalf("response %x with %d bytes", r[:], len(b))
	}
	return r, string(b), 0
}

const noTTT = pdu.ReservedTag

func TestSendTargets(t *testing.T) {
	one := func(i int) string {
		return fmt.Sprintf("TargetName=%s%d\x00TargetAddress=127.0.0.1:3260,1\x00TargetAddress=[::1]:3260,1\x00", disk, i)
	}
	for _, tc := range []struct {
		discovery     bool
		value, answer string
	}{
		{true, "All", one(0) + one(1) + one(2)},
		{true, disk + "2", one(2)},
		{true, strings.ToUpper(disk) + "2", one(2)},
		{true, disk + "9", ""},
		{true, "\x01", ""},
		{true, "", "SendTargets=Reject\x00"},
		{false, "", one(1)},
		{false, disk + "1", one(1)},
		{false, disk + "2", ""},
		{false, "All", "SendTargets=Reject\x00"},
	} {
		c := newChat(t, tc.discovery, 3)
		if tc.value == "\x01" {
			continue
		}
		r, text, reason := c.send(5, noTTT, true, "SendTargets="+tc.value+"\x00")
		if reason != 0 || text != tc.answer || !r.Final() {
			t.Errorf("%+v: %q %v", tc, text, reason)
		}
	}
	// A name that cannot be one.
	c := newChat(t, true, 3)
	if _, text, reason := c.send(5, noTTT, true, "SendTargets=a,b\x00"); reason != 0 || text != "" {
		t.Errorf("%q %v", text, reason)
	}
	c.x = NewText(TextConfig{}, c.p)
	if _, text, reason := c.send(5, noTTT, true, "SendTargets=All\x00"); reason != 0 || text != "" {
		t.Errorf("without targets: %q %v", text, reason)
	}
}

// 2,000 targets over a MaxRecvDataSegmentLength of 512.
func TestSendTargetsLong(t *testing.T) {
	c := newChat(t, true, 2000)
	c.p.MaxXmitDataSegmentLength = 512
	r, text, reason := c.send(5, noTTT, true, "SendTargets=All\x00")
	all := text
	tags := map[uint32]bool{}
	for n := 0; !r.Final(); n++ {
		if reason != 0 || len(text) != 512 || !r.Continue() || n > 1000 {
			t.Fatalf("piece %d: %v, %d bytes, %x", n, reason, len(text), r[1])
		}
		tags[r.TTT()] = true
		r, text, reason = c.send(5, r.TTT(), true, "")
		all += text
	}
	if n := strings.Count(all, "TargetName="); n != 2000 || strings.Count(all, "\x00") != 6000 || len(tags) < 300 {
		t.Errorf("%d targets, %d tags", n, len(tags))
	}
	// A list beyond all bounds is refused, not built.
	big := newChat(t, true, 1<<30)
	if _, _, reason := big.send(1, noTTT, true, "SendTargets=All\x00"); reason != pdu.RejectOutOfResources {
		t.Error(reason)
	}
}

func TestTextExchange(t *testing.T) {
	c := newChat(t, false, 3)
	// A declaration holds when the exchange has ended.
	r, text, _ := c.send(1, noTTT, false, "MaxRecvDataSegmentLength=65536\x00")
	if r.Final() || text != "" || c.p.MaxXmitDataSegmentLength != 8192 {
		t.Error("too early:", text, c.p.MaxXmitDataSegmentLength)
	}
	r, text, _ = c.send(1, r.TTT(), true, "X-org.example.a=1\x00InitiatorAlias=me\x00")
	if !r.Final() || text != "X-org.example.a=NotUnderstood\x00" || c.p.MaxXmitDataSegmentLength != 65536 || c.p.InitiatorAlias != "me" {
		t.Errorf("%q %+v", text, c.p)
	}
	// Again: a new exchange may declare again.
	if _, _, reason := c.send(2, noTTT, true, "MaxRecvDataSegmentLength=4096\x00"); reason != 0 || c.p.MaxXmitDataSegmentLength != 4096 {
		t.Error(reason)
	}
	// A failed exchange changes nothing.
	r, _, _ = c.send(3, noTTT, false, "MaxRecvDataSegmentLength=8192\x00")
	if _, _, reason := c.send(3, r.TTT(), true, "MaxRecvDataSegmentLength=8192\x00"); reason != pdu.RejectProtocolError || c.p.MaxXmitDataSegmentLength != 4096 {
		t.Error(reason, c.p.MaxXmitDataSegmentLength)
	}
	if _, _, reason := c.send(3, r.TTT(), true, ""); reason != pdu.RejectInvalidField {
		t.Error("a dead exchange goes on:", reason)
	}
	// One given up by a new one.
	r, _, _ = c.send(4, noTTT, false, "MaxRecvDataSegmentLength=1024\x00")
	old := r.TTT()
	if _, _, reason := c.send(5, noTTT, true, ""); reason != 0 || c.p.MaxXmitDataSegmentLength != 4096 {
		t.Error(reason, c.p.MaxXmitDataSegmentLength)
	}
	if _, _, reason := c.send(4, old, true, ""); reason != pdu.RejectInvalidField {
		t.Error(reason)
	}
	// Text in pieces.
	c.edit = func(h *pdu.BHS) { h.SetContinue(!h.Final()) }
	r, _, _ = c.send(6, noTTT, false, "MaxRecvDataSegm")
	r, _, _ = c.send(6, r.TTT(), false, "entLength=2")
	if _, _, reason := c.send(6, r.TTT(), true, "048\x00"); reason != 0 || c.p.MaxXmitDataSegmentLength != 2048 {
		t.Error(reason, c.p.MaxXmitDataSegmentLength)
	}
	c.edit = nil
	for _, tc := range []struct {
		name, text string
		edit       func(h *pdu.BHS)
		reason     pdu.RejectReason
	}{
		{"login key", "HeaderDigest=None\x00", nil, pdu.RejectProtocolError},
		{"out of range", "MaxRecvDataSegmentLength=1\x00", nil, pdu.RejectProtocolError},
		{"the target's", "TargetAddress=1.2.3.4\x00", nil, pdu.RejectProtocolError},
		{"SendTargets in company", "SendTargets=\x00InitiatorAlias=a\x00", nil, pdu.RejectProtocolError},
		{"SendTargets twice", "SendTargets=\x00SendTargets=\x00", nil, pdu.RejectProtocolError},
		{"no text", "SendTargets", nil, pdu.RejectProtocolError},
		{"F and C", "", func(h *pdu.BHS) { h.SetContinue(true) }, pdu.RejectProtocolError},
		{"AHS", "", func(h *pdu.BHS) { h.SetAHSLength(4) }, pdu.RejectInvalidField},
		{"length", "", func(h *pdu.BHS) { h.SetDataSegmentLength(4) }, pdu.RejectInvalidField},
		{"no task tag", "", func(h *pdu.BHS) { h.SetITT(pdu.ReservedTag) }, pdu.RejectInvalidField},
		{"no exchange", "", func(h *pdu.BHS) { h.SetTTT(99) }, pdu.RejectInvalidField},
	} {
		c := newChat(t, false, 3)
		c.edit = tc.edit
		if _, _, reason := c.send(7, noTTT, true, tc.text); reason != tc.reason {
			t.Errorf("%s: %v", tc.name, reason)
		}
	}
	// Another task tag in the middle; data while an answer is being fetched.
	c = newChat(t, true, 100)
	c.p.MaxXmitDataSegmentLength = 512
	r, _, _ = c.send(1, noTTT, true, "SendTargets=All\x00")
	ttt := r.TTT()
	if _, _, reason := c.send(2, ttt, true, ""); reason != pdu.RejectProtocolError {
		t.Error(reason)
	}
	r, _, _ = c.send(1, noTTT, true, "SendTargets=All\x00")
	if _, _, reason := c.send(1, r.TTT(), true, "SendTargets=All\x00"); reason != pdu.RejectProtocolError {
		t.Error(reason)
	}
	// More text than anybody needs.
	c = newChat(t, true, 1)
	c.edit = func(h *pdu.BHS) { h.SetContinue(true) }
	tag := uint32(noTTT)
	for i := range 100 {
		r, _, reason := c.send(1, tag, false, strings.Repeat("a", 8192))
		if (reason != 0) != (i == 8) {
			t.Fatalf("piece %d: %v", i, reason)
		}
		if reason != 0 {
			break
		}
		tag = r.TTT()
	}
	if c.x.in != nil {
		t.Error("text is kept after a Reject")
	}
}
