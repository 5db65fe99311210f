package iscsitest

import (
	"errors"
	"fmt"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// LoginCase is one thing that a hostile initiator does before full feature phase.
// Whatever it is, the target closes the connection.
type LoginCase struct {
	Name string
	// Section of RFC 7143 that says what has to follow.
	Section string
	// Want are the statuses of which the last Login Response has to have one; none:
	// there must be no Login Response at all.
	Want []pdu.LoginStatus
	// Silent: no Login Response is allowed too.
	Silent bool
	Do     func(c *Conn, l *Login) error
}

var initiatorError = []pdu.LoginStatus{pdu.LoginInitiatorError, pdu.LoginInvalidDuringLogin}

// LoginCases are the crimes that every target has to stand during login.
func LoginCases() []LoginCase {
	first := func(edit func(p *PDU)) func(c *Conn, l *Login) error {
		return func(c *Conn, l *Login) error {
			p := l.Request(c, 1, pdu.OperationalNegotiation, pdu.FullFeaturePhase, pdu.AppendTexts(nil, l.names()...))
			edit(p)
			return c.Send(p)
		}
	}
	return []LoginCase{
		{Name: "a SCSI Command comes first", Section: "6.3",
			Do: first(func(p *PDU) { p.SetOpcode(pdu.OpSCSICommand) })},
		{Name: "a web browser", Section: "6.3",
			Do: func(c *Conn, l *Login) error {
				return c.SendRaw([]byte("GET / HTTP/1.1\r\nHost: target.example.org:3260\r\nAccept: */*\r\nConnection: close\r\n\r\n"))
			}},
		{Name: "a Login Request of 16 MiB", Section: "6.3", Want: initiatorError, Silent: true,
			Do: func(c *Conn, l *Login) error {
				p := l.Request(c, 1, pdu.OperationalNegotiation, pdu.FullFeaturePhase, nil)
				p.SetDataSegmentLength(pdu.MaxDataSegmentLength)
				return c.SendRaw(c.Encode(p, KeepLength))
			}},
		{Name: "additional header segments", Section: "11.12", Want: initiatorError, Silent: true,
			Do: first(func(p *PDU) { p.AHS = make([]byte, pdu.MaxAHSLength) })},
		{Name: "T and C", Section: "11.12.2", Want: initiatorError, Do: first(func(p *PDU) { p.SetContinue(true) })},
		{Name: "begins in full feature phase", Section: "6.3", Want: initiatorError,
			Do: first(func(p *PDU) { p.SetCSG(pdu.FullFeaturePhase) })},
		{Name: "a version that there is not", Section: "11.12.4", Want: []pdu.LoginStatus{pdu.LoginUnsupportedVersion},
			Do: first(func(p *PDU) { p.SetVersionMax(9); p.SetVersionMin(8) })},
		{Name: "no names", Section: "6.3", Want: []pdu.LoginStatus{pdu.LoginMissingParameter}, Do: first(func(p *PDU) { p.Data = nil })},
		{Name: "a session that there is not", Section: "6.3.1", Want: []pdu.LoginStatus{pdu.LoginSessionDoesNotExist},
			Do: first(func(p *PDU) { p.SetTSIH(0xfffe) })},
		{Name: "a target that there is not", Section: "11.13.5", Want: []pdu.LoginStatus{pdu.LoginNotFound},
			Do: first(func(p *PDU) {
				p.Data = pdu.AppendTexts(nil, pdu.KeyValue{Key: "InitiatorName", Value: "iqn.2026-11.org.example:x"},
					pdu.KeyValue{Key: "TargetName", Value: "iqn.2026-11.org.example:no-such-target"})
			})},
		{Name: "no text", Section: "6.1", Want: initiatorError, Do: first(func(p *PDU) { p.Data = []byte("\x00\xff\xfe=\x00") })},
		{Name: "a key twice", Section: "6.3", Want: initiatorError,
			Do: first(func(p *PDU) { p.Data = pdu.AppendText(pdu.AppendText(p.Data, "X-a", "1"), "X-a", "1") })},
		{Name: "64 KiB of text and no end", Section: "6.1", Want: initiatorError,
			Do: func(c *Conn, l *Login) error {
				for range 64 {
					p := l.Request(c, 1, pdu.OperationalNegotiation, pdu.OperationalNegotiation, make([]byte, 8192))
					p.SetContinue(true)
					if _, err := c.exchange(l, p, nil); err != nil {
						return err
					}
				}
				return errors.New("512 KiB of login text were taken")
			}},
		{Name: "a Text Request in the middle", Section: "6.3", Want: []pdu.LoginStatus{pdu.LoginInvalidDuringLogin},
			Do: func(c *Conn, l *Login) error {
				p := l.Request(c, 1, pdu.OperationalNegotiation, pdu.OperationalNegotiation, pdu.AppendTexts(nil, l.names()...))
				if _, err := c.exchange(l, p, nil); err != nil {
					return fmt.Errorf("before the crime: %w", err)
				}
				q := new(PDU)
				q.Reset(pdu.OpTextRequest)
				q.SetITT(2)
				q.SetTTT(pdu.ReservedTag)
				return c.Send(q)
			}},
	}
}

// RunLogin commits a login case's crime on a connection of its own.
func (tg *Target) RunLogin(cs LoginCase) error {
	c, err := tg.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if tg.Timeout != 0 {
		c.Timeout = tg.Timeout
	}
	l := tg.Login
	l.ISID = [6]byte{0x80, 0, 4, 0, 0, 1}
	err = cs.Do(c, &l)
	var status *pdu.LoginStatus
	if le := (*LoginError)(nil); errors.As(err, &le) {
		status = &le.Status
	} else if err != nil && !IsClosed(err) {
		return err
	}
	for err == nil {
		var p *PDU
		if p, err = c.Recv(); err != nil {
			break
		}
		if p.Opcode() != pdu.OpLoginResponse {
			return wrong("%v during login", p)
		}
		s := p.LoginStatus()
		status = &s
	}
	if status != nil {
		for _, w := range cs.Want {
			if *status == w {
				// What comes behind a refusal is the end.
				return c.Closed(c.Timeout)
			}
		}
		return fmt.Errorf("the login ended with %v; section %s allows %v", *status, cs.Section, cs.Want)
	}
	switch {
	case IsTimeout(err):
		return fmt.Errorf("the target neither answers nor closes the connection; section %s wants an end", cs.Section)
	case errors.Is(err, ErrTarget):
		return err
	case len(cs.Want) > 0 && !cs.Silent:
		return fmt.Errorf("the connection was closed without a Login Response; section %s wants %v", cs.Section, cs.Want)
	}
	return nil
}
