package iscsi

import (
	"fmt"
	"net/netip"

	"github.com/vtgt/vtgt/internal/glob"
	"github.com/vtgt/vtgt/iscsi/chap"
	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/iscsi/pdu"
	"github.com/vtgt/vtgt/scsi"
)

// Access says who may log in to a target, and how. The zero value lets everybody in.
// A server that has been given one keeps it: it must not be changed any more.
type Access struct {
	// Initiators are patterns of package glob on initiator names, in lower case;
	// Addresses are where initiators come from. Empty: all. What neither allows
	// is refused with status 0202h and does not see the target by SendTargets.
	Initiators []string
	Addresses  []netip.Prefix
	// CHAP are the users one of which an initiator has to be; empty: it need not
	// prove anything.
	CHAP []chap.Account
	// Redirect, where not empty, is the TargetAddress that initiators are sent
	// to instead of being served, "host:port" or "[v6]:port": for good where
	// Permanent (RFC 7143 §11.13.5).
	Redirect  string
	Permanent bool
	// NameOnly makes the initiator name alone the identity of an initiator port,
	// for initiators that take another ISID at each login: persistent
	// reservations then survive that. One name has one session at a time: a
	// further login ends the older session, whatever its ISID.
	NameOnly bool
	// MaxConnections is the most connections of a session; 0: what the server
	// agrees to.
	MaxConnections uint16
}

// allows reports whether the lists have initiator name, coming from peer.
func (a *Access) allows(name string, peer netip.Addr) bool {
	if len(a.Initiators) > 0 && !glob.Any(a.Initiators, name) {
		return false
	}
	if len(a.Addresses) == 0 {
		return true
	}
	peer = peer.Unmap().WithZone("")
	for _, p := range a.Addresses {
		if p.Contains(peer) {
			return true
		}
	}
	return false
}

// SetAccess changes who may log in to target name from now on. Sessions that there
// are go on. nil lets everybody in.
func (s *Server) SetAccess(name string, a *Access) error {
	if n, err := login.NormalizeName(name); err == nil {
		name = n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[name]
	if t == nil {
		return fmt.Errorf("iscsi: no target %s; `vtgt get targets` lists those there are", name)
	}
	t.Access = a
	return nil
}

// SetDiscovery says which CHAP users may see the list of targets, from now on; none:
// everybody may. The server keeps the list.
func (s *Server) SetDiscovery(users []chap.Account) {
	s.mu.Lock()
	s.discoverers = users
	s.mu.Unlock()
}

// access is t's. srv.mu is held.
func (t *target) access() *Access {
	if t.Access == nil {
		return new(Access)
	}
	return t.Access
}

// entrance is one connection's way in: it is asked by the login machine. What was in
// force when the initiator said who it is holds until the login has ended.
type entrance struct {
	srv      *Server
	peer     netip.Addr
	found    bool // by lookup
	users    []chap.Account
	nameOnly bool
	next     login.Authenticator // in place of CHAP, where the server has one
}

// lookup finds the target of a login.
func (e *entrance) lookup(p *login.Params) (login.TargetInfo, pdu.LoginStatus) {
	s := e.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[p.TargetName]
	if t == nil {
		return login.TargetInfo{}, pdu.LoginNotFound
	}
	a := t.access()
	switch {
	case !a.allows(p.InitiatorName, e.peer):
		return login.TargetInfo{}, pdu.LoginAuthorizationFailure
	case a.Redirect != "" && a.Permanent:
		return login.TargetInfo{Redirect: a.Redirect}, pdu.LoginTargetMovedPermanently
	case a.Redirect != "":
		return login.TargetInfo{Redirect: a.Redirect}, pdu.LoginTargetMovedTemporarily
	}
	e.found, e.users, e.nameOnly = true, a.CHAP, a.NameOnly
	info := login.TargetInfo{Alias: t.Alias, TPGT: t.TPGT, MaxConnections: a.MaxConnections}
	var st pdu.LoginStatus
	info.Leading, st = s.further(p, e.nameOnly)
	return info, st
}

// Methods is login.Authenticator's.
func (e *entrance) Methods(p *login.Params) []string {
	if p.Discovery && !e.found {
		e.srv.mu.Lock()
		e.found, e.users = true, e.srv.discoverers
		e.srv.mu.Unlock()
	}
	switch {
	case !e.found:
		return nil
	case len(e.users) > 0:
		return []string{chap.Method}
	case e.next != nil:
		return e.next.Methods(p)
	}
	return []string{"None"}
}

// Start is login.Authenticator's.
func (e *entrance) Start(p *login.Params, method string) (login.Exchange, pdu.LoginStatus) {
	switch {
	case len(e.users) > 0 && method == chap.Method:
		return chap.New(e.users, nil), pdu.LoginSuccess
	case len(e.users) == 0 && e.next != nil:
		return e.next.Start(p, method)
	}
	return nil, pdu.LoginAuthenticationFailure
}

// keyOf tells the session that a login makes or means.
func keyOf(p *login.Params, nameOnly bool) sessionKey {
	k := sessionKey{p.TargetName, p.InitiatorName, p.ISID}
	if nameOnly {
		k.isid = [6]byte{}
	}
	return k
}

// initiatorID names the initiator port to the core.
func (s *session) initiatorID() scsi.InitiatorID {
	if s.info.nameOnly {
		return scsi.InitiatorID(s.params.InitiatorName)
	}
	return scsi.InitiatorID(s.params.InitiatorPort())
}

// refusedLogin is a login that the server has refused.
type refusedLogin struct {
	status            pdu.LoginStatus
	initiator, target string
	err               error
}

func (r *refusedLogin) Error() string { return r.err.Error() }
func (r *refusedLogin) Unwrap() error { return r.err }

// complaint is the kind that a refused login is counted as.
func (r *refusedLogin) complaint() complaint {
	switch r.status {
	case pdu.LoginAuthenticationFailure:
		return badAuth
	case pdu.LoginAuthorizationFailure:
		return notAllowed
	}
	return badLogin
}
