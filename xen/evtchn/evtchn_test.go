package evtchn

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"testing"
)

func TestGolden(t *testing.T) {
	want := "0300000029000000"
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		want = "0000000300000029"
	}
	w, _ := hex.DecodeString(want)
	if b := bindArg(3, 41); !bytes.Equal(b, w) {
		t.Errorf("%x, want %s", b, want)
	}
	// _IOC(0, 'E', 1, 8) and _IOC(0, 'E', 4, 4), as a C compiler has them.
	if ioBindInterdomain != 8<<16|'E'<<8|1 || ioNotify != 4<<16|'E'<<8|4 {
		t.Error("ioctl numbers")
	}
}

func TestNoDevice(t *testing.T) {
	if _, err := (Device{Path: t.TempDir() + "/none"}).Bind(1, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	// What is there but is no event channel device refuses the ioctl.
	if _, err := (Device{Path: "/dev/null"}).Bind(1, 1); err == nil {
		t.Error("/dev/null was bound")
	}
}
