package sys

import (
	"math"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open flags that Go's syscall package and os do not carry together.
const (
	O_RDONLY = unix.O_RDONLY
	O_RDWR   = unix.O_RDWR
	O_CREAT  = unix.O_CREAT
	O_EXCL   = unix.O_EXCL
	O_DIRECT = unix.O_DIRECT
	O_DSYNC  = unix.O_DSYNC
)

// Flags of Preadv2 and Pwritev2.
const (
	RWF_NOWAIT = unix.RWF_NOWAIT
	RWF_DSYNC  = unix.RWF_DSYNC
)

// Modes of Fallocate.
const (
	FALLOC_FL_KEEP_SIZE  = unix.FALLOC_FL_KEEP_SIZE
	FALLOC_FL_PUNCH_HOLE = unix.FALLOC_FL_PUNCH_HOLE
	FALLOC_FL_ZERO_RANGE = unix.FALLOC_FL_ZERO_RANGE
)

// OpenFile opens path with O_CLOEXEC and gives a plain descriptor that the Go
// runtime's poller never sees.
func OpenFile(path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// CloseFile closes fd. EINTR is not retried: Linux has closed it by then.
func CloseFile(fd int) error {
	err := unix.Close(fd)
	if err == unix.EINTR {
		return nil
	}
	return err
}

// FileStat is what vtgt asks of fstat(2).
type FileStat struct {
	Dev, Ino, Rdev uint64
	Mode           uint32
	// Size and Allocated in bytes.
	Size, Allocated int64
	BlockSize       int
}

// Regular reports a regular file.
func (s *FileStat) Regular() bool { return s.Mode&unix.S_IFMT == unix.S_IFREG }

// Block reports a block device.
func (s *FileStat) Block() bool { return s.Mode&unix.S_IFMT == unix.S_IFBLK }

// Kind names the file type for messages.
func (s *FileStat) Kind() string {
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "regular file"
	case unix.S_IFBLK:
		return "block device"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFCHR:
		return "character device"
	case unix.S_IFIFO:
		return "FIFO"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "special file"
}

func (s *FileStat) set(st *unix.Stat_t) {
	s.Dev, s.Ino, s.Rdev, s.Mode = uint64(st.Dev), st.Ino, uint64(st.Rdev), st.Mode
	s.Size, s.Allocated, s.BlockSize = st.Size, st.Blocks*512, int(st.Blksize)
}

// Stat fills s from stat(2) of path, following symbolic links.
func Stat(path string, s *FileStat) error {
	var st unix.Stat_t
	for {
		err := unix.Stat(path, &st)
		if err == unix.EINTR {
			continue
		}
		if err == nil {
			s.set(&st)
		}
		return err
	}
}

// Fstat fills s from fstat(2) of fd.
func Fstat(fd int, s *FileStat) error {
	var st unix.Stat_t
	for {
		err := unix.Fstat(fd, &st)
		if err == unix.EINTR {
			continue
		}
		if err == nil {
			s.set(&st)
		}
		return err
	}
}

// DirectAlign reports what direct I/O on fd asks for, in bytes: the alignment of
// memory and that of offsets and lengths (statx(2), STATX_DIOALIGN). ok is false
// where the kernel does not say (before 6.1, or a file system that does not
// tell); both zero with ok mean that direct I/O is not supported.
func DirectAlign(fd int) (mem, off int, ok bool) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 {
		return 0, 0, false
	}
	return int(st.Dio_mem_align), int(st.Dio_offset_align), true
}

// FileSystem magic numbers that vtgt treats apart.
const (
	TmpfsMagic = unix.TMPFS_MAGIC
)

// FileSystemSpace gives the size of fd's file system and what unprivileged users may
// still take of it, in bytes (fstatfs(2)). It sleeps.
func FileSystemSpace(fd int) (total, avail int64, err error) {
	var st unix.Statfs_t
	for {
		err = unix.Fstatfs(fd, &st)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, 0, err
	}
	unit := int64(st.Frsize)
	if unit == 0 {
		unit = int64(st.Bsize)
	}
	return times(st.Blocks, unit), times(st.Bavail, unit), nil
}

// times is n*unit, bounded: file systems of the network tell what they like.
func times(n uint64, unit int64) int64 {
	if unit <= 0 || n > uint64(math.MaxInt64/unit) {
		return math.MaxInt64
	}
	return int64(n) * unit
}

// FileSystemMagic is f_type of fstatfs(2), 0 where it fails.
func FileSystemMagic(fd int) int64 {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return 0
	}
	return int64(st.Type)
}

// Fdatasync makes the data of fd, and the metadata needed to find them, stable.
// It sleeps. An error is reported once to each open file description: never
// retry it.
func Fdatasync(fd int) error {
	for {
		err := unix.Fdatasync(fd)
		if err != unix.EINTR {
			return err
		}
	}
}

// Fsync makes data and metadata of fd stable.
func Fsync(fd int) error {
	for {
		err := unix.Fsync(fd)
		if err != unix.EINTR {
			return err
		}
	}
}

// Fallocate is fallocate(2) with EINTR retried (all modes vtgt uses are
// idempotent).
func Fallocate(fd int, mode uint32, off, n int64) error {
	for {
		err := unix.Fallocate(fd, mode, off, n)
		if err != unix.EINTR {
			return err
		}
	}
}

// Ftruncate sets the length of fd in bytes.
func Ftruncate(fd int, n int64) error {
	for {
		err := unix.Ftruncate(fd, n)
		if err != unix.EINTR {
			return err
		}
	}
}

// SeekData gives the offset of the first allocated byte at or after off; ENXIO
// when there is none.
func SeekData(fd int, off int64) (int64, error) { return unix.Seek(fd, off, unix.SEEK_DATA) }

// SeekHole gives the offset of the first hole at or after off (the end of the
// file counts as one).
func SeekHole(fd int, off int64) (int64, error) { return unix.Seek(fd, off, unix.SEEK_HOLE) }

// IsNotSupported reports the errno values by which kernels say that an operation
// does not exist for this file.
func IsNotSupported(err error) bool {
	switch err {
	case syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.ENOTTY, syscall.ENODEV:
		return true
	}
	return false
}

// OpenUnnamed opens a new file without a name in directory dir (O_TMPFILE), for
// reading and writing. flags are added.
func OpenUnnamed(dir string, flags int, mode uint32) (int, error) {
	return OpenFile(dir, unix.O_TMPFILE|unix.O_RDWR|flags, mode)
}

// LinkFile gives the unnamed file fd the name path; EEXIST when the name is
// taken: nothing is ever replaced.
func LinkFile(fd int, path string) error {
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
}

// CloneRange has [off, off+n) of dst share the blocks of [from, from+n) of src
// (FICLONERANGE), with EINTR retried. Offsets and length are multiples of the file
// system's block size.
func CloneRange(dst int, off int64, src int, from, n int64) error {
	r := unix.FileCloneRange{Src_fd: int64(src), Src_offset: uint64(from), Src_length: uint64(n), Dest_offset: uint64(off)}
	for {
		err := unix.IoctlFileCloneRange(dst, &r)
		if err != unix.EINTR {
			return err
		}
	}
}

// CopyRange copies at most n bytes from src at from to dst at off inside the kernel
// (copy_file_range(2)), with EINTR retried, and returns how many; 0 at the end of src.
func CopyRange(dst int, off int64, src int, from int64, n int) (int, error) {
	for {
		m, err := unix.CopyFileRange(src, &from, dst, &off, n, 0)
		if err != unix.EINTR {
			return m, err
		}
	}
}
