package login

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// State says what comes after a Step.
type State uint8

// The states.
const (
	// More: send the response and read the next Login Request.
	More State = iota
	// Done: send the response; the connection is in full feature phase with
	// [Machine.Params].
	Done
	// Failed: send the response, then close the connection.
	Failed
	// Drop: close the connection without a word (§6.3: what came first was no
	// Login Request).
	Drop
)

func (s State) String() string {
	switch s {
	case More:
		return "more"
	case Done:
		return "done"
	case Failed:
		return "failed"
	}
	return "drop"
}

// maxRequests bounds the PDUs of one login: an initiator that goes on with empty
// requests for ever gets nowhere.
const maxRequests = 256

// Machine is one connection's login. Not for concurrent use. It holds no more than
// 64 KiB of what the initiator sent, and less of answers.
type Machine struct {
	cfg    Config
	params Params
	neg    negotiation
	err    error
	ended  State // Failed or Drop once the login is over without success; Done

	started  bool // the first Login Request was taken
	named    bool // the first whole text was taken: the names are known
	declared bool // our MaxRecvDataSegmentLength was sent
	stage    pdu.Stage
	version  uint8 // VersionMax of the first request
	requests int

	auth Exchange // runs while an authentication is under way
	// authed: the initiator may leave the security stage.
	authed bool

	in  []byte // text of requests with the C bit, so far
	out []byte // text that is still to be sent
	seg []byte // the data segment of the last response

	resp pdu.BHS
}

// New makes the machine of one connection.
func New(cfg Config) *Machine {
	m := &Machine{cfg: cfg.withDefaults(), params: defaults()}
	m.neg.cfg, m.neg.p = &m.cfg, &m.params
	return m
}

// Params are the results so far; final after [Done].
func (m *Machine) Params() Params { return m.params }

// Err says why a login failed, for the log: nil before [Failed] or [Drop]. What the
// peer sent is quoted in it, bounded.
func (m *Machine) Err() error { return m.err }

// Status is the status of the last response.
func (m *Machine) Status() pdu.LoginStatus { return m.resp.LoginStatus() }

// Refuse makes a Login Response of status st to h, for what the caller finds wrong
// before Step can (no room for another connection, shutdown). The login is over.
func (m *Machine) Refuse(h *pdu.BHS, st pdu.LoginStatus, why string) *pdu.BHS {
	m.fail(h, st, errors.New(why))
	return &m.resp
}

// HeaderOnly reports whether header h alone ends the login: the caller gives it to
// Step without waiting for additional headers and data, which a peer that speaks
// another protocol would never send.
func (m *Machine) HeaderOnly(h *pdu.BHS) bool {
	return h.Opcode() != pdu.OpLoginRequest || h.AHSLength() != 0 || h.DataSegmentLength() > MaxLoginSegment
}

// Step takes one PDU, header h and its data segment without padding, and answers
// with a Login Response, complete but for digests and padding (there are no digests
// before full feature phase). The response and its data belong to the machine and
// hold until the next Step; data may be re-used by the caller when Step returns.
//
// Where [Machine.HeaderOnly] says so, Step is called with a nil data segment.
func (m *Machine) Step(h *pdu.BHS, data []byte) (resp *pdu.BHS, text []byte, st State) {
	if m.ended != More {
		return nil, nil, Drop
	}
	if h.Opcode() != pdu.OpLoginRequest {
		if !m.started {
			m.err = fmt.Errorf("the first PDU is a %v, not a Login Request", h.Opcode())
			m.ended = Drop
			return nil, nil, Drop
		}
		m.fail(h, pdu.LoginInvalidDuringLogin, fmt.Errorf("%v in the login phase", h.Opcode()))
		return &m.resp, nil, Failed
	}
	m.seg = m.seg[:0]
	if err := m.request(h, data); err != nil {
		status := pdu.LoginTargetError
		if r := (*refusal)(nil); errors.As(err, &r) {
			status = r.status
		}
		m.fail(h, status, err)
		return &m.resp, m.seg, m.ended
	}
	return &m.resp, m.seg, m.ended
}

// fail ends the login with status st. Text that was answered so far goes along: a
// Reject in it tells which key it was.
func (m *Machine) fail(h *pdu.BHS, st pdu.LoginStatus, err error) {
	m.err, m.ended = err, Failed
	m.auth, m.in = nil, nil
	m.seg = append(m.seg[:0], m.out...)
	if len(m.seg) > MaxLoginSegment {
		m.seg = m.seg[:0]
	}
	m.out = nil
	m.respond(h)
	// T, CSG and NSG are reserved in a login reject (§6.3.1).
	m.resp[1] = 0
	m.resp.SetLoginStatus(st)
	m.resp.SetDataSegmentLength(len(m.seg))
}

// respond begins the response to h: all that does not depend on text.
func (m *Machine) respond(h *pdu.BHS) {
	r := &m.resp
	r.Reset(pdu.OpLoginResponse)
	r.SetCSG(m.stage)
	r.SetVersionMax(pdu.Version)
	r.SetVersionActive(pdu.Version)
	r.SetISID(h.ISID())
	r.SetTSIH(h.TSIH())
	r.SetITT(h.ITT())
	// Login Requests are immediate: they do not advance CmdSN.
	r.SetSNs(m.params.StatSN, m.params.ExpCmdSN, m.params.ExpCmdSN+m.cfg.CmdWindow-1)
	m.params.StatSN++
}

// request takes a Login Request and makes its response.
func (m *Machine) request(h *pdu.BHS, data []byte) error {
	if err := m.header(h, data); err != nil {
		return err
	}
	m.respond(h)

	// While our text is longer than a PDU the initiator asks for the rest with
	// empty requests (§11.13.3).
	if len(m.out) > 0 {
		if len(data) > 0 || h.Continue() {
			m.out = nil // half a text helps nobody
			return protocolError("a request with data while the response's C bit is set")
		}
		return m.send(h)
	}
	if len(m.in)+len(data) > pdu.MaxText || m.neg.size+len(data) > pdu.MaxText {
		return protocolError("more than 64 KiB of text")
	}
	m.neg.size += len(data)
	if h.Continue() {
		m.in = append(m.in, data...)
		m.resp.SetDataSegmentLength(0)
		return nil
	}
	text := data
	if len(m.in) > 0 {
		text = append(m.in, data...)
	}
	kvs, err := pdu.ParseText(text)
	m.in = nil
	if err != nil {
		return protocolError("%v", err)
	}
	if err := m.text(kvs); err != nil {
		return err
	}
	return m.send(h)
}

// header checks what does not depend on text.
func (m *Machine) header(h *pdu.BHS, data []byte) error {
	p := &m.params
	if !m.started {
		m.started = true
		m.version = h.VersionMax()
		m.stage = h.CSG()
		p.ISID, p.TSIH, p.CID = h.ISID(), h.TSIH(), h.CID()
		p.ExpCmdSN = h.CmdSN()
		if h.VersionMin() > pdu.Version {
			return refuse(pdu.LoginUnsupportedVersion, "version %d or higher is wanted", h.VersionMin())
		}
		if m.stage != pdu.SecurityNegotiation && m.stage != pdu.OperationalNegotiation {
			return protocolError("login begins in %v", m.stage)
		}
	}
	p.ExpStatSN = h.ExpStatSN()
	if m.requests++; m.requests > maxRequests {
		return protocolError("more than %d Login Requests", maxRequests)
	}
	switch {
	case h.AHSLength() != 0:
		return protocolError("a Login Request with additional header segments")
	case h.DataSegmentLength() > MaxLoginSegment:
		return protocolError("a data segment of %d bytes, at most %d are allowed during login",
			h.DataSegmentLength(), MaxLoginSegment)
	case len(data) != h.DataSegmentLength():
		return protocolError("DataSegmentLength is %d but %d bytes came", h.DataSegmentLength(), len(data))
	case h.ISID() != p.ISID || h.TSIH() != p.TSIH || h.CID() != p.CID:
		return protocolError("ISID, TSIH or CID changed during login")
	case h.VersionMax() != m.version:
		return protocolError("Version-max changed during login")
	case h.CSG() != m.stage:
		return protocolError("CSG is %v in stage %v", h.CSG(), m.stage)
	case h.Transit() && h.Continue():
		return protocolError("both T and C are set")
	case h.Transit() && !(h.NSG() > m.stage && (h.NSG() == pdu.OperationalNegotiation || h.NSG() == pdu.FullFeaturePhase)):
		return protocolError("no way leads from %v to %v", m.stage, h.NSG())
	}
	return nil
}

// text takes one whole text and puts the answers into m.out.
func (m *Machine) text(kvs []pdu.KeyValue) error {
	now := inOperational
	if m.stage == pdu.SecurityNegotiation {
		now = inSecurity
	}
	var proofs []pdu.KeyValue // what is for the authentication method
	var err error
	for _, kv := range inOrder(kvs) {
		// Who and where first: a session or target that is not there matters more
		// than what is wrong with the rest.
		if !m.named && rank(kv.Key) > 0 {
			if err := m.identify(); err != nil {
				return err
			}
		}
		if m.named && (kv.Key == "SessionType" || kv.Key == "TargetName" || kv.Key == "InitiatorName") {
			return protocolError("key %s does not come in the first Login Request", kv.Key)
		}
		if m.auth != nil && lookupKey(kv.Key) == nil {
			// Keys of an authentication may come several times (§12.1.3).
			if m.neg.count++; m.neg.count > pdu.MaxKeys {
				return protocolError("more than %d keys", pdu.MaxKeys)
			}
			proofs = append(proofs, kv)
			continue
		}
		if m.out, err = m.neg.offer(kv, now, m.out); err != nil {
			return err
		}
	}
	if !m.named {
		if err := m.identify(); err != nil {
			return err
		}
	}
	if m.stage == pdu.SecurityNegotiation {
		return m.security(proofs)
	}
	if !m.declared {
		m.declared = true
		m.params.MaxRecvDataSegmentLength = m.cfg.MaxRecvDataSegmentLength
		m.out = pdu.AppendText(m.out, "MaxRecvDataSegmentLength", format(m.cfg.MaxRecvDataSegmentLength))
	}
	return nil
}

// identify judges the names, which the first text has to bring (§6.3.1), and says
// who we are.
func (m *Machine) identify() error {
	p := &m.params
	m.named = true
	switch {
	case p.InitiatorName == "":
		return refuse(pdu.LoginMissingParameter, "no InitiatorName")
	case !p.Discovery && !m.neg.targetName:
		return refuse(pdu.LoginMissingParameter, "no TargetName")
	case p.Discovery && p.TSIH != 0:
		return refuse(pdu.LoginSessionDoesNotExist, "a discovery session has one connection only")
	}
	info := TargetInfo{TPGT: m.cfg.TPGT}
	if !p.Discovery {
		st := pdu.LoginNotFound
		if m.cfg.Lookup != nil {
			info, st = m.cfg.Lookup(p)
		}
		if st != pdu.LoginSuccess {
			if st.Class() == 1 && info.Redirect != "" {
				m.out = pdu.AppendText(m.out[:0], "TargetAddress", info.Redirect)
			}
			return refuse(st, "%s logs in to target %s: %v", clip(p.InitiatorName), clip(p.TargetName), st)
		}
	}
	p.TPGT = info.TPGT
	m.cfg.MaxConnections = or(info.MaxConnections, m.cfg.MaxConnections)
	if p.TSIH != 0 && info.Leading != nil {
		p.join(info.Leading)
	}
	// Every first response names the portal group (§6.3.1).
	m.out = pdu.AppendText(m.out, "TargetPortalGroupTag", format(uint32(p.TPGT)))
	if info.Alias != "" && len(info.Alias) <= pdu.MaxValue {
		m.out = pdu.AppendText(m.out, "TargetAlias", info.Alias)
	}
	if m.stage == pdu.OperationalNegotiation && !slices.Contains(m.methods(), valueNone) {
		return refuse(pdu.LoginAuthenticationFailure, "the initiator wants to go without authentication")
	}
	return nil
}

func (m *Machine) methods() []string {
	if m.cfg.Auth == nil {
		return []string{valueNone}
	}
	return m.cfg.Auth.Methods(&m.params)
}

// security goes on with authentication.
func (m *Machine) security(proofs []pdu.KeyValue) error {
	methods := m.methods()
	if offer := m.neg.auth; offer != nil {
		m.neg.auth = nil
		method := ""
		for _, o := range offer {
			// The initiator's first that will do (§6.2.1).
			if o != "" && slices.Contains(methods, o) {
				method = o
				break
			}
		}
		if method == "" {
			m.out = pdu.AppendText(m.out, "AuthMethod", valueReject)
			return refuse(pdu.LoginAuthenticationFailure, "no AuthMethod of the offer will do")
		}
		m.params.AuthMethod = method
		m.out = pdu.AppendText(m.out, "AuthMethod", method)
		if method == valueNone {
			m.authed = true
			return nil
		}
		x, st := m.cfg.Auth.Start(&m.params, method)
		if st != pdu.LoginSuccess || x == nil {
			return refuse(or(st, pdu.LoginAuthenticationFailure), "%s authentication cannot begin", clip(method))
		}
		m.auth = x
		return nil
	}
	if m.auth == nil {
		// The initiator makes no proposal: without one it may go where None is
		// allowed (§6.3.1).
		if !m.authed && slices.Contains(methods, valueNone) {
			m.authed = true
		}
		return nil
	}
	answers, done, st := m.auth.Step(proofs)
	if st != pdu.LoginSuccess {
		if w, ok := m.auth.(interface{ Why() string }); ok {
			return refuse(st, "%s authentication failed: %s", clip(m.params.AuthMethod), w.Why())
		}
		return refuse(st, "%s authentication failed", clip(m.params.AuthMethod))
	}
	m.out = pdu.AppendTexts(m.out, answers...)
	if done {
		if u, ok := m.auth.(interface{ User() string }); ok {
			m.params.AuthUser = u.User()
		}
		m.auth, m.authed = nil, true
	}
	return nil
}

// send puts text into the response, as much as goes into one PDU, and moves to the
// next stage where all is said.
func (m *Machine) send(h *pdu.BHS) error {
	n := min(len(m.out), MaxLoginSegment)
	m.seg = append(m.seg[:0], m.out[:n]...)
	m.out = m.out[n:]
	m.resp.SetDataSegmentLength(n)
	if len(m.out) > 0 {
		m.resp.SetContinue(true)
		return nil
	}
	m.out = nil
	if !h.Transit() {
		return nil
	}
	if m.stage == pdu.SecurityNegotiation && !m.authed {
		if m.auth == nil {
			return refuse(pdu.LoginAuthenticationFailure, "the initiator wants to go without authentication")
		}
		return nil // not yet: T stays 0
	}
	if h.NSG() == pdu.FullFeaturePhase {
		return m.finish(h)
	}
	m.stage = h.NSG()
	m.resp.SetTransit(true)
	m.resp.SetNSG(m.stage)
	return nil
}

// finish ends the login well.
func (m *Machine) finish(h *pdu.BHS) error {
	p := &m.params
	if m.neg.declared != 0 {
		p.MaxXmitDataSegmentLength = m.neg.declared
	}
	p.FirstBurstLength = min(p.FirstBurstLength, p.MaxBurstLength)
	if m.cfg.Admit != nil {
		if st := m.cfg.Admit(p); st != pdu.LoginSuccess {
			return refuse(st, "%s is not admitted: %v", clip(p.InitiatorName), st)
		}
	}
	p.TSIH = or(p.TSIH, 1)
	m.resp.SetTSIH(p.TSIH)
	m.resp.SetTransit(true)
	m.resp.SetNSG(pdu.FullFeaturePhase)
	m.stage = pdu.FullFeaturePhase
	m.ended = Done
	m.neg.seen = nil
	return nil
}
