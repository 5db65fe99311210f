package iscsitest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// Target is what the hostile cases run against.
type Target struct {
	// Dial connects to the portal.
	Dial func() (*Conn, error)
	// Login names both sides; every case may add keys.
	Login Login
	// LUN is a disk of BlockSize (512 where 0) with at least 2 MiB at its start
	// that the cases may overwrite.
	LUN       uint16
	BlockSize int
	// Timeout of each wait; 0: DefaultTimeout.
	Timeout time.Duration
}

// Want is the set of reactions that RFC 7143 allows in a case.
type Want struct {
	Closed  bool               // the connection is closed
	Rejects []pdu.RejectReason // a Reject with one of these reasons
	Failed  bool               // the task ends with a status other than GOOD, or a target failure
	Silent  bool               // no reaction, and the connection lives on
}

func (w Want) String() string {
	var s []string
	for _, r := range w.Rejects {
		s = append(s, fmt.Sprintf("Reject (%v)", r))
	}
	if w.Failed {
		s = append(s, "a failed task")
	}
	if w.Closed {
		s = append(s, "the end of the connection")
	}
	if w.Silent {
		s = append(s, "nothing")
	}
	return strings.Join(s, " or ")
}

// Case is one thing that a hostile initiator does.
type Case struct {
	Name string
	// Section of RFC 7143 that says what has to follow.
	Section string
	Want    Want
	// Keys for the login of the case's session.
	Keys                     []pdu.KeyValue
	HeaderDigest, DataDigest bool
	// Do commits the crime on a session in full feature phase. itt names the
	// guilty PDU; t is its task, nil if it has none.
	Do func(e *Env) (itt uint32, t *Task, err error)
}

// Env is the session of a case.
type Env struct {
	*Conn
	tg *Target
}

func (tg *Target) blockSize() int {
	if tg.BlockSize == 0 {
		return 512
	}
	return tg.BlockSize
}

// Write10 is a WRITE (10) of n blocks at LBA 0, Read10 a READ (10).
func (e *Env) Write10(n int) *Command {
	return &Command{LUN: e.tg.LUN, Out: make([]byte, n*e.tg.blockSize()),
		CDB: []byte{0x2a, 0, 0, 0, 0, 0, 0, byte(n >> 8), byte(n), 0}}
}

// Read10 is a READ (10) of n blocks at LBA 0.
func (e *Env) Read10(n int) *Command {
	return &Command{LUN: e.tg.LUN, In: n * e.tg.blockSize(),
		CDB: []byte{0x28, 0, 0, 0, 0, 0, 0, byte(n >> 8), byte(n), 0}}
}

// TestUnitReady is a TEST UNIT READY.
func (e *Env) TestUnitReady() *Command { return &Command{LUN: e.tg.LUN, CDB: make([]byte, 6)} }

// crime sends a PDU of no task.
func (e *Env) crime(p *PDU, how Corrupt) (uint32, *Task, error) {
	return p.ITT(), nil, e.SendRaw(e.Encode(p, how))
}

// nop makes a plain NOP-Out.
func (e *Env) nop(data []byte) *PDU {
	p := e.request(pdu.OpNOPOut, true)
	p.SetTTT(pdu.ReservedTag)
	p.Data = data
	return p
}

// r2t starts a WRITE of n blocks without any data and waits for its first R2T.
func (e *Env) r2t(n int) (*Task, error) {
	cmd := e.Write10(n)
	cmd.NoImmediateData, cmd.NoUnsolicited, cmd.HoldR2T = true, true, true
	t, err := e.Start(cmd)
	if err != nil {
		return nil, err
	}
	for len(t.R2Ts) == 0 {
		if t.Done {
			return nil, fmt.Errorf("WRITE without data ended with status %#02x", t.Status)
		}
		if err := e.Pump(); err != nil {
			return nil, fmt.Errorf("waiting for an R2T: %w", err)
		}
	}
	return t, nil
}

// solicited asks for an R2T and lets edit spoil the only Data-Out that answers it.
func solicited(edit func(p *PDU)) func(e *Env) (uint32, *Task, error) {
	return func(e *Env) (uint32, *Task, error) {
		t, err := e.r2t(8)
		if err != nil {
			return 0, nil, err
		}
		r := t.R2Ts[0]
		off, n := int(r.BufferOffset()), int(r.DesiredDataTransferLength())
		p := e.DataOut(t, r.TTT(), 0, off, t.c.Out[off:off+n], true)
		edit(p)
		return t.ITT, t, e.Send(p)
	}
}

func started(t *Task, err error) (uint32, *Task, error) {
	if err != nil {
		return 0, nil, err
	}
	return t.ITT, t, nil
}

var (
	anyProtocol = []pdu.RejectReason{pdu.RejectProtocolError, pdu.RejectInvalidField}
	badPDU      = Want{Closed: true, Rejects: anyProtocol}
	badData     = Want{Closed: true, Rejects: anyProtocol, Failed: true}
)

func noR2T(more ...pdu.KeyValue) []pdu.KeyValue {
	return append([]pdu.KeyValue{{Key: "InitialR2T", Value: "Yes"}}, more...)
}

// Cases are the crimes that every target has to stand.
func Cases() []Case {
	return []Case{
		{Name: "bad header digest", Section: "7.7", HeaderDigest: true,
			// Discarding one PDU would need its lengths, which are not to be
			// trusted; closing is the other thing allowed.
			Want: Want{Closed: true, Silent: true},
			Do: func(e *Env) (uint32, *Task, error) {
				return e.crime(e.nop(nil), BadHeaderDigest)
			}},
		{Name: "bad data digest of a NOP-Out", Section: "7.8", DataDigest: true,
			Want: Want{Rejects: []pdu.RejectReason{pdu.RejectDataDigest}, Closed: true},
			Do: func(e *Env) (uint32, *Task, error) {
				return e.crime(e.nop([]byte("hello")), BadDataDigest)
			}},
		{Name: "bad data digest of a solicited Data-Out", Section: "7.8", DataDigest: true, Keys: noR2T(),
			Want: Want{Rejects: []pdu.RejectReason{pdu.RejectDataDigest}, Failed: true, Closed: true},
			Do: func(e *Env) (uint32, *Task, error) {
				t, err := e.r2t(8)
				if err != nil {
					return 0, nil, err
				}
				p := e.DataOut(t, t.R2Ts[0].TTT(), 0, 0, t.c.Out, true)
				return t.ITT, t, e.SendRaw(e.Encode(p, BadDataDigest))
			}},
		{Name: "bad data digest of immediate data", Section: "7.8", DataDigest: true,
			Want: Want{Rejects: []pdu.RejectReason{pdu.RejectDataDigest}, Failed: true, Closed: true},
			Do: func(e *Env) (uint32, *Task, error) {
				cmd := e.Write10(1)
				e.Hold()
				t, err := e.Start(cmd)
				if err != nil {
					return 0, nil, err
				}
				e.held[len(e.held)-1] ^= 0x40
				return t.ITT, t, e.Release(0, 0)
			}},
		{Name: "DataSegmentLength above MaxRecvDataSegmentLength", Section: "13.12", Want: badPDU,
			Do: func(e *Env) (uint32, *Task, error) {
				return e.crime(e.nop(make([]byte, e.Params.MaxXmit+4)), 0)
			}},
		{Name: "DataSegmentLength of 16 MiB and no data", Section: "13.12",
			Want: Want{Closed: true, Rejects: anyProtocol},
			Do: func(e *Env) (uint32, *Task, error) {
				p := e.nop(nil)
				p.SetDataSegmentLength(pdu.MaxDataSegmentLength)
				return e.crime(p, KeepLength)
			}},
		{Name: "unknown initiator opcode", Section: "11.17.1",
			Want: Want{Closed: true, Rejects: []pdu.RejectReason{pdu.RejectUnsupported, pdu.RejectProtocolError, pdu.RejectInvalidField}},
			Do: func(e *Env) (uint32, *Task, error) {
				p := e.nop(nil)
				p.SetOpcode(0x1c)
				return e.crime(p, 0)
			}},
		{Name: "a target's opcode", Section: "11.2.1.2",
			Want: Want{Closed: true, Rejects: []pdu.RejectReason{pdu.RejectUnsupported, pdu.RejectProtocolError, pdu.RejectInvalidField}},
			Do: func(e *Env) (uint32, *Task, error) {
				p := e.nop(nil)
				p.SetOpcode(pdu.OpSCSIResponse)
				return e.crime(p, 0)
			}},
		{Name: "Login Request in full feature phase", Section: "6.3", Want: badPDU,
			Do: func(e *Env) (uint32, *Task, error) {
				l := e.tg.Login
				return e.crime(l.Request(e.Conn, e.NextITT(), pdu.OperationalNegotiation, pdu.FullFeaturePhase, nil), 0)
			}},
		{Name: "SNACK at ErrorRecoveryLevel 0", Section: "11.16",
			Want: Want{Closed: true, Rejects: []pdu.RejectReason{pdu.RejectSNACK, pdu.RejectProtocolError, pdu.RejectUnsupported}},
			Do: func(e *Env) (uint32, *Task, error) {
				p := e.request(pdu.OpSNACK, true)
				p.SetSNACKType(pdu.SNACKStatus)
				p.SetITT(pdu.ReservedTag)
				p.SetTTT(pdu.ReservedTag)
				return e.crime(p, 0)
			}},
		{Name: "CmdSN above the window", Section: "4.2.2.1", Want: Want{Silent: true},
			Do: func(e *Env) (uint32, *Task, error) {
				cmd := e.TestUnitReady()
				cmd.Edit = func(p *PDU) { p.SetCmdSN(e.MaxCmdSN + 100); e.CmdSN-- }
				return started(e.Start(cmd))
			}},
		{Name: "CmdSN below the window", Section: "4.2.2.1", Want: Want{Silent: true},
			Do: func(e *Env) (uint32, *Task, error) {
				cmd := e.TestUnitReady()
				cmd.Edit = func(p *PDU) { p.SetCmdSN(p.CmdSN() - 1); e.CmdSN-- }
				return started(e.Start(cmd))
			}},
		{Name: "task tag of a task in progress", Section: "11.2.1.8", Keys: noR2T(),
			Want: Want{Closed: true, Failed: true, Rejects: append([]pdu.RejectReason{pdu.RejectTaskInProgress}, anyProtocol...)},
			Do: func(e *Env) (uint32, *Task, error) {
				t, err := e.r2t(8)
				if err != nil {
					return 0, nil, err
				}
				cmd := e.TestUnitReady()
				cmd.Edit = func(p *PDU) { p.SetITT(t.ITT) }
				return started(e.Start(cmd))
			}},
		{Name: "Data-Out without a task", Section: "11.7",
			Want: Want{Closed: true, Silent: true, Rejects: anyProtocol},
			Do: func(e *Env) (uint32, *Task, error) {
				t := &Task{ITT: e.NextITT(), lun: EncodeLUN(e.tg.LUN)}
				return e.crime(e.DataOut(t, 0x1234, 0, 0, make([]byte, 512), true), 0)
			}},
		{Name: "Data-Out with a wrong target transfer tag", Section: "11.7.4", Keys: noR2T(), Want: badData,
			Do: solicited(func(p *PDU) { p.SetTTT(p.TTT() ^ 0x5555) })},
		{Name: "Data-Out with a wrong DataSN", Section: "7.9", Keys: noR2T(), Want: badData,
			Do: solicited(func(p *PDU) { p.SetDataSN(7) })},
		{Name: "Data-Out with a buffer offset beyond the R2T", Section: "11.7.5", Keys: noR2T(), Want: badData,
			Do: solicited(func(p *PDU) { p.SetBufferOffset(p.BufferOffset() + 1<<20) })},
		{Name: "Data-Out with more than the R2T asks for", Section: "11.8.6", Keys: noR2T(), Want: badData,
			Do: solicited(func(p *PDU) { p.Data = append(p.Data, make([]byte, 512)...) })},
		{Name: "Data-Out with less than the R2T asks for and F", Section: "11.7.1", Keys: noR2T(), Want: badData,
			Do: solicited(func(p *PDU) { p.Data = p.Data[:len(p.Data)/2] })},
		{Name: "unsolicited data though InitialR2T is Yes", Section: "13.10",
			Keys: noR2T(pdu.KeyValue{Key: "ImmediateData", Value: "No"}), Want: badData,
			Do: func(e *Env) (uint32, *Task, error) {
				cmd := e.Write10(8)
				cmd.NoImmediateData, cmd.NoUnsolicited, cmd.HoldR2T = true, true, true
				cmd.Edit = func(p *PDU) { p.SetFinal(false) }
				t, err := e.Start(cmd)
				if err != nil {
					return 0, nil, err
				}
				return t.ITT, t, e.Send(e.DataOut(t, pdu.ReservedTag, 0, 0, cmd.Out, true))
			}},
		{Name: "immediate data though ImmediateData is No", Section: "13.11",
			Keys: []pdu.KeyValue{{Key: "ImmediateData", Value: "No"}}, Want: badData,
			Do: func(e *Env) (uint32, *Task, error) {
				cmd := e.Write10(8)
				cmd.HoldR2T = true
				cmd.Edit = func(p *PDU) { p.Data = cmd.Out; p.SetFinal(true) }
				cmd.NoUnsolicited = true
				return started(e.Start(cmd))
			}},
		{Name: "more immediate data than FirstBurstLength", Section: "13.14",
			Keys: []pdu.KeyValue{{Key: "FirstBurstLength", Value: "512"}}, Want: badData,
			Do: func(e *Env) (uint32, *Task, error) {
				cmd := e.Write10(8)
				cmd.HoldR2T, cmd.NoUnsolicited = true, true
				cmd.Edit = func(p *PDU) { p.Data = cmd.Out[:1024] }
				return started(e.Start(cmd))
			}},
		{Name: "more immediate data than the expected length", Section: "11.3.4", Want: badData,
			Do: func(e *Env) (uint32, *Task, error) {
				cmd := e.Write10(1)
				cmd.HoldR2T, cmd.NoUnsolicited = true, true
				cmd.Edit = func(p *PDU) { p.Data = make([]byte, 2*len(cmd.Out)) }
				return started(e.Start(cmd))
			}},
		{Name: "AHS longer than TotalAHSLength", Section: "11.2.2", Want: badPDU.orFailed(),
			Do: func(e *Env) (uint32, *Task, error) {
				cmd := e.TestUnitReady()
				cmd.Edit = func(p *PDU) { p.AHS = []byte{0xff, 0xff, 1, 0} }
				return started(e.Start(cmd))
			}},
		{Name: "unknown AHS type", Section: "11.2.2.1", Want: badPDU.orFailed(),
			Do: func(e *Env) (uint32, *Task, error) {
				cmd := e.TestUnitReady()
				cmd.Edit = func(p *PDU) { p.AHS = []byte{0, 1, 0x3f, 0} }
				return started(e.Start(cmd))
			}},
		{Name: "Text Request with F and C", Section: "11.10.2", Want: badPDU,
			Do: func(e *Env) (uint32, *Task, error) {
				p := e.request(pdu.OpTextRequest, false)
				p.SetFinal(true)
				p.SetContinue(true)
				p.SetTTT(pdu.ReservedTag)
				p.Data = pdu.AppendText(nil, "SendTargets", "")
				return e.crime(p, 0)
			}},
		{Name: "Text Request that continues nothing", Section: "11.10.4", Want: badPDU,
			Do: func(e *Env) (uint32, *Task, error) {
				p := e.request(pdu.OpTextRequest, false)
				p.SetFinal(true)
				p.SetTTT(0x77)
				return e.crime(p, 0)
			}},
		{Name: "digest negotiation in full feature phase", Section: "13.1", Want: badPDU,
			Do: func(e *Env) (uint32, *Task, error) {
				p := e.request(pdu.OpTextRequest, false)
				p.SetFinal(true)
				p.SetTTT(pdu.ReservedTag)
				p.Data = pdu.AppendText(nil, "HeaderDigest", "None")
				return e.crime(p, 0)
			}},
	}
}

func (w Want) orFailed() Want { w.Failed = true; return w }

// Run commits a case's crime on a session of its own and returns an error that says
// what the target did, where that is not what the standard allows.
func (tg *Target) Run(cs Case) error {
	timeout := tg.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	c, err := tg.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	c.Timeout = timeout
	l := tg.Login
	l.ISID = [6]byte{0x80, 0, 2, 0, 0, 1}
	l.Keys = append(slices.Clone(l.Keys), cs.Keys...)
	l.HeaderDigest, l.DataDigest = cs.HeaderDigest, cs.DataDigest
	if err := c.Login(l); err != nil {
		return err
	}
	e := &Env{c, tg}
	// The first command of a nexus may be answered with a unit attention.
	for range 3 {
		t, err := c.Run(e.TestUnitReady())
		if err != nil {
			return fmt.Errorf("before the crime: %w", err)
		}
		if t.Status == 0 {
			break
		}
	}
	itt, t, err := cs.Do(e)
	if err != nil && !IsClosed(err) {
		return err
	}
	got, err := e.outcome(itt, t, cs.Want.Silent)
	if err != nil {
		return fmt.Errorf("%w (wanted: %v)", err, cs.Want)
	}
	switch {
	case got.Closed && cs.Want.Closed, got.Silent && cs.Want.Silent, got.Failed && cs.Want.Failed:
		return nil
	case len(got.Rejects) > 0 && slices.Contains(cs.Want.Rejects, got.Rejects[0]):
		return nil
	}
	return fmt.Errorf("the target's reaction is %v; section %s allows %v", got, cs.Section, cs.Want)
}

// errGood is a crime that was taken for an honest command.
var errGood = errors.New("the task ended with GOOD")

// outcome waits for the reaction to itt. A ping behind the crime shows that there is
// none, where none is allowed.
func (e *Env) outcome(itt uint32, t *Task, silent bool) (Want, error) {
	ping := e.nop(nil)
	if err := e.Send(ping); err != nil {
		return Want{Closed: true}, nil
	}
	pinged := false
	for {
		if t != nil && t.Done {
			if t.Status == 0 && t.Response == 0 {
				return Want{}, errGood
			}
			return Want{Failed: true}, nil
		}
		for _, r := range e.Rejects {
			if h := (*pdu.BHS)(r.Data[:pdu.BHSLen]); h.ITT() == itt {
				return Want{Rejects: []pdu.RejectReason{r.RejectReason()}}, nil
			}
		}
		if pinged && silent {
			return Want{Silent: true}, nil
		}
		p, err := e.Recv()
		switch {
		case IsTimeout(err) && pinged:
			return Want{Silent: true}, nil
		case IsTimeout(err):
			return Want{}, errors.New("the target neither closes the connection nor answers a ping")
		case IsClosed(err):
			return Want{Closed: true}, nil
		case err != nil:
			return Want{}, err
		}
		if p.Opcode() == pdu.OpNOPIn && p.ITT() == ping.ITT() {
			pinged = true
			if err := e.sequence(p); err != nil {
				return Want{}, err
			}
			continue
		}
		if err := e.Dispatch(p); err != nil {
			return Want{}, err
		}
	}
}

// Hostile runs all cases ([LoginCases], [Cases]), each on a connection of its own, and
// checks after each one that a bystander's session is unharmed.
func Hostile(t *testing.T, tg *Target) {
	by, err := tg.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer by.Close()
	l := tg.Login
	l.ISID = [6]byte{0x80, 0, 3, 0, 0, 1}
	if err := by.Login(l); err != nil {
		t.Fatal(err)
	}
	e := &Env{by, tg}
	if _, err := by.Run(e.TestUnitReady()); err != nil {
		t.Fatal(err)
	}
	type crime struct {
		name string
		run  func() error
	}
	var crimes []crime
	for _, cs := range LoginCases() {
		crimes = append(crimes, crime{"login: " + cs.Name, func() error { return tg.RunLogin(cs) }})
	}
	for _, cs := range Cases() {
		crimes = append(crimes, crime{cs.Name, func() error { return tg.Run(cs) }})
	}
	for _, cs := range crimes {
		t.Run(strings.ReplaceAll(cs.name, " ", "-"), func(t *testing.T) {
			if err := cs.run(); err != nil {
				t.Errorf("%v", err)
			}
			r, err := by.Run(e.TestUnitReady())
			if err != nil {
				t.Fatalf("the bystander: %v", err)
			}
			if r.Status != 0 {
				key, asc := Sense(r.Sense)
				t.Errorf("the bystander's TEST UNIT READY: status %#02x, sense %x/%04x", r.Status, key, asc)
			}
		})
	}
}
