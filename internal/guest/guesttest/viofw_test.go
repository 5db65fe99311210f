package guesttest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/guest"
)

// bootProgram is a 32-bit big-endian ELF program for Open Firmware (IEEE 1275 PowerPC
// binding §8): it has the firmware interpret text, and stops.
func bootProgram(text string) []byte {
	const base, fileHeader, programHeader, args = 0x200000, 52, 32, 0x40
	be := binary.BigEndian
	code := make([]byte, args+20)
	for i, x := range []uint32{
		0x3c600000 | (base+args)>>16,    // lis  r3, args
		0x60630000 | (base+args)&0xffff, // ori  r3, r3, args
		0x7ca903a6,                      // mtctr r5: the client interface
		0x4e800421,                      // bctrl
		0x48000000,                      // b    .
	} {
		be.PutUint32(code[4*i:], x)
	}
	service := base + uint32(len(code))
	code = append(code, "interpret\x00"...)
	str := base + uint32(len(code))
	code = append(code, text+"\x00"...)
	for i, x := range []uint32{service, 1, 1, str, 0} {
		be.PutUint32(code[args+4*i:], x)
	}
	b := make([]byte, fileHeader+programHeader)
	copy(b, "\x7fELF\x01\x02\x01")
	be.PutUint16(b[16:], 2)  // executable
	be.PutUint16(b[18:], 20) // PowerPC
	be.PutUint32(b[20:], 1)
	be.PutUint32(b[24:], base)
	be.PutUint32(b[28:], fileHeader)
	be.PutUint16(b[40:], fileHeader)
	be.PutUint16(b[42:], programHeader)
	be.PutUint16(b[44:], 1)
	for i, x := range []uint32{1, uint32(len(b)), base, base, uint32(len(code)), uint32(len(code)), 7, 4} {
		be.PutUint32(b[fileHeader+4*i:], x)
	}
	return append(b, code...)
}

// prepDisk is a disk with the program in a PReP boot partition (type 41h).
func prepDisk(program []byte) []byte {
	const first, blocks = 64, 64
	d := make([]byte, 1<<20)
	p := d[446:462]
	p[0], p[4] = 0x80, 0x41
	binary.LittleEndian.PutUint32(p[8:], first)
	binary.LittleEndian.PutUint32(p[12:], blocks)
	d[510], d[511] = 0x55, 0xaa
	copy(d[first*512:], program)
	return d
}

// TestVIOFirmware: SLOF lists the disk and boots from it.
func TestVIOFirmware(t *testing.T) {
	qemu := vioQEMU(t)
	h := newHost(t)
	const said = "booted-from-a-vtgt-disk"
	disk := prepDisk(bootProgram(`cr ." booted-from-a" ." -vtgt-disk" cr`))
	if err := os.WriteFile(filepath.Join(h.dir, "boot.img"), disk, 0o600); err != nil {
		t.Fatal(err)
	}
	h.write(h.config(`disks:
  - {name: boot, store: "file:DIR/boot.img"}
targets:
  - {name: fw, luns: [{lun: 0, disk: boot}], vio: {socket: "DIR/vio.sock"}}
`))
	h.start()
	vm, err := guest.Boot(guest.Options{Dir: t.TempDir(), QEMU: qemu, PSeries: true, MemMB: 512,
		Args: []string{"-device", "vtgt-vscsi,path=" + filepath.Join(h.dir, "vio.sock")}})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	poll(t, "the firmware boots", func() error {
		if s := vm.Console(); !strings.Contains(s, said) {
			return fmt.Errorf("it says %s", s)
		}
		return nil
	})
	if s := vm.Console(); !strings.Contains(s, `DISK     : "VTGT     VIRTUAL DISK     0001"`) {
		t.Errorf("it lists %s", s)
	}
}
