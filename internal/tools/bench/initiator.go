package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
	"golang.org/x/sys/unix"
)

// initiator is our own iSCSI client: one session with depth commands of the same size
// in flight, at random offsets, on a thread of its own. It copies no payload, sends all
// commands that may go in one call, and looks at nothing but headers: what it costs is
// mostly the kernel's copy.
type initiator struct {
	fd      int
	c       cell
	blocks  int // requests that the disk has room for
	segment int // longest data segment that the target takes
	first   int // unsolicited data of a write

	rng                  uint64
	cmdSN, maxSN, statSN uint32
	free                 []uint32 // task tags, less 1, that are not in flight
	sv                   sys.SockVec
	queue                [][]byte // to be sent
	sent                 int      // of queue
	arena                []byte   // headers of queue
	in                   []byte
	r, w                 int
	skip                 int // payload to come that nobody looks at
	done                 int
	payload              []byte
	cpu                  time.Duration
	exchange             bool // the peer is the bare exchange: no CmdSN window
	lunByte              byte
	ordered              bool // blocks in order, each once, instead of random ones
	next                 int  // block, when ordered
}

// Statuses of a target that wants less at a time (SAM-5 §5.3.1).
const (
	statusBusy  = 0x08
	taskSetFull = 0x28
)

// dialInitiator logs in; disk is the disk's size in bytes.
func dialInitiator(addr, target string, lun int, disk int64, c cell, seed uint64) (*initiator, error) {
	nc, err := iscsitest.Dial(addr)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	l := iscsitest.Login{InitiatorName: "iqn.2026-11.org.vtgt:bench" + strconv.FormatUint(seed, 10), TargetName: target, Lenient: true,
		Keys: []pdu.KeyValue{{Key: "FirstBurstLength", Value: "262144"}, {Key: "MaxBurstLength", Value: "1048576"}}}
	if err := nc.Login(l); err != nil {
		return nil, err
	}
	for try := 0; ; try++ { // unit attentions of a new session
		t, err := nc.Run(&iscsitest.Command{LUN: uint16(lun), CDB: make([]byte, 6)})
		if err != nil {
			return nil, err
		}
		if t.Status == 0 {
			break
		}
		if try == 5 {
			return nil, fmt.Errorf("TEST UNIT READY: status %#x", t.Status)
		}
	}
	i := newInitiator(disk, c, seed)
	i.cmdSN, i.maxSN, i.statSN = nc.CmdSN, nc.MaxCmdSN, nc.ExpStatSN
	i.segment = int(nc.Params.MaxXmit)
	if nc.Params.ImmediateData {
		i.first = min(int(nc.Params.FirstBurstLength), i.segment)
	}
	return i, i.take(nc.NetConn(), lun)
}

// dialExchange connects to the bare exchange.
func dialExchange(addr string, disk int64, c cell, seed uint64) (*initiator, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	i := newInitiator(disk, c, seed)
	i.exchange = true
	return i, i.take(nc, 0)
}

func newInitiator(disk int64, c cell, seed uint64) *initiator {
	i := &initiator{c: c, blocks: int(disk) / c.Block, rng: seed*0x9e3779b97f4a7c15 + 1, fd: -1}
	for k := range c.Depth {
		i.free = append(i.free, uint32(k))
	}
	i.in = make([]byte, 512<<10)
	i.arena = make([]byte, 0, pdu.BHSLen*(c.Depth+8)*8)
	i.payload = make([]byte, c.Block)
	for k := range i.payload {
		i.payload[k] = byte(k * 7)
	}
	return i
}

// take takes the socket over, in blocking mode.
func (i *initiator) take(nc net.Conn, lun int) error {
	i.lunByte = byte(lun)
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("a %T is no TCP connection", nc)
	}
	rc, err := t.SyscallConn()
	if err != nil {
		return err
	}
	if i.fd, err = sys.DupSocket(rc); err != nil {
		return err
	}
	return unix.SetNonblock(i.fd, false)
}

func (i *initiator) close() {
	if i.fd >= 0 {
		sys.Close(i.fd)
	}
}

func (i *initiator) random() uint64 {
	i.rng ^= i.rng << 13
	i.rng ^= i.rng >> 7
	i.rng ^= i.rng << 17
	return i.rng
}

// run keeps the commands going until stop says so, and then takes what is under way.
func (i *initiator) run(until time.Time) (n int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpu := threadCPU()
	// A target that has died must not hold the run.
	tv := unix.NsecToTimeval(int64(runLimit))
	if err := unix.SetsockoptTimeval(i.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return 0, err
	}
	i.done = 0
	for more := true; ; {
		if more {
			more = i.ordered && i.next < i.blocks || !i.ordered && time.Now().Before(until)
		}
		if more {
			for len(i.free) > 0 && (!i.ordered || i.next < i.blocks) && (i.exchange || !pdu.SNLess(i.maxSN, i.cmdSN)) {
				i.command()
			}
		} else if len(i.free) == i.c.Depth && i.sent == len(i.queue) {
			break
		}
		if err := i.send(); err != nil {
			return i.done, err
		}
		if err := i.receive(); err != nil {
			return i.done, err
		}
	}
	i.cpu = threadCPU() - cpu
	return i.done, nil
}

// fill writes the whole disk once, in order.
func (i *initiator) fill() error {
	i.ordered = true
	n, err := i.run(time.Time{})
	if err == nil && n != i.blocks {
		err = fmt.Errorf("%d of %d blocks written", n, i.blocks)
	}
	return err
}

func (i *initiator) header(op pdu.Opcode) *pdu.BHS {
	if i.sent == len(i.queue) {
		i.queue, i.sent, i.arena = i.queue[:0], 0, i.arena[:0]
	}
	n := len(i.arena)
	if n+pdu.BHSLen > cap(i.arena) { // what is queued keeps the old one
		i.arena = make([]byte, 0, cap(i.arena))
		n = 0
	}
	i.arena = i.arena[:n+pdu.BHSLen]
	h := (*pdu.BHS)(i.arena[n:])
	h.Reset(op)
	i.queue = append(i.queue, i.arena[n:])
	return h
}

// command queues one.
func (i *initiator) command() {
	k := i.free[len(i.free)-1]
	i.free = i.free[:len(i.free)-1]
	h := i.header(pdu.OpSCSICommand)
	h.SetAttr(pdu.AttrSimple)
	h.SetITT(k + 1)
	h.SetExpectedDataTransferLength(uint32(i.c.Block))
	h.SetCmdSN(i.cmdSN)
	h.SetExpStatSN(i.statSN)
	h.SetLUN([8]byte{1: i.lunByte})
	i.cmdSN++
	per := uint32(i.c.Block / 512)
	lba := uint32((i.random()>>16)%uint64(i.blocks)) * per
	if i.ordered {
		lba = uint32(i.next) * per
		i.next++
	}
	var cdb [16]byte
	cdb[0] = 0x28
	binary.BigEndian.PutUint32(cdb[2:], lba)
	binary.BigEndian.PutUint16(cdb[7:], uint16(per))
	if !i.c.Write {
		h.SetRead(true)
		h.SetFinal(true)
		h.SetCDB(cdb[:10])
		return
	}
	cdb[0] = 0x2a
	h.SetCDB(cdb[:10])
	h.SetWrite(true)
	h.SetFinal(true)
	if n := min(i.first, i.c.Block); n > 0 {
		h.SetDataSegmentLength(n)
		i.queue = append(i.queue, i.payload[:n])
	}
}

// send sends what the socket takes.
func (i *initiator) send() error {
	for i.sent < len(i.queue) {
		i.sv.Reset()
		for k := i.sent; k < len(i.queue) && i.sv.Add(i.queue[k]); k++ {
		}
		n, err := i.sv.Send(i.fd)
		if errors.Is(err, syscall.EAGAIN) {
			// Who does not take more has something for us, or will have room.
			p := []unix.PollFd{{Fd: int32(i.fd), Events: unix.POLLIN | unix.POLLOUT}}
			if m, err := unix.Poll(p, int(runLimit.Milliseconds())); err != nil && err != unix.EINTR {
				return err
			} else if m == 0 && err == nil {
				return errors.New("the target neither takes nor sends anything")
			}
			if p[0].Revents&unix.POLLOUT == 0 {
				return nil
			}
			continue
		}
		if err != nil {
			return err
		}
		for n > 0 {
			p := i.queue[i.sent]
			if n < len(p) {
				i.queue[i.sent] = p[n:]
				break
			}
			n -= len(p)
			i.sent++
		}
	}
	return nil
}

// receive waits for something and handles all that came.
func (i *initiator) receive() error {
	if i.r > 0 {
		i.w = copy(i.in, i.in[i.r:i.w])
		i.r = 0
	}
	n, err := unix.Read(i.fd, i.in[i.w:])
	switch {
	case err == unix.EINTR:
		return nil
	case err == unix.EAGAIN:
		return fmt.Errorf("no answer in %v", runLimit)
	case err != nil:
		return err
	case n == 0:
		return errors.New("the target has closed the connection")
	}
	i.w += n
	for {
		if i.skip > 0 {
			k := min(i.skip, i.w-i.r)
			i.skip -= k
			i.r += k
		}
		if i.skip > 0 || i.w-i.r < pdu.BHSLen {
			return nil
		}
		h := (*pdu.BHS)(i.in[i.r:])
		i.r += pdu.BHSLen
		dsl := h.DataSegmentLength()
		i.skip = dsl + pdu.Pad(dsl)
		if m := h.MaxCmdSN(); pdu.SNLess(i.maxSN, m) {
			i.maxSN = m
		}
		if err := i.answer(h); err != nil {
			return err
		}
	}
}

// answer handles one PDU's header.
func (i *initiator) answer(h *pdu.BHS) error {
	switch op := h.Opcode(); op {
	case pdu.OpDataIn:
		if !h.HasStatus() {
			return nil
		}
	case pdu.OpSCSIResponse:
	case pdu.OpR2T:
		return i.solicited(h)
	case pdu.OpNOPIn:
		if h.TTT() != 0xffffffff {
			a := i.header(pdu.OpNOPOut)
			a.SetImmediate(true)
			a.SetFinal(true)
			a.SetITT(0xffffffff)
			a.SetTTT(h.TTT())
			a.SetLUN(h.LUN())
			a.SetCmdSN(i.cmdSN)
			a.SetExpStatSN(i.statSN)
		}
		return nil
	default:
		return fmt.Errorf("the target sent %v", op)
	}
	k := h.ITT() - 1
	if int(k) >= i.c.Depth || len(i.free) == i.c.Depth {
		return fmt.Errorf("an answer to task %#x, which is not under way", h.ITT())
	}
	i.statSN = h.StatSN() + 1
	i.free = append(i.free, k)
	switch st := h.Status(); {
	case st == 0:
		i.done++
	case (st == taskSetFull || st == statusBusy) && !i.ordered:
		// Another command takes its place, as an initiator's retry would; only
		// what was done counts.
	default:
		return fmt.Errorf("status %#x for %v", st, i.c)
	}
	return nil
}

// solicited queues the data that an R2T asks for.
func (i *initiator) solicited(h *pdu.BHS) error {
	off, left, ttt, itt := int(h.BufferOffset()), int(h.DesiredDataTransferLength()), h.TTT(), h.ITT()
	if off < 0 || left <= 0 || off+left > i.c.Block {
		return fmt.Errorf("an R2T for %d bytes from %d on", left, off)
	}
	for sn := uint32(0); left > 0; sn++ {
		n := min(left, i.segment)
		d := i.header(pdu.OpDataOut)
		d.SetITT(itt)
		d.SetTTT(ttt)
		d.SetLUN([8]byte{1: i.lunByte})
		d.SetExpStatSN(i.statSN)
		d.SetDataSN(sn)
		d.SetBufferOffset(uint32(off))
		d.SetDataSegmentLength(n)
		d.SetFinal(n == left)
		i.queue = append(i.queue, i.payload[off:off+n])
		off, left = off+n, left-n
	}
	return nil
}

// threadCPU is the calling thread's processor time.
func threadCPU() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// crowd is some initiators that run at once.
type crowd []*initiator

func (c crowd) close() {
	for _, i := range c {
		i.close()
	}
}

// run runs them all for d: requests, the time it took, and processor time in all and of
// the busiest.
func (c crowd) run(d time.Duration) (n int, took, cpu, busiest time.Duration, err error) {
	var wg sync.WaitGroup
	ns, errs := make([]int, len(c)), make([]error, len(c))
	begin := time.Now()
	for k, i := range c {
		wg.Go(func() { ns[k], errs[k] = i.run(begin.Add(d)) })
	}
	wg.Wait()
	took = time.Since(begin)
	for k, i := range c {
		n += ns[k]
		cpu += i.cpu
		busiest = max(busiest, i.cpu)
	}
	return n, took, cpu, busiest, errors.Join(errs...)
}
