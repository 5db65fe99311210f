package iu

import "testing"

func login(f func(*LoginReq)) []byte {
	var u LoginReq
	u.Reset()
	u.SetTag(goldenTag)
	u.SetMaxIULen(256)
	u.SetFormats(FormatsDirect)
	u.SetInitiatorPort(goldenID)
	if f != nil {
		f(&u)
	}
	return u[:]
}

func TestLogin(t *testing.T) {
	refuse := Policy{Limit: 7, Admit: func(i, _ PortID) LoginReason {
		if i == goldenID {
			return RejNoAssociation
		}
		return 0
	}}
	for _, c := range []struct {
		name   string
		policy Policy
		b      []byte
		want   LoginReason // 0: accepted
	}{
		{"good", Policy{Limit: 7}, login(nil), 0},
		{"both formats", Policy{Limit: 7}, login(func(u *LoginReq) { u.SetFormats(6) }), 0},
		{"smallest unit", Policy{Limit: 7}, login(func(u *LoginReq) { u.SetMaxIULen(64) }), 0},
		{"unit too small", Policy{}, login(func(u *LoginReq) { u.SetMaxIULen(63) }), RejNoChannel},
		{"unit too large", Policy{}, login(func(u *LoginReq) { u.SetMaxIULen(257) }), RejIUTooLarge},
		{"no format", Policy{}, login(func(u *LoginReq) { u.SetFormats(0) }), RejFormats},
		{"unknown format", Policy{}, login(func(u *LoginReq) { u.SetFormats(0x8002) }), RejFormats},
		{"no indirect", Policy{Formats: FormatsDirect}, login(func(u *LoginReq) { u.SetFormats(6) }), RejFormats},
		{"several channels", Policy{}, login(func(u *LoginReq) { u.SetFlags(1) }), RejMultiChannel},
		{"not wanted", refuse, login(nil), RejNoAssociation},
		{"somebody else", refuse, login(func(u *LoginReq) { u.SetInitiatorPort(PortID{}) }), 0},
		{"truncated", Policy{}, login(nil)[:20], RejNoChannel},
		{"too long", Policy{}, append(login(nil), make([]byte, 256)...), RejIUTooLarge},
	} {
		ch := Channel{Policy: c.policy}
		v, err := ch.Receive(c.b)
		if v != Reply || err != nil {
			t.Errorf("%s: %v %v", c.name, v, err)
			continue
		}
		if Tag(ch.Reply) != goldenTag {
			t.Errorf("%s: tag %#x", c.name, Tag(ch.Reply))
		}
		typ, err := Check(ch.Reply)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.want == 0 {
			if typ != TypeLoginRsp || AsLoginRsp(ch.Reply).Delta() != 7 || ch.State() != LoggedIn {
				t.Errorf("%s: %x", c.name, ch.Reply)
			}
			continue
		}
		if typ != TypeLoginRej || AsLoginRej(ch.Reply).Reason() != c.want || ch.State() != AwaitLogin {
			t.Errorf("%s: %x, want %v", c.name, ch.Reply, c.want)
		}
	}
}

func TestChannel(t *testing.T) {
	var ch Channel
	cmd := unhex(t, goldenCmd)
	u := func(typ Type) []byte { return short(typ, nil)() }
	want := func(what string, b []byte, v Verdict, s ChannelState) {
		t.Helper()
		if got, _ := ch.Receive(b); got != v || ch.State() != s {
			t.Errorf("%s: %v, %v; want %v, %v", what, got, ch.State(), v, s)
		}
	}
	want("command before login", cmd, Violation, AwaitLogin)
	want("logout before login", u(TypeILogout), Violation, AwaitLogin)
	want("login", login(nil), Reply, LoggedIn)
	want("command", cmd, Serve, LoggedIn)
	want("second login", login(nil), Reply, LoggedIn)
	if AsLoginRej(ch.Reply).Reason() != RejChannelLimit {
		t.Errorf("second login: %x", ch.Reply)
	}
	want("response to nothing", u(TypeCredRsp), Violation, LoggedIn)
	ch.Asked()
	want("response", u(TypeCredRsp), Answered, LoggedIn)
	want("one too many", u(TypeAERRsp), Violation, LoggedIn)
	want("a target's unit", u(TypeCredReq), Violation, LoggedIn)
	want("logout", u(TypeILogout), Logout, LoggedOut)
	want("command after logout", cmd, Violation, LoggedOut)
	want("login after logout", login(nil), Reply, LoggedOut)
	ch.Reset()
	want("login on a new transport", login(nil), Reply, LoggedIn)
	ch.Reset()
	ch.Open()
	want("firmware", cmd, Serve, LoggedIn)
}
