package ibmvio

import (
	"github.com/vtgt/vtgt/ibmvio/crq"
)

// mad serves the management datagram in s.
func (a *adapter) mad(s *slot) {
	a.count.MADs.Add(1)
	m, buffer, err := crq.ParseMAD(s.buf[:s.n])
	if err != nil {
		a.mads--
		a.put(s)
		a.violation(err)
		return
	}
	s.tag, s.addr = m.Tag(), buffer
	switch m.Type() {
	case crq.EmptyIU:
		a.park(s)
	case crq.ErrorLog:
		a.warn("the client reports an error of its own; its partition's log has it", nil)
		s.madReply(crq.MADSuccess)
	case crq.EnableFastFail:
		if a.state == LoggedIn && !a.bare {
			s.madReply(crq.MADFailed) // it comes before the login
			return
		}
		a.fast = true
		s.madReply(crq.MADSuccess)
	case crq.AdapterInfo, crq.Capabilities, crq.HostConfig:
		n := m.Length()
		if n == 0 || n > len(s.aux) && m.Type() == crq.Capabilities {
			s.madReply(crq.MADFailed)
			return
		}
		s.left = min(n, len(s.aux))
		if m.Type() == crq.AdapterInfo {
			s.left = min(n, crq.InfoLen)
		}
		clear(s.aux[:])
		if m.Type() == crq.HostConfig {
			s.hostConfig()
			return
		}
		s.phase = phBuffer
		s.begin(&s.bop, OpRead, buffer, s.aux[:s.left])
	default:
		s.madReply(crq.MADNotSupported)
	}
}

// park keeps an empty unit, which is answered when the server has something to say
// (nothing is left of that today) or the client sends more than there is room for.
func (a *adapter) park(s *slot) {
	a.mads-- // it stays as long as it likes
	old := a.parked[0]
	copy(a.parked[:], a.parked[1:])
	a.parked[len(a.parked)-1] = s
	if old != nil {
		a.mads++
		old.madReply(crq.MADSuccess)
	}
}

// madStep goes on when the buffer was read or written.
func (s *slot) madStep() {
	a := s.a
	if s.dead() {
		a.put(s)
		return
	}
	if s.bop.Err != nil {
		s.madReply(crq.MADFailed)
		return
	}
	if s.bop.Kind == OpWrite {
		s.madReply(crq.MADSuccess)
		return
	}
	if crq.AsDatagram(s.buf[:]).Type() == crq.AdapterInfo {
		s.adapterInfo()
	} else {
		s.capabilities()
	}
	s.begin(&s.bop, OpWrite, s.addr, s.aux[:s.left])
}

// adapterInfo takes what the client says of itself and says what we are: a server like
// the Virtual I/O Server. Of one that is not AIX's Linux's client asks for no
// capabilities (ibmvscsi.c, adapter_info_rsp).
func (s *slot) adapterInfo() {
	a, i := s.a, (*crq.Info)(s.aux[:crq.InfoLen])
	a.os = i.OS()
	a.info.learn(i)
	clear(i[:])
	i.SetVersion("16.a")
	i.SetPartition("vtgt")
	i.SetMADVersion(1)
	i.SetOS(crq.OSAIX)
	i.SetMaxTransfer(maxTransfer)
}

// capabilities grants what there is. A list that cannot be read is answered as far as it
// could be.
func (s *slot) capabilities() {
	if reserve, err := crq.Grant(s.aux[:s.left]); err == nil {
		s.a.info.reserve.Store(reserve)
	}
}

// hostConfig tells what the server calls the adapter.
func (s *slot) hostConfig() {
	copy(s.aux[:s.left-1], "vtgt "+s.a.conf.Name)
	s.phase = phBuffer
	s.begin(&s.bop, OpWrite, s.addr, s.aux[:s.left])
}

// madReply answers a datagram: its header goes back.
func (s *slot) madReply(st crq.MADStatus) {
	crq.AsDatagram(s.buf[:]).SetStatus(st)
	s.reply(crq.MADLen, crq.OK)
}
