package iscsitest

import (
	"bytes"
	"fmt"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// request makes a request with tags and numbers set; not immediate ones take a
// CmdSN.
func (c *Conn) request(o pdu.Opcode, immediate bool) *PDU {
	p := new(PDU)
	p.Reset(o)
	p.SetImmediate(immediate)
	p.SetITT(c.NextITT())
	p.SetCmdSN(c.takeCmdSN(immediate))
	p.SetExpStatSN(c.ExpStatSN)
	return p
}

// Await reads until the answer to itt has come, doing what other PDUs ask for
// meanwhile. A Reject of itt is an error.
func (c *Conn) Await(itt uint32, want pdu.Opcode) (*PDU, error) {
	for {
		p, err := c.Recv()
		if err != nil {
			return nil, err
		}
		if p.Opcode() == want && p.ITT() == itt {
			return p, c.sequence(p)
		}
		if err := c.Dispatch(p); err != nil {
			return nil, err
		}
		if p.Opcode() == pdu.OpReject && (*pdu.BHS)(p.Data[:pdu.BHSLen]).ITT() == itt {
			return p, &RejectError{p.RejectReason()}
		}
	}
}

// RejectError is a request that was answered with Reject.
type RejectError struct{ Reason pdu.RejectReason }

func (e *RejectError) Error() string { return "rejected: " + e.Reason.String() }

// NOP sends a NOP-Out with data and waits for its echo.
func (c *Conn) NOP(data []byte, immediate bool) error {
	p := c.request(pdu.OpNOPOut, immediate)
	p.SetTTT(pdu.ReservedTag)
	p.Data = data
	if err := c.Send(p); err != nil {
		return err
	}
	r, err := c.Await(p.ITT(), pdu.OpNOPIn)
	if err != nil {
		return err
	}
	if r.TTT() != pdu.ReservedTag {
		return wrong("NOP-In answers with target transfer tag %#x", r.TTT())
	}
	if want := data[:min(len(data), int(c.Params.MaxRecv))]; !bytes.Equal(r.Data, want) {
		return wrong("NOP-In echoes %d bytes, sent %d", len(r.Data), len(data))
	}
	return nil
}

// answerPing answers a NOP-In of the target's.
func (c *Conn) answerPing(p *PDU) error {
	a := new(PDU)
	a.Reset(pdu.OpNOPOut)
	a.SetImmediate(true)
	a.SetLUN(p.LUN())
	a.SetITT(pdu.ReservedTag)
	a.SetTTT(p.TTT())
	a.SetCmdSN(c.takeCmdSN(true))
	a.SetExpStatSN(c.ExpStatSN)
	return c.Send(a)
}

// TMF runs a task management function. ref is the task of ABORT TASK and QUERY TASK,
// nil for the others.
func (c *Conn) TMF(f pdu.TMF, lun uint16, ref *Task, immediate bool) (pdu.TMFResponse, error) {
	p := c.TMFRequest(f, lun, ref, immediate)
	if err := c.Send(p); err != nil {
		return 0, err
	}
	r, err := c.Await(p.ITT(), pdu.OpTMFResponse)
	if err != nil {
		return 0, err
	}
	return pdu.TMFResponse(r.Response()), nil
}

// TMFRequest makes a Task Management Function Request.
func (c *Conn) TMFRequest(f pdu.TMF, lun uint16, ref *Task, immediate bool) *PDU {
	p := c.request(pdu.OpTMFRequest, immediate)
	p.SetFunction(f)
	p.SetLUN(EncodeLUN(lun))
	p.SetReferencedTaskTag(pdu.ReservedTag)
	if ref != nil {
		p.SetLUN(ref.lun)
		p.SetReferencedTaskTag(ref.ITT)
		p.SetRefCmdSN(ref.CmdSN)
	}
	return p
}

// Forget drops a task that was aborted: an answer to it is an error from now on.
func (c *Conn) Forget(t *Task) { delete(c.tasks, t.ITT) }

// Text sends keys and returns the answer, fetched in as many pieces as the target
// makes of it. pieces is how many there were.
func (c *Conn) Text(kvs ...pdu.KeyValue) (answer []pdu.KeyValue, pieces int, err error) {
	p := c.request(pdu.OpTextRequest, false)
	p.SetFinal(true)
	p.SetTTT(pdu.ReservedTag)
	p.Data = pdu.AppendTexts(nil, kvs...)
	var text []byte
	for pieces = 1; ; pieces++ {
		if err := c.Send(p); err != nil {
			return nil, pieces, err
		}
		r, err := c.Await(p.ITT(), pdu.OpTextResponse)
		if err != nil {
			return nil, pieces, err
		}
		text = append(text, r.Data...)
		switch {
		case r.Final() && (r.Continue() || r.TTT() != pdu.ReservedTag):
			return nil, pieces, wrong("last Text Response with C or a target transfer tag")
		case !r.Final() && r.TTT() == pdu.ReservedTag:
			return nil, pieces, wrong("Text Response without F has no target transfer tag")
		case r.Final():
			if answer, err = pdu.ParseText(bytes.Clone(text)); err != nil && len(text) <= pdu.MaxText {
				return nil, pieces, wrong("text: %v", err)
			}
			if err != nil {
				answer = splitText(text)
			}
			return answer, pieces, nil
		}
		q := c.request(pdu.OpTextRequest, false)
		q.SetITT(p.ITT())
		q.SetFinal(true)
		q.SetLUN(r.LUN())
		q.SetTTT(r.TTT())
		p = q
	}
}

// splitText reads text longer than a parser of hostile text takes: long lists of
// targets.
func splitText(b []byte) (kvs []pdu.KeyValue) {
	for _, item := range bytes.Split(b, []byte{0}) {
		if k, v, ok := bytes.Cut(item, []byte{'='}); ok {
			kvs = append(kvs, pdu.KeyValue{Key: string(k), Value: string(v)})
		}
	}
	return kvs
}

// SendTargets asks for the addresses of targets: by name.
func (c *Conn) SendTargets(v string) (map[string][]string, error) {
	kvs, _, err := c.Text(pdu.KeyValue{Key: "SendTargets", Value: v})
	if err != nil {
		return nil, err
	}
	m := make(map[string][]string)
	name := ""
	for _, kv := range kvs {
		switch kv.Key {
		case "TargetName":
			name = kv.Value
			m[name] = nil
		case "TargetAddress":
			if name == "" {
				return nil, wrong("TargetAddress before any TargetName")
			}
			m[name] = append(m[name], kv.Value)
		default:
			return nil, fmt.Errorf("SendTargets=%s is answered with %v", v, kv)
		}
	}
	return m, nil
}

// Logout logs out and, where that concerns this connection, waits until the target has
// closed it.
func (c *Conn) Logout(reason pdu.LogoutReason, cid uint16) (pdu.LogoutResponse, error) {
	p := c.request(pdu.OpLogoutRequest, true)
	p.SetLogoutReason(reason)
	p.SetCID(cid)
	if err := c.Send(p); err != nil {
		return 0, err
	}
	r, err := c.Await(p.ITT(), pdu.OpLogoutResponse)
	if err != nil {
		return 0, err
	}
	a := pdu.LogoutResponse(r.Response())
	if a == pdu.LogoutSuccess && (reason == pdu.LogoutCloseSession || c.sess == nil || cid == c.cid) {
		return a, c.Closed(c.Timeout)
	}
	return a, nil
}
