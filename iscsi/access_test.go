package iscsi

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/chap"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
	"github.com/vtgt/vtgt/scsi"
)

// safeBuffer is a buffer for logs.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

var (
	oneWay = chap.Account{Credential: chap.Credential{User: "guest", Secret: "guest-has-a-secret"}}
	mutual = chap.Account{Credential: chap.Credential{User: "alice", Secret: "alice-has-a-secret"},
		Mutual: &chap.Credential{User: "disk", Secret: "the-disk-has-another"}}
)

// try logs in and gives what the target answered.
func (r *rig) try(l iscsitest.Login) (pdu.LoginStatus, *iscsitest.Conn) {
	r.t.Helper()
	c, err := iscsitest.Dial(r.addr())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	err = c.Login(l)
	var le *iscsitest.LoginError
	if errors.As(err, &le) {
		return le.Status, c
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return pdu.LoginSuccess, c
}

func (r *rig) setAccess(a *Access) {
	r.t.Helper()
	if err := r.srv.SetAccess(rigTarget, a); err != nil {
		r.t.Fatal(err)
	}
}

func TestCHAPLogin(t *testing.T) {
	log := new(safeBuffer)
	r := newRig(t, rigOptions{quiet: true, config: func(c *Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }})
	before := r.dial(r.login())
	r.setAccess(&Access{CHAP: []chap.Account{oneWay, mutual}})
	disc := r.login()
	disc.Discovery, disc.TargetName = true, ""
	open := disc
	if st, _ := r.try(open); st != pdu.LoginSuccess {
		t.Error("discovery without CHAP:", st)
	}
	r.srv.SetDiscovery([]chap.Account{oneWay})

	for i, tc := range []struct {
		name string
		l    iscsitest.Login
		chap iscsitest.CHAP
		want pdu.LoginStatus
	}{
		{"one-way", r.login(), iscsitest.CHAP{User: "guest", Secret: "guest-has-a-secret"}, 0},
		{"MD5", r.login(), iscsitest.CHAP{User: "guest", Secret: "guest-has-a-secret", Algorithms: "5"}, 0},
		{"SHA1", r.login(), iscsitest.CHAP{User: "guest", Secret: "guest-has-a-secret", Algorithms: "5,6"}, 0},
		{"SHA-256", r.login(), iscsitest.CHAP{User: "guest", Secret: "guest-has-a-secret", Algorithms: "5,6,7"}, 0},
		{"SHA3-256", r.login(), iscsitest.CHAP{User: "guest", Secret: "guest-has-a-secret"}, 0},
		{"base64", r.login(), iscsitest.CHAP{User: "guest", Secret: "guest-has-a-secret", Base64: true}, 0},
		{"None as well", r.login(), iscsitest.CHAP{User: "guest", Secret: "guest-has-a-secret", Methods: "None,CHAP"}, 0},
		{"mutual", r.login(), iscsitest.CHAP{User: "alice", Secret: "alice-has-a-secret", Target: "disk", TargetSecret: "the-disk-has-another"}, 0},
		{"mutual, base64, MD5", r.login(), iscsitest.CHAP{User: "alice", Secret: "alice-has-a-secret", Target: "disk", TargetSecret: "the-disk-has-another", Base64: true, Algorithms: "5"}, 0},
		{"one-way of a mutual user", r.login(), iscsitest.CHAP{User: "alice", Secret: "alice-has-a-secret"}, 0},
		{"discovery", disc, iscsitest.CHAP{User: "guest", Secret: "guest-has-a-secret"}, 0},

		{"wrong secret", r.login(), iscsitest.CHAP{User: "guest", Secret: "guest-has-no-secret"}, pdu.LoginAuthenticationFailure},
		{"wrong user", r.login(), iscsitest.CHAP{User: "Guest", Secret: "guest-has-a-secret"}, pdu.LoginAuthenticationFailure},
		{"mutual without a secret", r.login(), iscsitest.CHAP{User: "guest", Secret: "guest-has-a-secret", TargetSecret: "x"}, pdu.LoginAuthenticationFailure},
		{"no algorithm", r.login(), iscsitest.CHAP{User: "guest", Secret: "guest-has-a-secret", Algorithms: "9"}, pdu.LoginAuthenticationFailure},
		{"None", r.login(), iscsitest.CHAP{Methods: "None"}, pdu.LoginAuthenticationFailure},
		{"other methods", r.login(), iscsitest.CHAP{Methods: "KRB5,SRP"}, pdu.LoginAuthenticationFailure},
		{"discovery as another user", disc, iscsitest.CHAP{User: "alice", Secret: "alice-has-a-secret"}, pdu.LoginAuthenticationFailure},
		{"discovery with None", disc, iscsitest.CHAP{Methods: "None"}, pdu.LoginAuthenticationFailure},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r.t = t
			l := tc.l
			l.CHAP = &tc.chap
			l.ISID = [6]byte{0x80, 1, 0, 0, 0, byte(i)}
			st, c := r.try(l)
			if st != tc.want {
				t.Fatal(st)
			}
			if st != 0 {
				// Nothing but the status: a refusal that names a part would
				// help to guess the others.
				last := c.LoginResponses[len(c.LoginResponses)-1]
				if tc.chap.Methods == "" && len(last.Data) > 0 {
					t.Errorf("the refusal says %q", last.Data)
				}
				return
			}
			if !l.Discovery {
				if k, err := c.Run(&iscsitest.Command{CDB: []byte{0x12, 0, 0, 0, 36, 0}, In: 36}); err != nil || k.Status != 0 {
					t.Error(err)
				}
				for _, s := range r.srv.Sessions() {
					if s.ISID == l.ISID && (s.Params.AuthMethod != "CHAP" || s.Params.AuthUser != tc.chap.User) {
						t.Error(s.Params.AuthMethod, s.Params.AuthUser)
					}
				}
			}
		})
	}
	r.t = t
	// Right into the operational stage, past the security stage; and by the plain
	// way into full feature phase.
	if st, _ := r.try(r.login()); st != pdu.LoginAuthenticationFailure {
		t.Error("without the security stage:", st)
	}
	if st, _ := r.try(disc); st != pdu.LoginAuthenticationFailure {
		t.Error("discovery without the security stage:", st)
	}
	// Who was there stays.
	if err := before.NOP([]byte("there?"), false); err != nil {
		t.Error(err)
	}

	if n := r.srv.Stats().Complaints["authentication"]; n < 9 {
		t.Error("counted", n)
	}
	text := log.String()
	for _, w := range []string{"kind=authentication", "initiator=" + rigInitiator, "peer=127.0.0.1:", "the secret is wrong"} {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in the log:\n%s", w, text)
		}
	}
	if n := strings.Count(text, "kind=authentication"); n > 2*linesPerSecond+5 {
		t.Error("the log is not bounded:", n)
	}
	for _, s := range []string{"guest-has", "alice-has", "the-disk-has"} {
		if strings.Contains(text, s) {
			t.Error("a secret is in the log")
		}
	}
}

// TestCHAPHostile: an initiator with the right secret that breaks the rules of the
// exchange, and one without it that tries what it can.
func TestCHAPHostile(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.setAccess(&Access{CHAP: []chap.Account{mutual}})
	set := func(kvs []pdu.KeyValue, key, value string) []pdu.KeyValue {
		for i := range kvs {
			if kvs[i].Key == key {
				kvs[i].Value = value
			}
		}
		return kvs
	}
	var oldProof []pdu.KeyValue
	for _, tc := range []struct {
		name string
		edit func(step int, kvs []pdu.KeyValue, got map[string]string) []pdu.KeyValue
		want pdu.LoginStatus
	}{
		{"remembered", func(step int, kvs []pdu.KeyValue, _ map[string]string) []pdu.KeyValue {
			if step == 2 {
				oldProof = append([]pdu.KeyValue(nil), kvs...)
			}
			return kvs
		}, pdu.LoginSuccess},
		{"replayed", func(step int, kvs []pdu.KeyValue, _ map[string]string) []pdu.KeyValue {
			if step == 2 {
				return oldProof
			}
			return kvs
		}, pdu.LoginAuthenticationFailure},
		{"reflected", func(step int, kvs []pdu.KeyValue, got map[string]string) []pdu.KeyValue {
			return set(kvs, "CHAP_C", got["CHAP_C"])
		}, pdu.LoginAuthenticationFailure},
		{"truncated", func(step int, kvs []pdu.KeyValue, got map[string]string) []pdu.KeyValue {
			if step == 2 {
				kvs[1].Value = kvs[1].Value[:len(kvs[1].Value)-2]
			}
			return kvs
		}, pdu.LoginAuthenticationFailure},
		{"oversize", func(step int, kvs []pdu.KeyValue, got map[string]string) []pdu.KeyValue {
			return set(kvs, "CHAP_R", "0x"+strings.Repeat("00", 1024))
		}, pdu.LoginAuthenticationFailure},
		{"longer than a value may be", func(step int, kvs []pdu.KeyValue, got map[string]string) []pdu.KeyValue {
			return set(kvs, "CHAP_R", "0x"+strings.Repeat("00", 3000))
		}, pdu.LoginInitiatorError},
		{"name twice", func(step int, kvs []pdu.KeyValue, got map[string]string) []pdu.KeyValue {
			if step == 2 {
				kvs = append(kvs, kvs[0])
			}
			return kvs
		}, pdu.LoginAuthenticationFailure},
		{"proof before the challenge", func(step int, kvs []pdu.KeyValue, got map[string]string) []pdu.KeyValue {
			if step == 1 {
				return oldProof
			}
			return kvs
		}, pdu.LoginAuthenticationFailure},
		{"another method in the middle", func(step int, kvs []pdu.KeyValue, got map[string]string) []pdu.KeyValue {
			if step == 2 {
				return []pdu.KeyValue{{Key: "AuthMethod", Value: "None"}}
			}
			return kvs
		}, pdu.LoginInitiatorError},
	} {
		l := r.login()
		l.CHAP = &iscsitest.CHAP{User: "alice", Secret: "alice-has-a-secret", TargetSecret: "the-disk-has-another", Edit: tc.edit}
		if st, _ := r.try(l); st != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, st, tc.want)
		}
	}

	// Without a proof the way out of the security stage stays shut.
	c, err := iscsitest.Dial(r.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l := r.login()
	text := pdu.AppendTexts(nil, pdu.KeyValue{Key: "InitiatorName", Value: rigInitiator}, pdu.KeyValue{Key: "TargetName", Value: rigTarget}, pdu.KeyValue{Key: "AuthMethod", Value: "CHAP"})
	for range 4 {
		if err := c.Send(l.Request(c, 1, pdu.SecurityNegotiation, pdu.FullFeaturePhase, text)); err != nil {
			t.Fatal(err)
		}
		p, err := c.Recv()
		if err != nil || p.LoginStatus() != 0 || p.Transit() {
			t.Fatal(p, err)
		}
		text = nil
	}
}

func TestAccessLists(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	// A second target that everybody may use.
	const other = "iqn.2026-11.org.vtgt:open"
	tg := scsi.NewTarget(scsi.TargetConfig{Name: "open"})
	port := tg.NewPort(scsi.PortConfig{RelID: 2, Protocol: 5, Name: other + ",t,0x0001", DeviceName: other})
	if err := r.srv.AddTarget(TargetConfig{Name: other, Target: tg, Port: port, TPGT: 1, Access: &Access{}}); err != nil {
		t.Fatal(err)
	}
	here, there := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24")
	before := r.dial(r.login())
	for _, tc := range []struct {
		name string
		a    *Access
		ok   bool
	}{
		{"no lists", nil, true},
		{"own name", &Access{Initiators: []string{rigInitiator}}, true},
		{"a pattern", &Access{Initiators: []string{"iqn.x", "iqn.*.org.vtgt:*"}}, true},
		{"other names", &Access{Initiators: []string{"iqn.x", rigInitiator + "2"}}, false},
		{"own address", &Access{Addresses: []netip.Prefix{there, here}}, true},
		{"other addresses", &Access{Addresses: []netip.Prefix{there}}, false},
		{"own name at another address", &Access{Initiators: []string{rigInitiator}, Addresses: []netip.Prefix{there}}, false},
		{"both", &Access{Initiators: []string{"*"}, Addresses: []netip.Prefix{here}}, true},
	} {
		r.setAccess(tc.a)
		l := r.login()
		l.ISID = [6]byte{0x80, 9}
		l.InitiatorName = strings.ToUpper(l.InitiatorName) // names compare in lower case
		st, _ := r.try(l)
		if want := pdu.LoginStatus(0); tc.ok && st != want || !tc.ok && st != pdu.LoginAuthorizationFailure {
			t.Errorf("%s: %v", tc.name, st)
		}
		l.Discovery, l.TargetName = true, ""
		_, c := r.try(l)
		got, err := c.SendTargets("All")
		if err != nil {
			t.Fatal(err)
		}
		if _, seen := got[rigTarget]; seen != tc.ok || got[other] == nil {
			t.Errorf("%s: %v", tc.name, got)
		}
		one, err := c.SendTargets(rigTarget)
		if err != nil || (one[rigTarget] != nil) != tc.ok {
			t.Errorf("%s: asked by name: %v, %v", tc.name, one, err)
		}
		c.Close()
	}
	if r.srv.Stats().Complaints["authorization"] != 3 {
		t.Error(r.srv.Stats().Complaints)
	}
	// Who is in may see where it is, and goes on.
	r.setAccess(&Access{Initiators: []string{"iqn.x"}})
	if got, err := before.SendTargets(""); err != nil || len(got[rigTarget]) == 0 {
		t.Error(got, err)
	}
	if err := r.srv.SetAccess("iqn.2026-11.org.vtgt:none", nil); err == nil {
		t.Error("a target that is not there")
	}
	// IPv4 in IPv6 is IPv4; zones do not count.
	a := &Access{Addresses: []netip.Prefix{here, netip.MustParsePrefix("fe80::/64")}}
	for s, want := range map[string]bool{"::ffff:127.0.0.1": true, "127.9.9.9": true, "128.0.0.1": false, "fe80::1%eth0": true, "::1": false} {
		if a.allows("x", netip.MustParseAddr(s)) != want {
			t.Error(s)
		}
	}
	if a.allows("x", netip.Addr{}) {
		t.Error("an unknown address")
	}
}

func TestRedirect(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	before := r.dial(r.login())
	for _, permanent := range []bool{false, true} {
		r.setAccess(&Access{Redirect: "192.0.2.7:3260", Permanent: permanent})
		l := r.login()
		l.ISID = [6]byte{0x80, 9}
		st, c := r.try(l)
		want := pdu.LoginTargetMovedTemporarily
		if permanent {
			want = pdu.LoginTargetMovedPermanently
		}
		if st != want || c.Keys["TargetAddress"] != "192.0.2.7:3260" {
			t.Error(st, c.Keys)
		}
	}
	if err := before.NOP(nil, false); err != nil {
		t.Error(err)
	}
	if n := r.srv.Stats().Complaints["login"]; n != 0 {
		t.Error("a redirection is no complaint:", n)
	}
	// The list comes first.
	r.setAccess(&Access{Redirect: "192.0.2.7:3260", Initiators: []string{"iqn.x"}})
	l := r.login()
	l.ISID = [6]byte{0x80, 9}
	if st, c := r.try(l); st != pdu.LoginAuthorizationFailure || c.Keys["TargetAddress"] != "" {
		t.Error(st, c.Keys)
	}
}

// TestIdentityByName: an initiator that takes another ISID at each login stays the
// same initiator port.
func TestIdentityByName(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.setAccess(&Access{NameOnly: true})
	l := r.login()
	first := r.dial(l)
	ids := func() (out []string) {
		for _, x := range r.srv.list(nil) {
			out = append(out, string(x.initiatorID()))
			b := make([]byte, 260)
			if n := x.TransportID(b); n%4 != 0 || b[0] != 0x05 || !bytes.HasPrefix(b[4:], append([]byte(rigInitiator), 0)) {
				t.Errorf("TransportID % x", b[:n])
			}
		}
		return out
	}
	if got := ids(); len(got) != 1 || got[0] != rigInitiator {
		t.Error(got)
	}
	l.ISID = [6]byte{0x80, 2}
	second := r.dial(l)
	if err := first.Closed(tempotest.Patience); err != nil {
		t.Error("the older session:", err)
	}
	if got := ids(); len(got) != 1 {
		t.Error(got)
	}
	// Another name is another initiator, which may not write a disk of one.
	l.InitiatorName += "2"
	if st, _ := r.try(l); st != pdu.LoginAuthorizationFailure {
		t.Error("a second writer of a disk that is not shared:", st)
	}
	if err := second.NOP(nil, false); err != nil {
		t.Error(err)
	}
	// Back to the rule: sessions of one name, told apart by ISID.
	r.setAccess(nil)
	l = r.login()
	for i := range 2 {
		l.ISID = [6]byte{0x80, 3, byte(i)}
		r.dial(l)
	}
	if n := len(r.srv.list(nil)); n != 3 {
		t.Error(n, "sessions")
	}
}

func TestTransportIDByName(t *testing.T) {
	b := bytes.Repeat([]byte{0xff}, 300)
	n := transportID(b, "iqn.1993-08.org.debian:01:abc", [6]byte{1, 2, 3, 4, 5, 6}, true)
	want := append([]byte{0x05, 0, 0, 32}, "iqn.1993-08.org.debian:01:abc\x00\x00\x00"...)
	if !bytes.Equal(b[:n], want) {
		t.Errorf("% x", b[:n])
	}
}

// TestRealClientsCHAP: initiators that nobody here wrote.
func TestRealClientsCHAP(t *testing.T) {
	if testing.Short() {
		t.Skip("runs other programs")
	}
	r := newRig(t, rigOptions{quiet: true})
	r.setAccess(&Access{CHAP: []chap.Account{oneWay, mutual}})
	r.srv.SetDiscovery([]chap.Account{oneWay})
	user := "guest%guest-has-a-secret@"
	out := run(t, "iscsi-ls", "iscsi://"+user+r.addr())
	if !strings.Contains(out, rigTarget) {
		t.Error(out)
	}
	out = run(t, "iscsi-inq", "iscsi://"+user+r.addr()+"/"+rigTarget+"/0")
	if !strings.Contains(out, "Vendor:vtgt") {
		t.Error(out)
	}
	out = run(t, "iscsi-inq", "iscsi://alice%alice-has-a-secret@"+r.addr()+"/"+rigTarget+"/0?target_user=disk&target_password=the-disk-has-another")
	if !strings.Contains(out, "Vendor:vtgt") {
		t.Error(out)
	}
	for _, u := range []string{
		"iscsi://" + r.addr() + "/" + rigTarget + "/0",
		"iscsi://guest%guest-has-no-secret@" + r.addr() + "/" + rigTarget + "/0",
		"iscsi://alice%alice-has-a-secret@" + r.addr() + "/" + rigTarget + "/0?target_user=disk&target_password=the-disk-has-none",
	} {
		if b, err := exec.Command("iscsi-inq", u).CombinedOutput(); err == nil {
			t.Errorf("%s: %s", u, b)
		}
	}
	if b, err := exec.Command("iscsi-ls", "iscsi://"+r.addr()).CombinedOutput(); err == nil && strings.Contains(string(b), rigTarget) {
		t.Errorf("discovery without a secret: %s", b)
	}
	if _, err := exec.LookPath("qemu-img"); err != nil {
		return
	}
	secret := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(secret, []byte("guest-has-a-secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := fmt.Sprintf("driver=iscsi,transport=tcp,portal=%s,target=%s,lun=0,user=guest,password-secret=s0", r.addr(), rigTarget)
	out = run(t, "qemu-img", "info", "--object", "secret,id=s0,file="+secret, "--image-opts", opts)
	if !strings.Contains(out, "64 MiB") {
		t.Error(out)
	}
}
