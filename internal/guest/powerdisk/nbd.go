package powerdisk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Magic numbers of the protocol.
const (
	magicServer   = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption   = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply = 0x3e889045565a9
	magicRequest  = 0x25609513
	magicReply    = 0x67446698
)

// Flags, options, replies, commands.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	optExportName = 1
	optAbort      = 2
	optInfo       = 6
	optGo         = 7

	repAck      = 1
	repInfo     = 3
	repErrUnsup = 1<<31 | 1
	infoExport  = 0

	txHasFlags   = 1 << 0
	txSendFlush  = 1 << 2
	txSendFUA    = 1 << 3
	transmission = txHasFlags | txSendFlush | txSendFUA

	cmdRead  = 0
	cmdWrite = 1
	cmdDisc  = 2
	cmdFlush = 3
	cmdFUA   = 1 << 0

	errnoInval = 22
)

const (
	// maxOption and maxIO bound what a client may send at once, bytes.
	maxOption = 4096
	maxIO     = 32 << 20
	// hello bounds the negotiation.
	hello = 10 * time.Minute
)

// Serve begins to serve NBD clients, in the background until Close, and returns the
// path of its socket.
func (d *Disk) Serve() (string, error) {
	dir, err := os.MkdirTemp("", "vtgt-disk-") // short: a socket's path is bounded
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "nbd")
	ln, err := net.Listen("unix", path)
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", err
	}
	d.ln, d.dir = ln, dir
	d.wg.Add(1)
	go d.accept(ln)
	return path, nil
}

// Close ends the service.
func (d *Disk) Close() {
	if d.ln == nil {
		return
	}
	_ = d.ln.Close()
	d.mu.Lock()
	d.dead = true
	d.goOn()
	for c := range d.conns {
		_ = c.Close()
	}
	d.mu.Unlock()
	d.wg.Wait()
	_ = os.RemoveAll(d.dir)
}

func (d *Disk) accept(ln net.Listener) {
	defer d.wg.Done()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		if d.dead {
			d.mu.Unlock()
			_ = c.Close()
			continue
		}
		d.conns[c] = true
		d.mu.Unlock()
		d.wg.Add(1)
		go func() {
			defer d.wg.Done()
			_ = d.client(c)
			_ = c.Close()
			d.mu.Lock()
			delete(d.conns, c)
			d.mu.Unlock()
		}()
	}
}

func (d *Disk) client(c net.Conn) error {
	rw := bufio.NewReadWriter(bufio.NewReaderSize(c, 256<<10), bufio.NewWriterSize(c, 256<<10))
	_ = c.SetDeadline(time.Now().Add(hello))
	if err := d.negotiate(rw); err != nil {
		return err
	}
	_ = c.SetDeadline(time.Time{})
	for {
		more, err := d.request(rw)
		if err != nil || !more {
			return err
		}
		if rw.Reader.Buffered() == 0 {
			if err := rw.Flush(); err != nil {
				return err
			}
		}
	}
}

func put(w io.Writer, vs ...any) error {
	for _, v := range vs {
		if err := binary.Write(w, binary.BigEndian, v); err != nil {
			return err
		}
	}
	return nil
}

var errProtocol = errors.New("powerdisk: the client broke the protocol")

// negotiate ends when transmission begins.
func (d *Disk) negotiate(rw *bufio.ReadWriter) error {
	if err := put(rw, uint64(magicServer), uint64(magicOption), uint16(flagFixedNewstyle|flagNoZeroes)); err != nil {
		return err
	}
	if err := rw.Flush(); err != nil {
		return err
	}
	var flags uint32
	if err := binary.Read(rw, binary.BigEndian, &flags); err != nil {
		return err
	}
	for {
		var o struct {
			Magic    uint64
			Opt, Len uint32
		}
		if err := binary.Read(rw, binary.BigEndian, &o); err != nil {
			return err
		}
		if o.Magic != magicOption || o.Len > maxOption {
			return errProtocol
		}
		if _, err := io.CopyN(io.Discard, rw, int64(o.Len)); err != nil { // there is one export, whatever its name
			return err
		}
		reply := func(kind uint32, data ...any) error {
			n := 0
			for _, v := range data {
				n += binary.Size(v)
			}
			if err := put(rw, uint64(magicOptReply), o.Opt, kind, uint32(n)); err != nil {
				return err
			}
			return put(rw, data...)
		}
		var err error
		switch o.Opt {
		case optExportName:
			err = put(rw, uint64(d.Size()), uint16(transmission))
			if err == nil && flags&flagNoZeroes == 0 {
				err = put(rw, [124]byte{})
			}
		case optGo, optInfo:
			err = reply(repInfo, uint16(infoExport), uint64(d.Size()), uint16(transmission))
			if err == nil {
				err = reply(repAck)
			}
		case optAbort:
			_ = reply(repAck)
			_ = rw.Flush()
			return io.EOF
		default:
			err = reply(repErrUnsup)
		}
		if err == nil {
			err = rw.Flush()
		}
		if err != nil || o.Opt == optGo || o.Opt == optExportName {
			return err
		}
	}
}

// request serves one request; false: the client says goodbye.
func (d *Disk) request(rw *bufio.ReadWriter) (bool, error) {
	var h [28]byte
	if _, err := io.ReadFull(rw, h[:]); err != nil {
		return false, err
	}
	flags, cmd := binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:])
	cookie := binary.BigEndian.Uint64(h[8:])
	off, n := int64(binary.BigEndian.Uint64(h[16:])), int64(binary.BigEndian.Uint32(h[24:]))
	if binary.BigEndian.Uint32(h[:]) != magicRequest || n > maxIO {
		return false, errProtocol
	}
	var data []byte
	if cmd == cmdRead || cmd == cmdWrite {
		data = make([]byte, n)
	}
	if cmd == cmdWrite {
		if _, err := io.ReadFull(rw, data); err != nil {
			return false, err
		}
	}
	errno, err := uint32(0), error(nil)
	switch {
	case cmd == cmdDisc:
		return false, nil
	case data != nil && !d.inside(off, n):
		errno = errnoInval
	case cmd == cmdRead:
		err = d.read(data, off)
	case cmd == cmdWrite:
		err = d.write(data, off, flags&cmdFUA != 0)
	case cmd == cmdFlush:
		err = d.flush()
	default:
		errno = errnoInval
	}
	if err != nil {
		return false, err
	}
	if err := put(rw, uint32(magicReply), errno, cookie); err != nil {
		return false, err
	}
	if cmd == cmdRead && errno == 0 {
		_, err = rw.Write(data)
	}
	return true, err
}
