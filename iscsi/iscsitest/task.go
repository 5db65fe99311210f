package iscsitest

import (
	"encoding/binary"
	"fmt"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// Command is a SCSI command to be run.
type Command struct {
	LUN uint16 // flat or peripheral addressing; RawLUN where not zero
	// RawLUN is the eight bytes of the LUN field.
	RawLUN [8]byte
	CDB    []byte
	Attr   pdu.TaskAttr // 0: simple
	// In is how many bytes are expected from the target, Out what is sent to it.
	In  int
	Out []byte
	// Expect is the Expected Data Transfer Length where it is to differ from In
	// or len(Out), for residuals; -1: 0.
	Expect int
	// Immediate sets the I bit.
	Immediate bool
	// NoImmediateData sends no data in the command itself, NoUnsolicited none
	// before the first R2T.
	NoImmediateData, NoUnsolicited bool
	// Segment is the length of data segments sent, bytes; 0: as long as allowed.
	Segment int
	// Edit changes the Command PDU before it is sent.
	Edit func(p *PDU)
	// EditData changes a Data-Out PDU before it is sent; false: it is not sent.
	EditData func(p *PDU) bool
	// HoldR2T leaves R2Ts unanswered.
	HoldR2T bool
}

// Task is a command under way or at its end.
type Task struct {
	ITT   uint32
	CmdSN uint32
	Done  bool

	// Response, Status and Sense are the outcome, valid when Done.
	Response, Status uint8
	Sense            []byte
	// In is what came, as long as the highest byte that came.
	In []byte
	// Residual and Count are the residual flags and the residual count.
	Residual pdu.Residual
	Count    uint32
	// Rejected is the Reject that named this task, if any.
	Rejected *PDU
	// R2Ts are those that came. DataIns counts Data-In PDUs.
	R2Ts    []*PDU
	DataIns int
	// PhaseCollapse: the status came with a Data-In.
	PhaseCollapse bool

	c       *Command
	expect  int
	lun     [8]byte
	dataSN  uint32
	r2tSN   uint32
	lastF   bool
	anyData bool
}

// EncodeLUN is the LUN field of number n.
func EncodeLUN(n uint16) (l [8]byte) {
	if n > 255 {
		n |= 0x4000
	}
	binary.BigEndian.PutUint16(l[:], n)
	return l
}

// Start sends a command with its immediate and unsolicited data, and returns without
// waiting for anything but the command window.
func (c *Conn) Start(cmd *Command) (*Task, error) {
	sn, err := c.awaitCmdSN(cmd.Immediate)
	if err != nil {
		return nil, err
	}
	t := &Task{ITT: c.NextITT(), CmdSN: sn, c: cmd, lun: cmd.RawLUN}
	if t.lun == [8]byte{} {
		t.lun = EncodeLUN(cmd.LUN)
	}
	t.expect = max(cmd.In, len(cmd.Out))
	switch {
	case cmd.Expect > 0:
		t.expect = cmd.Expect
	case cmd.Expect < 0:
		t.expect = 0
	}
	p := new(PDU)
	p.Reset(pdu.OpSCSICommand)
	p.SetImmediate(cmd.Immediate)
	p.SetLUN(t.lun)
	p.SetITT(t.ITT)
	p.SetCmdSN(sn)
	p.SetExpStatSN(c.ExpStatSN)
	p.SetExpectedDataTransferLength(uint32(t.expect))
	p.SetRead(cmd.In > 0)
	p.SetWrite(len(cmd.Out) > 0)
	p.SetAttr(pdu.AttrSimple)
	if cmd.Attr != 0 {
		p.SetAttr(cmd.Attr)
	}
	p.SetCDB(cmd.CDB)
	p.AHS = pdu.AppendExtendedCDB(nil, cmd.CDB)

	out := cmd.Out[:min(len(cmd.Out), t.expect)]
	first := min(len(out), int(c.Params.FirstBurstLength))
	imm := 0
	if c.Params.ImmediateData && !cmd.NoImmediateData {
		imm = min(first, c.segment(cmd))
	}
	p.Data = out[:imm]
	unsolicited := !c.Params.InitialR2T && !cmd.NoUnsolicited && imm < first
	p.SetFinal(!unsolicited)
	if cmd.Edit != nil {
		cmd.Edit(p)
	}
	c.tasks[p.ITT()] = t
	t.ITT = p.ITT()
	if err := c.Send(p); err != nil {
		return nil, err
	}
	if unsolicited {
		return t, c.sendData(t, pdu.ReservedTag, imm, first-imm)
	}
	return t, nil
}

func (c *Conn) segment(cmd *Command) int {
	n := int(c.Params.MaxXmit)
	if cmd.Segment > 0 {
		n = min(n, cmd.Segment)
	}
	return n
}

// sendData sends one sequence of Data-Out PDUs.
func (c *Conn) sendData(t *Task, ttt uint32, off, n int) error {
	if off+n > len(t.c.Out) {
		return wrong("data %d..%d of %d wanted", off, off+n, len(t.c.Out))
	}
	for sn := uint32(0); ; sn++ {
		k := min(n, c.segment(t.c))
		p := c.DataOut(t, ttt, sn, off, t.c.Out[off:off+k], k == n)
		if t.c.EditData == nil || t.c.EditData(p) {
			if err := c.Send(p); err != nil {
				return err
			}
		}
		off, n = off+k, n-k
		if n == 0 {
			return nil
		}
	}
}

// DataOut makes a Data-Out PDU.
func (c *Conn) DataOut(t *Task, ttt, dataSN uint32, off int, data []byte, final bool) *PDU {
	p := new(PDU)
	p.Reset(pdu.OpDataOut)
	p.SetFinal(final)
	if ttt != pdu.ReservedTag {
		p.SetLUN(t.lun)
	}
	p.SetITT(t.ITT)
	p.SetTTT(ttt)
	p.SetExpStatSN(c.ExpStatSN)
	p.SetDataSN(dataSN)
	p.SetBufferOffset(uint32(off))
	p.Data = data
	return p
}

// AnswerR2T sends the data that r wants.
func (c *Conn) AnswerR2T(t *Task, r *PDU) error {
	return c.sendData(t, r.TTT(), int(r.BufferOffset()), int(r.DesiredDataTransferLength()))
}

// Wait goes on until t has ended (or was rejected).
func (c *Conn) Wait(t *Task) error {
	for !t.Done && t.Rejected == nil {
		if err := c.Pump(); err != nil {
			return err
		}
	}
	return nil
}

// Run runs a command to its end. A Reject is an error; a SCSI status is not.
func (c *Conn) Run(cmd *Command) (*Task, error) {
	t, err := c.Start(cmd)
	if err != nil {
		return nil, err
	}
	if err := c.Wait(t); err != nil {
		return t, err
	}
	if t.Rejected != nil {
		return t, fmt.Errorf("the command was rejected: %v", t.Rejected.RejectReason())
	}
	return t, nil
}

// Pump reads one PDU and does what it asks for.
func (c *Conn) Pump() error {
	p, err := c.Recv()
	if err != nil {
		return err
	}
	return c.Dispatch(p)
}

// Dispatch does what a PDU that Recv returned asks for.
func (c *Conn) Dispatch(p *PDU) error {
	if err := c.sequence(p); err != nil {
		return err
	}
	switch p.Opcode() {
	case pdu.OpReject:
		c.Rejects = append(c.Rejects, p)
		if len(p.Data) >= pdu.BHSLen {
			h := (*pdu.BHS)(p.Data[:pdu.BHSLen])
			if t := c.tasks[h.ITT()]; t != nil {
				t.Rejected = p
			}
		} else {
			return wrong("Reject with %d bytes of the rejected header", len(p.Data))
		}
		return nil
	case pdu.OpAsync:
		c.Asyncs = append(c.Asyncs, p)
		return nil
	case pdu.OpNOPIn:
		if c.loose[p.ITT()] {
			delete(c.loose, p.ITT())
			return nil
		}
		if p.ITT() != pdu.ReservedTag {
			break
		}
		c.Pings = append(c.Pings, p)
		if p.TTT() != pdu.ReservedTag && !c.MutePings {
			return c.answerPing(p)
		}
		return nil
	}
	t := c.tasks[p.ITT()]
	if t == nil {
		return wrong("%v belongs to no task", p)
	}
	switch p.Opcode() {
	case pdu.OpDataIn:
		return c.dataIn(t, p)
	case pdu.OpR2T:
		return c.r2t(t, p)
	case pdu.OpSCSIResponse:
		return c.response(t, p)
	}
	return wrong("unexpected %v", p)
}

// sequence checks and takes the sequence numbers of a target PDU.
func (c *Conn) sequence(p *PDU) error {
	// MaxCmdSN and ExpCmdSN never go back, and the window never is negative.
	if pdu.SNLess(p.MaxCmdSN(), p.ExpCmdSN()-1) {
		return wrong("%v has MaxCmdSN %d below ExpCmdSN-1 %d", p, p.MaxCmdSN(), p.ExpCmdSN()-1)
	}
	if pdu.SNLess(c.ExpCmdSN, p.ExpCmdSN()) {
		c.ExpCmdSN = p.ExpCmdSN()
	}
	if pdu.SNLess(c.MaxCmdSN, p.MaxCmdSN()) {
		c.MaxCmdSN = p.MaxCmdSN()
	}
	if s := c.sess; s != nil {
		s.mu.Lock()
		s.note(p.ExpCmdSN(), p.MaxCmdSN())
		s.mu.Unlock()
	}
	counts := false // whether the PDU takes a StatSN
	switch p.Opcode() {
	case pdu.OpDataIn:
		if !p.HasStatus() {
			return nil
		}
		counts = true
	case pdu.OpR2T:
	case pdu.OpNOPIn:
		counts = p.ITT() != pdu.ReservedTag
	default:
		counts = true
	}
	if p.StatSN() != c.ExpStatSN {
		return wrong("%v has StatSN %d, expected %d", p, p.StatSN(), c.ExpStatSN)
	}
	if counts {
		c.ExpStatSN++
	}
	return nil
}

func (c *Conn) dataIn(t *Task, p *PDU) error {
	off, n := int(p.BufferOffset()), len(p.Data)
	switch {
	case t.c.In == 0:
		return wrong("%v for a command that reads nothing", p)
	case p.DataSN() != t.dataSN:
		return wrong("Data-In has DataSN %d, expected %d", p.DataSN(), t.dataSN)
	case off != len(t.In):
		return wrong("Data-In at offset %d, expected %d", off, len(t.In))
	case off+n > t.expect:
		return wrong("Data-In %d..%d, only %d bytes are expected", off, off+n, t.expect)
	case p.TTT() != pdu.ReservedTag:
		return wrong("Data-In has target transfer tag %#x", p.TTT())
	case p.Acknowledge():
		return wrong("Data-In has the A bit at ErrorRecoveryLevel 0")
	case p.HasStatus() && !p.Final():
		return wrong("Data-In with S but without F")
	}
	t.dataSN++
	t.DataIns++
	t.anyData = true
	t.lastF = p.Final()
	t.In = append(t.In, p.Data...)
	if !p.HasStatus() {
		return nil
	}
	if s := p.Status(); s != 0 && s != 4 {
		return wrong("status %#02x in a Data-In", s)
	}
	t.PhaseCollapse = true
	return c.end(t, p, p.ResidualFlags())
}

func (c *Conn) response(t *Task, p *PDU) error {
	if t.anyData && !t.lastF {
		return wrong("the last Data-In has no F bit")
	}
	t.Response = p.Response()
	if t.Response == pdu.ResponseCompleted && len(p.Data) > 0 {
		if len(p.Data) < 2 || len(p.Data) < 2+int(binary.BigEndian.Uint16(p.Data)) {
			return wrong("sense data segment of %d bytes is too short", len(p.Data))
		}
		t.Sense = p.Data[2 : 2+int(binary.BigEndian.Uint16(p.Data))]
	}
	if t.anyData && p.ExpDataSN() != t.dataSN {
		return wrong("SCSI Response has ExpDataSN %d after %d Data-Ins", p.ExpDataSN(), t.dataSN)
	}
	return c.end(t, p, p.ResidualFlags())
}

func (c *Conn) end(t *Task, p *PDU, r pdu.Residual) error {
	t.Status, t.Residual, t.Count = p.Status(), r, p.ResidualCount()
	t.Done = true
	delete(c.tasks, t.ITT)
	if r&pdu.Overflow != 0 && r&pdu.Underflow != 0 {
		return wrong("both overflow and underflow")
	}
	if r == 0 && t.Count != 0 {
		return wrong("residual count %d without a flag", t.Count)
	}
	if r&pdu.Underflow != 0 && int64(t.Count) > int64(t.expect) {
		return wrong("underflow of %d of %d bytes", t.Count, t.expect)
	}
	if r&pdu.Underflow != 0 && t.c.In > 0 && t.Status == 0 && len(t.In)+int(t.Count) != t.expect {
		return wrong("%d bytes came, residual %d, expected length %d", len(t.In), t.Count, t.expect)
	}
	return nil
}

func (c *Conn) r2t(t *Task, p *PDU) error {
	off, n := int(p.BufferOffset()), int(p.DesiredDataTransferLength())
	switch {
	case len(t.c.Out) == 0:
		return wrong("R2T for a command that writes nothing")
	case p.R2TSN() != t.r2tSN:
		return wrong("R2T has R2TSN %d, expected %d", p.R2TSN(), t.r2tSN)
	case p.TTT() == pdu.ReservedTag:
		return wrong("R2T without a target transfer tag")
	case n == 0 || n > int(c.Params.MaxBurstLength):
		return wrong("R2T for %d bytes, MaxBurstLength %d", n, c.Params.MaxBurstLength)
	case off+n > t.expect:
		return wrong("R2T for %d..%d of %d", off, off+n, t.expect)
	case p.LUN() != t.lun:
		return wrong("R2T with LUN %x, sent %x", p.LUN(), t.lun)
	case len(p.Data) > 0:
		return wrong("R2T with data")
	}
	t.r2tSN++
	t.R2Ts = append(t.R2Ts, p)
	if t.c.HoldR2T {
		return nil
	}
	return c.AnswerR2T(t, p)
}

// Sense splits sense data (fixed or descriptor format) into key and ASC/ASCQ.
func Sense(b []byte) (key uint8, asc uint16) {
	switch {
	case len(b) >= 14 && b[0]&0x7e == 0x70:
		return b[2] & 15, uint16(b[12])<<8 | uint16(b[13])
	case len(b) >= 8 && b[0]&0x7e == 0x72:
		return b[1] & 15, uint16(b[2])<<8 | uint16(b[3])
	}
	return 0, 0
}
