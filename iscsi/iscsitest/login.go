package iscsitest

import (
	"fmt"
	"strconv"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// Login says how to log in. The zero value of everything but the names is a plain
// normal session.
type Login struct {
	InitiatorName, TargetName string
	// Discovery makes a discovery session; TargetName is left out where empty.
	Discovery bool
	ISID      [6]byte // zero: 80 00 01 00 00 01 (random format)
	TSIH, CID uint16
	// Digests wanted; they are offered as "CRC32C" alone, else "None" alone.
	HeaderDigest, DataDigest bool
	// Security begins in the security stage with AuthMethod=None.
	Security bool
	// CHAP authenticates in the security stage; nil: it does not.
	CHAP *CHAP
	// Keys are added to the operational text, after the defaults that they
	// replace. A key with the value "-" is left out.
	Keys []pdu.KeyValue
	// Split sends the operational text in pieces of that many bytes with the C
	// bit; 0: one PDU.
	Split int
	// Lenient overlooks a session handle of 0 and keys without an answer: for targets
	// that are measured, not tested.
	Lenient bool
	// Trailer is sent in the same write as the last Login Request: PDUs
	// pipelined behind the login.
	Trailer []byte
}

// LoginError is a login that the target refused.
type LoginError struct{ Status pdu.LoginStatus }

func (e *LoginError) Error() string { return "login refused: " + e.Status.String() }

// text are the operational keys.
func (l *Login) text() []pdu.KeyValue {
	digest := func(on bool) string {
		if on {
			return "CRC32C"
		}
		return "None"
	}
	kvs := []pdu.KeyValue{
		{Key: "HeaderDigest", Value: digest(l.HeaderDigest)},
		{Key: "DataDigest", Value: digest(l.DataDigest)},
		{Key: "MaxRecvDataSegmentLength", Value: "262144"},
	}
	if !l.Discovery {
		kvs = append(kvs,
			pdu.KeyValue{Key: "InitialR2T", Value: "No"},
			pdu.KeyValue{Key: "ImmediateData", Value: "Yes"},
			pdu.KeyValue{Key: "MaxBurstLength", Value: "262144"},
			pdu.KeyValue{Key: "FirstBurstLength", Value: "65536"},
			pdu.KeyValue{Key: "MaxOutstandingR2T", Value: "1"},
			pdu.KeyValue{Key: "MaxConnections", Value: "1"},
			pdu.KeyValue{Key: "DataPDUInOrder", Value: "Yes"},
			pdu.KeyValue{Key: "DataSequenceInOrder", Value: "Yes"},
		)
	}
	kvs = append(kvs,
		pdu.KeyValue{Key: "DefaultTime2Wait", Value: "2"},
		pdu.KeyValue{Key: "DefaultTime2Retain", Value: "0"},
		pdu.KeyValue{Key: "ErrorRecoveryLevel", Value: "0"},
	)
	for _, kv := range l.Keys {
		found := false
		for i := range kvs {
			if kvs[i].Key == kv.Key {
				kvs[i], found = kv, true
			}
		}
		if !found {
			kvs = append(kvs, kv)
		}
	}
	out := kvs[:0]
	for _, kv := range kvs {
		if kv.Value != "-" {
			out = append(out, kv)
		}
	}
	return out
}

func (l *Login) names() []pdu.KeyValue {
	kvs := []pdu.KeyValue{{Key: "InitiatorName", Value: l.InitiatorName}}
	if l.Discovery {
		kvs = append(kvs, pdu.KeyValue{Key: "SessionType", Value: "Discovery"})
	} else {
		kvs = append(kvs, pdu.KeyValue{Key: "SessionType", Value: "Normal"})
	}
	if l.TargetName != "" {
		kvs = append(kvs, pdu.KeyValue{Key: "TargetName", Value: l.TargetName})
	}
	return kvs
}

// Request makes a Login Request from stage csg that asks for nsg (the same stage:
// the T bit is 0).
func (l *Login) Request(c *Conn, itt uint32, csg, nsg pdu.Stage, text []byte) *PDU {
	p := new(PDU)
	p.Reset(pdu.OpLoginRequest)
	p.SetImmediate(true)
	p.SetCSG(csg)
	if nsg != csg {
		p.SetTransit(true)
		p.SetNSG(nsg)
	}
	isid := l.ISID
	if isid == [6]byte{} {
		isid = [6]byte{0x80, 0, 1, 0, 0, 1}
	}
	p.SetISID(isid)
	p.SetTSIH(l.TSIH)
	p.SetCID(l.CID)
	p.SetITT(itt)
	p.SetCmdSN(c.CmdSN)
	p.SetExpStatSN(c.ExpStatSN)
	p.Data = text
	return p
}

// exchange sends a Login Request and reads the response and its continuations.
func (c *Conn) exchange(l *Login, p *PDU, trailer []byte) (*PDU, error) {
	if err := c.SendRaw(append(c.Encode(p, 0), trailer...)); err != nil {
		return nil, err
	}
	var text []byte
	for {
		r, err := c.Recv()
		if err != nil {
			return nil, err
		}
		if r.Opcode() != pdu.OpLoginResponse {
			return nil, wrong("%v during login", r)
		}
		c.LoginResponses = append(c.LoginResponses, r)
		if r.ITT() != p.ITT() {
			return nil, wrong("Login Response with ITT %#x, sent %#x", r.ITT(), p.ITT())
		}
		if st := r.LoginStatus(); st != pdu.LoginSuccess {
			c.takeKeys(r.Data)
			return nil, &LoginError{st}
		}
		if c.statSNKnown && r.StatSN() != c.ExpStatSN {
			return nil, wrong("Login Response has StatSN %d, expected %d", r.StatSN(), c.ExpStatSN)
		}
		c.statSNKnown = true
		c.ExpStatSN = r.StatSN() + 1
		c.ExpCmdSN, c.MaxCmdSN = r.ExpCmdSN(), r.MaxCmdSN()
		if r.CSG() != p.CSG() {
			return nil, wrong("Login Response in %v to a request in %v", r.CSG(), p.CSG())
		}
		text = append(text, r.Data...)
		if r.Continue() {
			if r.Transit() {
				return nil, wrong("Login Response with both T and C")
			}
			q := l.Request(c, p.ITT(), p.CSG(), p.CSG(), nil)
			if p.Transit() {
				q.SetTransit(true)
				q.SetNSG(p.NSG())
			}
			if err := c.Send(q); err != nil {
				return nil, err
			}
			continue
		}
		if err := c.takeKeys(text); err != nil {
			return nil, err
		}
		return r, nil
	}
}

func (c *Conn) takeKeys(text []byte) error {
	kvs, err := pdu.ParseText(text)
	if err != nil {
		return wrong("login text: %v", err)
	}
	for _, kv := range kvs {
		c.Keys[kv.Key] = kv.Value
	}
	return nil
}

// Login logs in. A refusal is a *LoginError.
func (c *Conn) Login(l Login) error {
	itt := c.NextITT()
	text := pdu.AppendTexts(nil, l.names()...)
	stage := pdu.OperationalNegotiation
	if l.CHAP != nil {
		if err := c.authenticate(&l, itt); err != nil {
			return err
		}
		text = nil
	} else if l.Security {
		p := l.Request(c, itt, pdu.SecurityNegotiation, stage, pdu.AppendText(text, "AuthMethod", "None"))
		r, err := c.exchange(&l, p, nil)
		if err != nil {
			return err
		}
		if !r.Transit() || r.NSG() != stage {
			return wrong("no way out of the security stage: T %v, NSG %v", r.Transit(), r.NSG())
		}
		text = nil
	}
	offered := l.text()
	text = pdu.AppendTexts(text, offered...)
	for l.Split > 0 && len(text) > l.Split {
		p := l.Request(c, itt, stage, stage, text[:l.Split])
		p.SetContinue(true)
		r, err := c.exchange(&l, p, nil)
		if err != nil {
			return err
		}
		if len(r.Data) > 0 || r.Transit() {
			return wrong("the answer to a Login Request with the C bit has data or the T bit")
		}
		text = text[l.Split:]
	}
	r, err := c.exchange(&l, l.Request(c, itt, stage, pdu.FullFeaturePhase, text), l.Trailer)
	if err != nil {
		return err
	}
	for tries := 0; !r.Transit(); tries++ {
		if tries == 8 {
			return wrong("no way into full feature phase")
		}
		if r, err = c.exchange(&l, l.Request(c, itt, stage, pdu.FullFeaturePhase, nil), nil); err != nil {
			return err
		}
	}
	if r.NSG() != pdu.FullFeaturePhase {
		return wrong("NSG is %v in the last Login Response", r.NSG())
	}
	if r.TSIH() == 0 && !l.Lenient {
		return wrong("TSIH is 0 in the last Login Response")
	}
	c.TSIH = r.TSIH()
	return c.results(offered, l.Lenient)
}

// results works out what both sides have agreed upon.
func (c *Conn) results(offered []pdu.KeyValue, lenient bool) error {
	offer := make(map[string]string)
	for _, kv := range offered {
		offer[kv.Key] = kv.Value
		a, ok := c.Keys[kv.Key]
		switch {
		case kv.Key == "MaxRecvDataSegmentLength" || kv.Key == "InitiatorAlias":
		case !ok && (kv.Value == "No" || kv.Value == "Yes"): // may be left out where it decides
		case !ok && lenient:
		case !ok:
			return wrong("no answer to %v", kv)
		case a == "Reject":
			return wrong("%v was rejected but the login goes on", kv)
		}
	}
	num := func(key string, dst *uint32) error {
		if a, ok := c.Keys[key]; ok && a != "Irrelevant" {
			v, err := strconv.ParseUint(a, 10, 32)
			if err != nil {
				return wrong("%s=%s", key, a)
			}
			*dst = uint32(v)
		}
		return nil
	}
	p := &c.Params
	for _, f := range []struct {
		k string
		d *uint32
	}{
		{"FirstBurstLength", &p.FirstBurstLength}, {"MaxBurstLength", &p.MaxBurstLength},
		{"MaxOutstandingR2T", &p.MaxOutstandingR2T}, {"ErrorRecoveryLevel", &p.ErrorRecoverLevel},
		{"MaxRecvDataSegmentLength", &p.MaxXmit},
	} {
		if err := num(f.k, f.d); err != nil {
			return err
		}
	}
	if v, ok := offer["MaxRecvDataSegmentLength"]; ok {
		n, err := pdu.ParseNumber(v)
		if err != nil {
			return fmt.Errorf("MaxRecvDataSegmentLength=%s: %w", v, err)
		}
		p.MaxRecv = uint32(n)
	}
	flag := func(key string, dst *bool) {
		if v, ok := c.Keys[key]; ok {
			*dst = v == "Yes"
		} else if v, ok := offer[key]; ok {
			*dst = v == "Yes"
		}
	}
	flag("InitialR2T", &p.InitialR2T)
	flag("ImmediateData", &p.ImmediateData)
	c.HeaderDigest = c.Keys["HeaderDigest"] == "CRC32C"
	c.DataDigest = c.Keys["DataDigest"] == "CRC32C"
	return nil
}
