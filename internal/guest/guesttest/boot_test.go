package guesttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/guest"
)

const bootConfig = `disks:
  - {name: boot, store: "file:DIR/boot.img"}
targets:
  - {name: vm, luns: [{lun: 0, disk: boot}], vhost: {socket: "DIR/vm.sock"}}
`

// bootText is what the boot sector reads from the disk's second block and prints.
const bootText = "read by INT 13h from a disk of vtgt's"

// bootSector is a master boot record whose program reads the second block by extended
// INT 13h and prints it on the first serial line.
func bootSector() []byte {
	code := []byte{
		0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, // cli; ax, ds, es, ss = 0
		0xbc, 0x00, 0x7c, 0xfb, // sp = 7c00h; sti
		0xbe, 0x40, 0x7c, // si = the packet below
		0xb4, 0x42, 0xcd, 0x13, // ah = 42h, extended read; dl is the drive still
		0x72, 0x1a, // jc halt
		0xbe, 0x00, 0x7e, 0xfc, // si = 7e00h; cld
		0xac,       // next: lodsb
		0x08, 0xc0, // or al, al
		0x74, 0x11, // jz halt
		0x88, 0xc4, // ah = al
		0xba, 0xfd, 0x03, // dx = 3fdh, line status
		0xec, 0xa8, 0x20, 0x74, 0xfb, // until the holding register is empty
		0x88, 0xe0, // al = ah
		0xb2, 0xf8, 0xee, // out 3f8h
		0xeb, 0xea, // jmp next
		0xf4, 0xeb, 0xfd, // halt: hlt; jmp halt
	}
	b := make([]byte, 1024)
	copy(b, code)
	// Disk address packet at 7c40h: one block, number 1, to 0000:7e00h.
	copy(b[0x40:], []byte{16, 0, 1, 0, 0x00, 0x7e, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0})
	b[510], b[511] = 0x55, 0xaa
	copy(b[512:], bootText+"\r\n")
	return b
}

// TestSeaBIOS boots from a disk of vtgt's: the firmware's own driver reads it.
func TestSeaBIOS(t *testing.T) {
	wantGuest(t)
	h := newHost(t)
	image := filepath.Join(h.dir, "boot.img")
	if err := os.WriteFile(image, bootSector(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	h.write(h.config(bootConfig))
	h.start()
	vm, err := guest.Boot(guest.Options{Dir: t.TempDir(), MemMB: 64, Args: vhostDevice("c", filepath.Join(h.dir, "vm.sock"), ",bootindex=1")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vm.Kill)
	poll(t, "the boot sector speaks", func() error {
		if c := vm.Console(); !strings.Contains(c, bootText) {
			return fmt.Errorf("the console has %q", c)
		}
		return nil
	})
	vm.Kill()
	h.awaitExport("vm", "listening")
	h.stop()
}
