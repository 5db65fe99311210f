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

// Where the loader below has things: block 0 is the loader, then a kernel's real-mode
// part with its command line, then the rest of it in pieces.
const (
	loaderSetup   = 72     // blocks, to 90000h
	loaderCommand = 0x8800 // in them: the command line; below it heap and stack
	loaderPiece   = 64     // blocks, to 10000h and from there to 100000h and up
)

// bootLoader is a master boot record whose program loads a bzImage as Linux's boot
// protocol (Documentation/arch/x86/boot.rst) has it, and jumps into it: pieces by
// extended INT 13h, and by INT 15h function 87h to where 16 bits do not reach.
func bootLoader(pieces int) []byte {
	b := make([]byte, 512)
	copy(b, []byte{
		0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, // cli; ax, ds, es, ss = 0
		0xbc, 0x00, 0x7c, 0xfb, 0xfc, // sp = 7c00h; sti; cld
		0x88, 0x16, 0xff, 0x7c, // the drive
		0xe8, 0x51, 0x00, // call read: setup
		0xc7, 0x06, 0x82, 0x7c, 0x40, 0x00, // 64 blocks
		0xc7, 0x06, 0x86, 0x7c, 0x00, 0x10, // to 1000:0
		0x66, 0xc7, 0x06, 0x88, 0x7c, 0x49, 0x00, 0x00, 0x00, // from block 73 on
		0xe8, 0x39, 0x00, // next: call read
		0xbe, 0x90, 0x7c, 0xb9, 0x00, 0x40, 0xb4, 0x87, 0xcd, 0x15, // move 4000h words to high memory, INT 15h 87h
		0x72, 0x3b, // jc fail
		0x66, 0x83, 0x06, 0x88, 0x7c, 0x40, // 64 blocks on
		0x81, 0x06, 0xaa, 0x7c, 0x00, 0x80, 0x80, 0x16, 0xac, 0x7c, 0x00, // 32 KiB on
		0xff, 0x0e, 0xc0, 0x7c, 0x75, 0xda, // until all pieces are there
		0xfa, 0xb8, 0x00, 0x90, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xe0, 0x8e, 0xe8, 0x8e, 0xd0, // cli; ax, ds, es, fs, gs, ss = 9000h
		0xbc, 0x00, 0x88, // sp = 8800h
		0xea, 0x00, 0x00, 0x20, 0x90, // jmp 9020:0
		0xbe, 0x80, 0x7c, 0xb4, 0x42, 0x8a, 0x16, 0xff, 0x7c, 0xcd, 0x13, // read: the packet, INT 13h 42h
		0x72, 0x01, 0xc3, // jc fail; ret
		0xf4, 0xeb, 0xfd, // fail: hlt; jmp fail
	})
	// Disk address packet at 7c80h: 72 blocks from number 1 on to 9000:0.
	copy(b[0x80:], []byte{16, 0, loaderSetup, 0, 0, 0, 0x00, 0x90, 1, 0, 0, 0, 0, 0, 0, 0})
	// Descriptor table at 7c90h, as INT 15h wants it: the third entry is the source
	// (10000h), the fourth the destination (100000h); others are the firmware's.
	copy(b[0x90+0x10:], []byte{0xff, 0xff, 0, 0, 0x01, 0x93, 0, 0})
	copy(b[0x90+0x18:], []byte{0xff, 0xff, 0, 0, 0x10, 0x93, 0, 0})
	binary.LittleEndian.PutUint16(b[0xc0:], uint16(pieces))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// bootDisk is a disk from which SeaBIOS starts the kernel bz.
func bootDisk(bz []byte, command string) ([]byte, error) {
	if len(bz) < 0x300 || string(bz[0x202:0x206]) != "HdrS" {
		return nil, fmt.Errorf("no bzImage")
	}
	n := (int(bz[0x1f1]) + 1) * 512
	if n > 0x8000 || len(bz) > 15<<20 || len(command) > 2047 {
		return nil, fmt.Errorf("real-mode part of %d bytes, image of %d: the loader has less room", n, len(bz))
	}
	setup := make([]byte, loaderSetup*512)
	copy(setup, bz[:n])
	copy(setup[loaderCommand:], command)
	setup[0x210] = 0xff // type_of_loader: none that has a number
	setup[0x211] |= 0x80
	binary.LittleEndian.PutUint16(setup[0x224:], loaderCommand-0x200)
	binary.LittleEndian.PutUint32(setup[0x228:], 0x90000+loaderCommand)
	const piece = loaderPiece * 512
	pieces := (len(bz) - n + piece - 1) / piece
	disk := append(bootLoader(pieces), setup...)
	disk = append(disk, bz[n:]...)
	return append(disk, make([]byte, pieces*piece-(len(bz)-n))...), nil
}

// TestBootLinux boots Linux from a disk of vtgt's by SeaBIOS alone, until the kernel's
// first lines: megabytes that the firmware's driver reads.
func TestBootLinux(t *testing.T) {
	k, err := wantGuest(t).Kernel()
	if err != nil {
		t.Fatal(err)
	}
	bz, err := os.ReadFile(k.BzImage)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := bootDisk(bz, "console=ttyS0 earlyprintk=serial,ttyS0,115200 nokaslr panic=-1")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	image := filepath.Join(h.dir, "boot.img")
	if err := os.WriteFile(image, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	h.write(h.config(bootConfig))
	h.start()
	vm, err := guest.Boot(guest.Options{Dir: t.TempDir(), MemMB: 256, Args: vhostDevice("c", filepath.Join(h.dir, "vm.sock"), ",bootindex=1")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vm.Kill)
	poll(t, "the kernel speaks", func() error {
		if c := vm.Console(); !strings.Contains(c, "Linux version "+k.Release) {
			return fmt.Errorf("the console has %q", c)
		}
		return nil
	})
	if n := h.exports()["vm"].VHost.Counters.Requests; n < uint64(len(disk)/(loaderPiece*512)) {
		t.Errorf("%d requests", n)
	}
	vm.Kill()
	h.awaitExport("vm", "listening")
	h.stop()
}
