package iscsi

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// admitDiscovery refuses discovery sessions beyond their limit.
func (s *Server) admitDiscovery() pdu.LoginStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return pdu.LoginServiceUnavailable
	case len(s.discoveries) >= s.limits.Discoveries:
		return pdu.LoginOutOfResources
	}
	return pdu.LoginSuccess
}

// enterDiscovery counts nc as a discovery session instead of a login.
func (s *Server) enterDiscovery(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(nc)
	s.discoveries[nc] = struct{}{}
	s.logins++
	if s.closed {
		nc.Close()
	}
}

// discover serves a discovery session (RFC 7143 §4.3): Text, NOP-Out and Logout, one
// after the other; everything else is rejected.
func (s *Server) discover(x *wire, p login.Params, info SessionInfo) error {
	x.hd, x.dd = p.HeaderDigest, p.DataDigest
	x.limit = min(int(p.MaxRecvDataSegmentLength), maxWire-2*pdu.DigestLen)
	text := login.NewText(s.textConfig(&info), &p)
	stat, exp := p.StatSN, p.ExpCmdSN
	for {
		if err := x.nc.SetDeadline(time.Now().Add(s.limits.DiscoveryTimeout)); err != nil {
			return err
		}
		var h, out pdu.BHS
		data, err := x.read(&h)
		switch {
		case err == io.EOF, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return nil // gone, or forgotten
		case err != nil:
			return err
		}
		if !h.Immediate() {
			if h.CmdSN() != exp {
				continue
			}
			exp++
		}
		var body []byte
		end := false
		reject := pdu.RejectReason(0)
		switch op := h.Opcode(); {
		case h.DataSegmentLength() > 0 && data == nil:
			reject, end = pdu.RejectProtocolError, true
		case op == pdu.OpTextRequest:
			resp, t, reason := text.Step(&h, data)
			if reject = reason; reason == 0 {
				out, body = *resp, t
			}
		case op == pdu.OpNOPOut && h.ITT() == pdu.ReservedTag:
			continue
		case op == pdu.OpNOPOut:
			out.Reset(pdu.OpNOPIn)
			out.SetLUN(h.LUN())
			out.SetITT(h.ITT())
			out.SetTTT(pdu.ReservedTag)
			body = data[:min(len(data), int(p.MaxXmitDataSegmentLength))]
		case op == pdu.OpLogoutRequest && h.LogoutReason() > pdu.LogoutRecovery:
			reject = pdu.RejectInvalidField
		case op == pdu.OpLogoutRequest:
			out.Reset(pdu.OpLogoutResponse)
			out.SetITT(h.ITT())
			out.SetTime2Wait(p.DefaultTime2Wait)
			if h.LogoutReason() == pdu.LogoutRecovery {
				out.SetResponse(uint8(pdu.LogoutRecoveryUnsupported))
			} else {
				end = true
			}
		default:
			// A discovery session does nothing else (§4.3).
			reject = pdu.RejectProtocolError
		}
		if reject != 0 {
			s.journal.count[badOpcode].Add(1)
			out.MakeReject(reject)
			body = append([]byte(nil), h[:]...)
		}
		out.SetSNs(stat, exp, exp+7)
		stat++
		if err := x.write(&out, body); err != nil {
			return err
		}
		if end {
			return nil
		}
	}
}
