package vspheretest

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// session is a host logged in to a target by one portal.
type session struct {
	target, address string
	number          int // the target's number on the adapter

	mu   sync.Mutex
	conn *iscsitest.Conn
	dead bool
	stop chan struct{}
}

// keepAlive is how often an idle session is used: a target asks for life after 15 s.
const keepAlive = 3 * time.Second

// pump answers the target's pings.
func (x *session) pump() {
	t := time.NewTicker(keepAlive)
	defer t.Stop()
	for {
		select {
		case <-x.stop:
			return
		case <-t.C:
		}
		x.mu.Lock()
		if !x.dead && x.conn.NOP(nil, true) != nil {
			x.dead = true
			x.conn.Close()
		}
		x.mu.Unlock()
	}
}

// end logs out.
func (x *session) end() {
	close(x.stop)
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.dead {
		_, _ = x.conn.Logout(pdu.LogoutCloseSession, 0)
		x.conn.Close()
		x.dead = true
	}
}

// run runs a command to GOOD status; unit attentions are read away.
func (x *session) run(c iscsitest.Command) ([]byte, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.dead {
		return nil, fmt.Errorf("the session has ended")
	}
	for try := 0; ; try++ {
		cmd := c
		t, err := x.conn.Run(&cmd)
		if err != nil {
			x.dead = true
			x.conn.Close()
			return nil, err
		}
		if t.Status == 0 {
			return t.In, nil
		}
		key, asc := iscsitest.Sense(t.Sense)
		if key != 6 || try > 8 {
			return nil, fmt.Errorf("LUN %d: status %02x, sense %x/%04x", c.LUN, t.Status, key, asc)
		}
	}
}

// credentials are those of a, or what the level above has.
func credentials(a *types.HostInternetScsiHbaAuthenticationProperties, above *iscsitest.CHAP) *iscsitest.CHAP {
	switch {
	case a == nil || a.ChapInherited != nil && *a.ChapInherited:
		return above
	case !a.ChapAuthEnabled:
		return nil
	}
	c := &iscsitest.CHAP{User: a.ChapName, Secret: a.ChapSecret}
	switch types.HostInternetScsiHbaChapAuthenticationType(a.ChapAuthenticationType) {
	case types.HostInternetScsiHbaChapAuthenticationTypeChapPreferred:
		c.Methods = "CHAP,None"
	case types.HostInternetScsiHbaChapAuthenticationTypeChapDiscouraged:
		c.Methods = "None,CHAP"
	case types.HostInternetScsiHbaChapAuthenticationTypeChapProhibited:
		return nil
	}
	if a.MutualChapAuthenticationType == string(types.HostInternetScsiHbaChapAuthenticationTypeChapRequired) {
		c.Target, c.TargetSecret = a.MutualChapName, a.MutualChapSecret
	}
	return c
}

func address(host string, p int32) string { return net.JoinHostPort(host, strconv.Itoa(int(port(p)))) }

// rescan discovers, logs in to what is configured and out of what is not, and looks
// for LUNs. What fails is not there: a host's rescan tells nobody why.
func (s *storage) rescan() {
	hba := credentials(&s.auth, nil)
	for i := range s.send {
		t := &s.send[i]
		auth := credentials(t.AuthenticationProperties, hba)
		for iqn, addrs := range s.discover(address(t.Address, t.Port), auth) {
			for _, a := range addrs {
				h, p, _ := net.SplitHostPort(a)
				n, err := strconv.ParseUint(p, 10, 16)
				if err != nil {
					continue
				}
				st := types.HostInternetScsiHbaStaticTarget{
					Address: h, Port: int32(n), IScsiName: iqn,
					DiscoveryMethod: string(types.HostInternetScsiHbaStaticTargetTargetDiscoveryMethodSendTargetMethod),
					Parent:          address(t.Address, t.Port),
				}
				if s.findStatic(st) < 0 {
					s.static = append(slices.Clone(s.static), st)
				}
			}
		}
	}
	wanted := map[string]bool{}
	for i := range s.static {
		t := &s.static[i]
		above := hba
		for j := range s.send {
			if address(s.send[j].Address, s.send[j].Port) == t.Parent {
				above = credentials(s.send[j].AuthenticationProperties, hba)
			}
		}
		addr := address(t.Address, t.Port)
		key := addr + " " + t.IScsiName
		wanted[key] = true
		s.mu.Lock()
		x := s.sessions[key]
		s.mu.Unlock()
		if x != nil {
			if _, err := x.run(iscsitest.Command{CDB: make([]byte, 6)}); err == nil || !x.isDead() {
				continue
			}
			s.drop(key)
		}
		x, err := s.login(addr, t.IScsiName, credentials(t.AuthenticationProperties, above))
		if err != nil {
			continue
		}
		s.mu.Lock()
		s.sessions[key] = x
		s.mu.Unlock()
	}
	s.mu.Lock()
	var gone []string
	for key := range s.sessions {
		if !wanted[key] {
			gone = append(gone, key)
		}
	}
	s.mu.Unlock()
	for _, key := range gone {
		s.drop(key)
	}
	s.probe()
	s.forget()
}

func (x *session) isDead() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.dead
}

func (s *storage) drop(key string) {
	s.mu.Lock()
	x := s.sessions[key]
	delete(s.sessions, key)
	s.mu.Unlock()
	if x != nil {
		x.end()
	}
}

func (s *storage) closeAll() {
	s.mu.Lock()
	keys := make([]string, 0, len(s.sessions))
	for k := range s.sessions {
		keys = append(keys, k)
	}
	s.mu.Unlock()
	for _, k := range keys {
		s.drop(k)
	}
}

// discover asks a portal for its targets; none where it cannot.
func (s *storage) discover(addr string, auth *iscsitest.CHAP) map[string][]string {
	c, err := iscsitest.Dial(addr)
	if err != nil {
		return nil
	}
	defer c.Close()
	if err := c.Login(iscsitest.Login{InitiatorName: s.iqn, Discovery: true, CHAP: auth}); err != nil {
		return nil
	}
	got, err := c.SendTargets("All")
	if err != nil {
		return nil
	}
	out := map[string][]string{}
	for iqn, addrs := range got {
		for _, a := range addrs {
			a, _, _ = strings.Cut(a, ",") // the portal group
			out[iqn] = append(out[iqn], a)
		}
	}
	_, _ = c.Logout(pdu.LogoutCloseSession, 0)
	return out
}

func (s *storage) login(addr, iqn string, auth *iscsitest.CHAP) (*session, error) {
	c, err := iscsitest.Dial(addr)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	n := 0
	for slices.ContainsFunc(s.all(), func(x *session) bool { return x.number == n }) {
		n++
	}
	s.mu.Unlock()
	isid := [6]byte{0, 2, 0x3d, 0, 0, byte(n + 1)}
	if err := c.Login(iscsitest.Login{InitiatorName: s.iqn, TargetName: iqn, CHAP: auth, ISID: isid}); err != nil {
		c.Close()
		return nil, err
	}
	x := &session{target: iqn, address: addr, number: n, conn: c, stop: make(chan struct{})}
	go x.pump()
	return x, nil
}

// all are the sessions; s.mu is held.
func (s *storage) all() (out []*session) {
	for _, x := range s.sessions {
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b *session) int { return a.number - b.number })
	return out
}

// probe looks at the LUNs of all sessions.
func (s *storage) probe() {
	s.mu.Lock()
	ss := s.all()
	s.mu.Unlock()
	var found []*device
	for _, x := range ss {
		b, err := x.run(iscsitest.Command{CDB: []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0}, In: 0x2000})
		if err != nil || len(b) < 8 {
			continue
		}
		for i := 8; i+8 <= len(b) && i < 8+int(binary.BigEndian.Uint32(b)); i += 8 {
			lun := binary.BigEndian.Uint16(b[i:]) & 0x3fff
			d, err := x.look(lun)
			if err != nil {
				continue
			}
			if j := slices.IndexFunc(found, func(o *device) bool { return o.name == d.name }); j >= 0 {
				found[j].paths = append(found[j].paths, d.paths...)
			} else {
				found = append(found, d)
			}
		}
	}
	s.devices = found
}
