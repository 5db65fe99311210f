package iu

// Policy is what a target agrees to in a login.
type Policy struct {
	// MaxToTarget and MaxToInitiator are the longest units in each direction,
	// bytes; 0: 256.
	MaxToTarget, MaxToInitiator uint32
	// Formats are the buffer formats that the target can do; 0: both.
	Formats Formats
	// Limit is the request limit that the initiator begins with.
	Limit int32
	// Admit, when set, decides by the port identifiers: 0 lets the initiator in.
	Admit func(initiator, target PortID) LoginReason
}

// ChannelState says how far a channel has come.
type ChannelState uint8

// The states.
const (
	AwaitLogin ChannelState = iota
	LoggedIn
	LoggedOut
)

func (s ChannelState) String() string {
	return [...]string{"awaits login", "logged in", "logged out"}[s]
}

// Verdict is what a target does about a unit that came in.
type Verdict uint8

// The verdicts.
const (
	// Serve: an SRP_CMD or SRP_TSK_MGMT of a channel that is logged in.
	Serve Verdict = iota
	// Reply: send Channel.Reply; the channel goes on, in what state it is in now.
	Reply
	// Answered: an SRP_CRED_RSP or SRP_AER_RSP to a request of the target's.
	Answered
	// Logout: the initiator has ended the channel. No response.
	Logout
	// Violation: end the channel.
	Violation
)

// Channel is the target's side of one channel's login (SRP r16a §5.3, §6.2 to §6.6).
// It does no I/O; one goroutine at a time uses it.
type Channel struct {
	Policy Policy
	// Reply is what is to be sent after the verdict of that name.
	Reply []byte
	// The login's, valid in state LoggedIn.
	Initiator, Target PortID
	Flags             uint8

	state ChannelState
	owed  int // responses that the initiator owes
	buf   [LoginRspLen]byte
}

// State is the state.
func (c *Channel) State() ChannelState { return c.state }

// Open lets commands in without a login, for initiators (firmware) that send none.
func (c *Channel) Open() { c.state = LoggedIn }

// Reset starts over: the transport under the channel did.
func (c *Channel) Reset() {
	c.state, c.owed, c.Reply = AwaitLogin, 0, nil
	c.Initiator, c.Target, c.Flags = PortID{}, PortID{}, 0
}

// Asked notes that the target has sent an SRP_CRED_REQ or SRP_AER_REQ.
func (c *Channel) Asked() { c.owed++ }

// Receive judges a unit that the initiator sent.
func (c *Channel) Receive(b []byte) (Verdict, error) {
	t, err := Check(b)
	if err != nil {
		if t == TypeLoginReq && err == ErrShort && len(b) >= 16 && c.state == AwaitLogin {
			return c.reject(Tag(b), RejNoChannel), nil
		}
		return Violation, err
	}
	if uint64(len(b)) > uint64(c.maxToTarget()) {
		if t == TypeLoginReq {
			return c.reject(Tag(b), RejIUTooLarge), nil
		}
		return Violation, ErrField
	}
	switch t {
	case TypeLoginReq:
		return c.login(AsLoginReq(b)), nil
	case TypeCmd, TypeTskMgmt:
		if c.state == LoggedIn {
			return Serve, nil
		}
	case TypeILogout:
		if c.state == LoggedIn {
			c.state = LoggedOut
			return Logout, nil
		}
	case TypeCredRsp, TypeAERRsp:
		if c.state == LoggedIn && c.owed > 0 {
			c.owed--
			return Answered, nil
		}
	}
	return Violation, ErrType
}

func (c *Channel) maxToTarget() uint32 {
	if c.Policy.MaxToTarget == 0 {
		return 256
	}
	return c.Policy.MaxToTarget
}

func (c *Channel) formats() Formats {
	if c.Policy.Formats == 0 {
		return FormatsDirect | FormatsIndirect
	}
	return c.Policy.Formats
}

// login judges a login.
func (c *Channel) login(u *LoginReq) Verdict {
	tag := u.Tag()
	switch {
	case c.state == LoggedIn:
		return c.reject(tag, RejChannelLimit)
	case c.state == LoggedOut:
		return c.reject(tag, RejNoChannel)
	case u.MaxIULen() > c.maxToTarget():
		return c.reject(tag, RejIUTooLarge)
	case u.MaxIULen() < LoginReqLen:
		return c.reject(tag, RejNoChannel)
	case u.Flags()&MultiChannel != 0:
		return c.reject(tag, RejMultiChannel)
	case u.Formats()&^c.formats() != 0 || u.Formats() == 0:
		return c.reject(tag, RejFormats)
	}
	if c.Policy.Admit != nil {
		if r := c.Policy.Admit(u.InitiatorPort(), u.TargetPort()); r != 0 {
			return c.reject(tag, r)
		}
	}
	c.state = LoggedIn
	c.Initiator, c.Target, c.Flags = u.InitiatorPort(), u.TargetPort(), u.Flags()
	r := (*LoginRsp)(c.buf[:])
	r.Reset()
	r.SetTag(tag)
	r.SetDelta(c.Policy.Limit)
	r.SetMaxToTarget(c.maxToTarget())
	n := c.Policy.MaxToInitiator
	if n == 0 {
		n = 256
	}
	r.SetMaxToInitiator(n)
	r.SetFormats(c.formats())
	c.Reply = c.buf[:]
	return Reply
}

// reject makes the rejection; the state stays.
func (c *Channel) reject(tag uint64, why LoginReason) Verdict {
	r := (*LoginRej)(c.buf[:LoginRejLen])
	r.Reset()
	r.SetTag(tag)
	r.SetReason(why)
	r.SetFormats(c.formats())
	c.Reply = c.buf[:LoginRejLen]
	return Reply
}
