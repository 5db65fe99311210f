package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SG_SCSI_RESET and its argument (include/uapi/scsi/scsi_ioctl.h and scsi/sg.h).
const (
	sgIO         = 0x2285
	sgSCSIReset  = 0x2284
	resetDevice  = 1
	noEscalation = 0x100
)

// sgIOHdr is struct sg_io_hdr (include/scsi/sg.h) on 64-bit machines.
type sgIOHdr struct {
	interfaceID    int32
	dxferDirection int32
	cmdLen         uint8
	mxSBLen        uint8
	iovecCount     uint16
	dxferLen       uint32
	dxferp         unsafe.Pointer
	cmdp           unsafe.Pointer
	sbp            unsafe.Pointer
	timeout        uint32 // ms
	flags          uint32
	packID         int32
	_              [4]byte
	usrPtr         uintptr
	status         uint8
	maskedStatus   uint8
	msgStatus      uint8
	sbLenWr        uint8
	hostStatus     uint16
	driverStatus   uint16
	resid          int32
	duration       uint32
	info           uint32
	_              [4]byte
}

// passThrough sends a CDB that reads up to n bytes, and gives the data and the SCSI status.
func passThrough(path string, cdb []byte, n int, timeout time.Duration) (data []byte, status int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	if len(cdb) == 0 {
		return nil, 0, errors.New("SG_IO wants a CDB")
	}
	data = make([]byte, n)
	var sense [96]byte
	h := sgIOHdr{interfaceID: 'S', dxferDirection: -1, cmdLen: uint8(len(cdb)), mxSBLen: uint8(len(sense)), dxferLen: uint32(n),
		cmdp: unsafe.Pointer(&cdb[0]), sbp: unsafe.Pointer(&sense[0]), timeout: uint32(timeout.Milliseconds())}
	if n > 0 {
		h.dxferDirection, h.dxferp = -3, unsafe.Pointer(&data[0])
	}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), sgIO, uintptr(unsafe.Pointer(&h)))
	runtime.KeepAlive(cdb)
	runtime.KeepAlive(data)
	if e != 0 {
		return nil, 0, os.NewSyscallError("SG_IO", e)
	}
	if h.hostStatus != 0 {
		return nil, 0, errHost{h.hostStatus, h.driverStatus}
	}
	if h.status != 0 {
		return sense[:h.sbLenWr], int(h.status), nil
	}
	return data[:n-int(h.resid)], 0, nil
}

// errHost is the end of a command that did not reach its unit, or did not come back.
type errHost struct{ host, driver uint16 }

func (e errHost) Error() string {
	return fmt.Sprintf("SG_IO: host status %#x, driver status %#x", e.host, e.driver)
}

// deviceReset is sg_reset -N, of the device where level is 0, else of what SG_SCSI_RESET_… has
// that number: it returns when the device has answered.
func deviceReset(path string, level int) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if level == 0 {
		level = resetDevice
	}
	v := int32(level | noEscalation)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), sgSCSIReset, uintptr(unsafe.Pointer(&v))); e != 0 {
		return os.NewSyscallError("SG_SCSI_RESET", e)
	}
	return nil
}
