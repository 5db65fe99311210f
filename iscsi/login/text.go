package login

import (
	"errors"
	"net/netip"
	"strconv"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// TargetRecord is one target in the answer to SendTargets.
type TargetRecord struct {
	Name    string
	Portals []Portal
}

// Portal is one address of a target, with its portal group tag.
type Portal struct {
	// Addr is an address that the initiator can reach: never the unspecified
	// one.
	Addr netip.AddrPort
	TPGT uint16
}

// String is the value of TargetAddress: "192.0.2.1:3260,1", "[2001:db8::1]:3260,1"
// (RFC 7143 §13.8). A zone means nothing to the peer and is left out; IPv4
// addresses in IPv6 form become plain ones.
func (p Portal) String() string {
	a := netip.AddrPortFrom(p.Addr.Addr().Unmap().WithZone(""), p.Addr.Port())
	return a.String() + "," + strconv.Itoa(int(p.TPGT))
}

// TextConfig is what the text negotiation of full feature phase asks.
type TextConfig struct {
	// Targets calls yield for every target (name is empty), or for target name
	// alone, that p's initiator may see, until yield returns false.
	Targets func(p *Params, name string, yield func(TargetRecord) bool)
}

// maxAnswer bounds the answer to one SendTargets, bytes: about 60,000 targets.
const maxAnswer = 16 << 20

// Text is the text negotiation of one connection in full feature phase
// (RFC 7143 §6.2, §6.4, §11.10, §11.11, appendix C). Not for concurrent use; it
// holds no more than 64 KiB of requests. Answers are as long as the list of targets,
// up to 16 MiB, and are held until the initiator has fetched them.
type Text struct {
	cfg TextConfig
	p   *Params
	err error

	neg  negotiation
	ncfg Config
	itt  uint32
	ttt  uint32 // of the exchange under way, ReservedTag if none
	next uint32 // the last tag given

	in  []byte // text of requests with the C bit, so far
	out []byte // text still to be sent

	resp pdu.BHS
}

// NewText makes the text negotiation of a connection. p are the connection's
// parameters; Step changes p.MaxXmitDataSegmentLength when the initiator declares a
// new MaxRecvDataSegmentLength.
func NewText(cfg TextConfig, p *Params) *Text {
	x := &Text{cfg: cfg, p: p}
	x.reset()
	return x
}

func (x *Text) reset() {
	x.ttt = pdu.ReservedTag
	x.in, x.out = nil, nil
	x.neg = negotiation{cfg: &x.ncfg, p: x.p}
}

// Err says why the last Step rejected, for the log.
func (x *Text) Err() error { return x.err }

// Active reports whether an exchange is under way: the initiator has to go on.
func (x *Text) Active() bool { return x.ttt != pdu.ReservedTag }

// Step takes one Text Request, header h and its data segment without padding.
//
// With reason 0 it answers with a Text Response, complete but for StatSN, ExpCmdSN,
// MaxCmdSN, digests and padding, its data at most p.MaxXmitDataSegmentLength bytes;
// both belong to x and hold until the next Step. Else the caller answers with a
// Reject of that reason; the exchange is over and nothing has changed.
func (x *Text) Step(h *pdu.BHS, data []byte) (resp *pdu.BHS, text []byte, reason pdu.RejectReason) {
	x.err = nil
	if err := x.request(h, data); err != nil {
		x.reset()
		x.err = err
		reason = pdu.RejectProtocolError
		if r := (*refusal)(nil); errors.As(err, &r) {
			reason = r.reason
		}
		return nil, nil, reason
	}
	return x.respond(h)
}

func invalidField(msg string) error {
	return &refusal{pdu.LoginInitiatorError, pdu.RejectInvalidField, msg}
}

func (x *Text) request(h *pdu.BHS, data []byte) error {
	switch {
	case h.AHSLength() != 0:
		return invalidField("a Text Request with additional header segments")
	case len(data) != h.DataSegmentLength():
		return invalidField("DataSegmentLength is not what came")
	case h.Final() && h.Continue():
		return protocolError("both F and C are set")
	case h.ITT() == pdu.ReservedTag:
		return invalidField("a Text Request without a task tag")
	}
	if h.TTT() == pdu.ReservedTag {
		// A new exchange; one under way is given up (§6.4).
		x.reset()
		x.itt = h.ITT()
	} else {
		if h.TTT() != x.ttt {
			return invalidField("the target transfer tag is not that of an exchange under way")
		}
		if h.ITT() != x.itt {
			return protocolError("the task tag changed in the middle of an exchange")
		}
	}
	if len(x.out) > 0 {
		// The rest of an answer is fetched with empty requests (§11.11.2).
		if len(data) > 0 || h.Continue() {
			return protocolError("a request with data while the response's C bit is set")
		}
		return nil
	}
	if x.neg.size += len(data); x.neg.size > pdu.MaxText {
		return protocolError("more than 64 KiB of text")
	}
	if h.Continue() {
		x.in = append(x.in, data...)
		return nil
	}
	if len(x.in) > 0 {
		data = append(x.in, data...)
	}
	kvs, err := pdu.ParseText(data)
	x.in = nil
	if err != nil {
		return protocolError("%v", err)
	}
	for _, kv := range kvs {
		if kv.Key == "SendTargets" {
			if len(kvs) != 1 {
				return protocolError("SendTargets does not come alone")
			}
			err = x.sendTargets(kv.Value)
		} else {
			x.out, err = x.neg.offer(kv, inFullFeature, x.out)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sendTargets answers SendTargets (appendix C).
func (x *Text) sendTargets(v string) error {
	name := ""
	switch {
	case v == "All" && x.p.Discovery:
	case v == "All":
		// "MUST NOT be supported on an operational session".
		x.out = pdu.AppendText(x.out, "SendTargets", valueReject)
		return nil
	case v == "" && x.p.TargetName != "":
		name = x.p.TargetName
	case v == "":
		x.out = pdu.AppendText(x.out, "SendTargets", valueReject)
		return nil
	default:
		n, err := PeerName(v)
		if err != nil || !x.p.Discovery && n != x.p.TargetName {
			return nil // nothing by that name, or nothing that is shown here
		}
		name = n
	}
	if x.cfg.Targets == nil {
		return nil
	}
	full := false
	x.cfg.Targets(x.p, name, func(t TargetRecord) bool {
		x.out = pdu.AppendText(x.out, "TargetName", t.Name)
		for _, a := range t.Portals {
			x.out = pdu.AppendText(x.out, "TargetAddress", a.String())
		}
		full = len(x.out) > maxAnswer
		return !full
	})
	if full {
		return &refusal{pdu.LoginOutOfResources, pdu.RejectOutOfResources, "the list of targets is too long"}
	}
	return nil
}

func (x *Text) respond(h *pdu.BHS) (*pdu.BHS, []byte, pdu.RejectReason) {
	r := &x.resp
	r.Reset(pdu.OpTextResponse)
	r.SetITT(h.ITT())
	// LUN and tag go together: both are copied by the initiator (§11.11.4).
	n := min(len(x.out), int(x.p.MaxXmitDataSegmentLength))
	text := x.out[:n:n]
	x.out = x.out[n:]
	r.SetDataSegmentLength(n)
	switch {
	case len(x.out) > 0:
		r.SetContinue(true)
	case h.Final():
		r.SetFinal(true)
	}
	if r.Final() {
		// The exchange has ended well: what it declared holds from now on.
		if x.neg.declared != 0 {
			x.p.MaxXmitDataSegmentLength = x.neg.declared
		}
		x.reset()
		r.SetTTT(pdu.ReservedTag)
		return r, text, 0
	}
	if x.next++; x.next == pdu.ReservedTag {
		x.next = 0
	}
	x.ttt = x.next
	r.SetTTT(x.ttt)
	return r, text, 0
}
