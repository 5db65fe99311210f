package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// exchangeBytes is what the bare exchange sends for a request, behind a header.
const exchangeBytes = 4096

// serveTCP is the least that a Go program can do for a 4 KiB read over TCP: one locked
// thread, epoll, all requests that have come taken at once, each answered by a header
// and 4 KiB from a random place of a memory as large as the disk, all answers of a
// round in one call. A request is a SCSI Command PDU and the answer a Data-In PDU with
// status, so that the same client drives it as drives the targets.
func serveTCP(bytes int64) error {
	mem, err := exchangeMemory(bytes)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	for { // one connection at a time
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		rc, err := nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		fd, err := sys.DupSocket(rc)
		nc.Close()
		if err != nil {
			return err
		}
		err = exchangeTCP(fd, mem)
		sys.Close(fd)
		if err != nil {
			return err
		}
	}
}

// exchangeMemory is filled memory of that size, mapped as the mem: store maps its own.
func exchangeMemory(bytes int64) ([]byte, error) {
	mem, err := sys.MapReserve(int(bytes))
	if err != nil {
		return nil, err
	}
	if err := sys.MapAllow(mem); err != nil {
		return nil, err
	}
	for i := range mem {
		mem[i] = byte(i>>8) + byte(i)
	}
	return mem, nil
}

func exchangeTCP(fd int, mem []byte) error {
	ep, err := sys.NewEpoll()
	if err != nil {
		return err
	}
	defer sys.Close(ep)
	ev := sys.EpollEvent{Events: sys.EPOLLIN}
	if e := sys.EpollCtl(ep, sys.EpollAdd, fd, &ev); e != 0 {
		return e
	}
	var (
		rv, sv  sys.SockVec
		evs     [4]sys.EpollEvent
		ts      sys.Timespec
		in      = make([]byte, 64<<10)
		heads   = make([]byte, sys.MaxSockVec/2*pdu.BHSLen)
		w       int
		rng     = uint64(88172645463325252)
		blocks  = uint64(len(mem) / exchangeBytes)
		pending [][]byte
		sent    int
	)
	wait := func(events uint32) error {
		ev := sys.EpollEvent{Events: events}
		if e := sys.EpollCtl(ep, sys.EpollMod, fd, &ev); e != 0 {
			return e
		}
		return nil
	}
	for {
		if _, e := sys.EpollWait(ep, evs[:], -1, &ts); e != 0 {
			return e
		}
		for {
			rv.Reset()
			rv.Add(in[w:])
			n, err := rv.Recv(fd)
			if errors.Is(err, syscall.EAGAIN) {
				break
			}
			if err != nil {
				return nil // the client has gone
			}
			w += n
			full := w == len(in)
			for r := 0; ; {
				pending, sent = pending[:0], 0
				for ; w-r >= pdu.BHSLen && len(pending) < sys.MaxSockVec; r += pdu.BHSLen {
					q := (*pdu.BHS)(in[r:])
					k := len(pending) / 2 * pdu.BHSLen
					h := (*pdu.BHS)(heads[k:])
					h.Reset(pdu.OpDataIn)
					h.SetFinal(true)
					h.SetHasStatus(true)
					h.SetITT(q.ITT())
					h.SetDataSegmentLength(exchangeBytes)
					rng ^= rng << 13
					rng ^= rng >> 7
					rng ^= rng << 17
					off := (rng >> 16) % blocks * exchangeBytes
					pending = append(pending, heads[k:k+pdu.BHSLen], mem[off:off+exchangeBytes])
				}
				if len(pending) == 0 {
					w = copy(in, in[r:w])
					break
				}
				for sent < len(pending) {
					sv.Reset()
					for _, b := range pending[sent:] {
						sv.Add(b)
					}
					n, err := sv.Send(fd)
					if errors.Is(err, syscall.EAGAIN) {
						if err := wait(sys.EPOLLOUT); err != nil {
							return err
						}
						if _, e := sys.EpollWait(ep, evs[:], -1, &ts); e != 0 {
							return e
						}
						if err := wait(sys.EPOLLIN); err != nil {
							return err
						}
						continue
					}
					if err != nil {
						return nil
					}
					for n > 0 {
						if n < len(pending[sent]) {
							pending[sent] = pending[sent][n:]
							break
						}
						n -= len(pending[sent])
						sent++
					}
				}
			}
			if !full {
				break
			}
		}
	}
}
