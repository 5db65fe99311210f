package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/tools/peer"
)

// A layout is a kind of disk that some tests need.
type layout struct {
	name, text string
	disk       peer.Disk
	families   []string // globs; nil: all that were chosen
	encrypted  bool
}

var layouts = []layout{
	{name: "A", text: "512/512, not thin", disk: peer.Disk{BlockSize: 512, PhysicalBlockSize: 512}},
	{name: "B", text: "512/512, thin, removable", disk: peer.Disk{BlockSize: 512, PhysicalBlockSize: 512, Thin: true, Removable: true}},
	{name: "C", text: "512/4096, thin", disk: peer.Disk{BlockSize: 512, PhysicalBlockSize: 4096, Thin: true}},
	// Every other suite begins by writing.
	{name: "D", text: "512/512, thin, read-only", disk: peer.Disk{BlockSize: 512, PhysicalBlockSize: 512, Thin: true, ReadOnly: true},
		families: []string{"ReadOnly", "Inquiry", "Mandatory"}},
	{name: "E", text: "512/512, thin, encrypted", disk: peer.Disk{BlockSize: 512, PhysicalBlockSize: 512, Thin: true}, encrypted: true},
}

// size is below 2^21 blocks, where the READ(6) tests give up on the end of the disk.
const size = 64 << 20

// sanitizeSpeed has an overwrite take 9 s: Sanitize.Reset waits 3 s for it to begin and
// wants it to go on after task management and another login, and 60 s after it has
// looked too early for its end.
const sanitizeSpeed = size / 9

// makeDisks makes one image per layout and worker, sparse, below dir.
func makeDisks(dir string, chosen []layout, workers int) ([]peer.Disk, error) {
	var disks []peer.Disk
	for _, l := range chosen {
		for w := range workers {
			d := l.disk
			d.SanitizeSpeed = sanitizeSpeed
			d.Name = diskName(l, w)
			d.Path = imagePath(dir, l, w)
			if l.encrypted {
				// The target makes it.
				d.Size = size
				d.KeyFile = filepath.Join(dir, "key")
				if err := os.WriteFile(d.KeyFile, []byte(strings.Repeat("5a", 32)+"\n"), 0o600); err != nil {
					return nil, err
				}
				disks = append(disks, d)
				continue
			}
			f, err := os.OpenFile(d.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return nil, err
			}
			if err := f.Truncate(size); err != nil {
				f.Close()
				return nil, err
			}
			if err := f.Close(); err != nil {
				return nil, err
			}
			disks = append(disks, d)
		}
	}
	return disks, nil
}

func diskName(l layout, worker int) string { return fmt.Sprintf("%c%d", l.name[0]+'a'-'A', worker) }

func imagePath(dir string, l layout, worker int) string {
	return filepath.Join(dir, diskName(l, worker)+".img")
}

// blank makes an image as empty as when it was made. The target goes on serving it.
// Without that a test finds what those before it have left, and which those are
// differs from run to run: MultipathIO.CompareAndWrite zeroes 256 blocks and then
// expects zeros in 257.
func blank(l layout, worker int, dir string) error {
	path, from := imagePath(dir, l, worker), int64(0)
	if l.encrypted {
		from = backing.EncryptedHeader
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const punchHole, keepSize = 0x02, 0x01 // linux/falloc.h
	if err := syscall.Fallocate(int(f.Fd()), punchHole|keepSize, from, size); err != nil {
		return fmt.Errorf("%s: cannot be emptied: %w", path, err)
	}
	return nil
}
