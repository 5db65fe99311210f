package sys

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// BlockInfo is what a block device says of itself, in bytes.
type BlockInfo struct {
	Size                        int64
	LogicalBlock, PhysicalBlock int
	OptimalIO                   int
	Rotational, ReadOnly        bool
	DiscardGranularity          int64
	DiscardMax, WriteZeroesMax  int64
	// WriteCache: the device has a volatile write cache.
	WriteCache bool
	// Name is the kernel's, e.g. sda1.
	Name string
}

// BlockDevice asks a block device for its geometry (linux/fs.h, BLK*) and for the
// limits that only sysfs shows.
func BlockDevice(fd int) (BlockInfo, error) {
	var b BlockInfo
	size, err := ioctlU64(fd, unix.BLKGETSIZE64)
	if err != nil {
		return b, os.NewSyscallError("BLKGETSIZE64", err)
	}
	b.Size = int64(size)
	n, err := unix.IoctlGetInt(fd, unix.BLKSSZGET)
	if err != nil {
		return b, os.NewSyscallError("BLKSSZGET", err)
	}
	b.LogicalBlock = n
	b.PhysicalBlock = n
	if v, err := unix.IoctlGetUint32(fd, unix.BLKPBSZGET); err == nil && int(v) > n {
		b.PhysicalBlock = int(v)
	}
	if v, err := unix.IoctlGetUint32(fd, unix.BLKIOOPT); err == nil {
		b.OptimalIO = int(v)
	}
	if v, err := ioctlU16(fd, unix.BLKROTATIONAL); err == nil {
		b.Rotational = v != 0
	}
	if v, err := unix.IoctlGetUint32(fd, unix.BLKROGET); err == nil {
		b.ReadOnly = v != 0
	}
	var st FileStat
	if err := Fstat(fd, &st); err == nil {
		b.sysfs(st.Rdev)
	}
	return b, nil
}

// BlockSize is the device's size in bytes.
func BlockSize(fd int) (int64, error) {
	v, err := ioctlU64(fd, unix.BLKGETSIZE64)
	return int64(v), err
}

func (b *BlockInfo) sysfs(rdev uint64) {
	dir := "/sys/dev/block/" + strconv.Itoa(int(unix.Major(rdev))) + ":" + strconv.Itoa(int(unix.Minor(rdev)))
	if l, err := os.Readlink(dir); err == nil {
		b.Name = l[strings.LastIndexByte(l, '/')+1:]
	}
	queue := dir + "/queue/"
	if _, err := os.Stat(queue); err != nil {
		queue = dir + "/../queue/" // a partition has its disk's
	}
	b.DiscardGranularity = sysfsInt(queue + "discard_granularity")
	b.DiscardMax = sysfsInt(queue + "discard_max_bytes")
	b.WriteZeroesMax = sysfsInt(queue + "write_zeroes_max_bytes")
	if v, err := os.ReadFile(queue + "write_cache"); err == nil {
		b.WriteCache = strings.HasPrefix(string(v), "write back")
	} else {
		b.WriteCache = true
	}
}

func sysfsInt(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// BlockDiscard is BLKDISCARD: the contents of the range are undefined afterwards.
func BlockDiscard(fd int, off, n int64) error { return ioctlRange(fd, unix.BLKDISCARD, off, n) }
