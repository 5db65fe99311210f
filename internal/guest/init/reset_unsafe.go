package main

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SG_SCSI_RESET and its argument (include/uapi/scsi/scsi_ioctl.h and scsi/sg.h).
const (
	sgSCSIReset  = 0x2284
	resetDevice  = 1
	noEscalation = 0x100
)

// deviceReset is sg_reset -N -d: it returns when the device has answered.
func deviceReset(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	v := int32(resetDevice | noEscalation)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), sgSCSIReset, uintptr(unsafe.Pointer(&v))); e != 0 {
		return os.NewSyscallError("SG_SCSI_RESET", e)
	}
	return nil
}
