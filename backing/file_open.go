package backing

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
)

// openFile opens file: and block: stores.
func openFile(spec, path string, block bool, o Options) (*fileStore, error) {
	s := &fileStore{
		spec: spec, path: path, block: block, readOnly: o.ReadOnly, cache: o.Cache, direct: o.Cache == Direct,
		migratable: o.Migratable, away: o.Migratable,
		log: o.Log, group: o.Group, t0: time.Now(), fdatasync: o.Fdatasync,
	}
	if s.fdatasync == nil {
		s.fdatasync = sys.Fdatasync
	}
	var d *desc
	var err error
	if o.Given != nil {
		d, err = s.takeOver(o.Given)
	} else {
		d, err = s.openFirst(o)
	}
	if err != nil {
		return nil, err
	}
	if err := s.learn(d, o); err != nil {
		if o.Given == nil {
			d.release(false)
		}
		return nil, err
	}
	s.d = d
	s.tellLatch()
	s.jobs = o.Group.Workers().NewJobQueue(storeJobs)
	s.pipe.init(s)
	s.sync.s, s.excl.s = s, s
	s.sync.job.Init(&s.sync)
	s.excl.job.Init(&s.excl)
	s.poll.start(s)
	return s, nil
}

func (s *fileStore) problem(err error, hint, format string, a ...any) error {
	return &OpenError{Spec: s.spec, Problem: fmt.Sprintf(format, a...), Hint: hint, Err: err}
}

// openFirst opens and locks the path, making the file if that is wanted.
func (s *fileStore) openFirst(o Options) (*desc, error) {
	var st sys.FileStat
	err := sys.Stat(s.path, &st)
	if errors.Is(err, syscall.ENOENT) && !s.block && o.Create {
		d, err := s.create(o)
		if !errors.Is(err, syscall.EEXIST) {
			return d, err
		}
		// Somebody else made it just now: serve that.
		err = sys.Stat(s.path, &st)
		if err != nil {
			return nil, s.statProblem(err, o)
		}
	} else if err != nil {
		return nil, s.statProblem(err, o)
	}
	if err := s.checkKind(&st); err != nil {
		return nil, err
	}
	if s.block {
		// Names the user, where O_EXCL only tells that there is one.
		if e := HostRefusal(s.path, o.Claimed); e != nil {
			return nil, e
		}
	}
	d, err := s.openPath()
	if err != nil {
		return nil, err
	}
	if s.migratable {
		return d, nil
	}
	if err := s.lock(d, o.LockWait); err != nil {
		d.release(false)
		return nil, err
	}
	return d, nil
}

func (s *fileStore) statProblem(err error, o Options) error {
	switch {
	case errors.Is(err, syscall.ENOENT) && s.block:
		return s.problem(err, "check the path, or that the device is attached", "no such device")
	case errors.Is(err, syscall.ENOENT):
		size := "10GiB"
		if o.Size > 0 {
			size = strconv.FormatInt(o.Size, 10)
		}
		return s.problem(err, fmt.Sprintf("make it with `truncate -s %s %s`, or set create: true and size:", shellSize(size), s.path), "no such file")
	case errors.Is(err, syscall.EACCES):
		return s.problem(err, "let the user that runs vtgt search its folders", "permission denied")
	}
	return s.problem(err, "", "%v", err)
}

func shellSize(s string) string {
	if s == "10GiB" {
		return "10G"
	}
	return s
}

func (s *fileStore) checkKind(st *sys.FileStat) error {
	switch {
	case s.block && !st.Block():
		hint := "give the path of a block device"
		if st.Regular() {
			hint = "write file:" + s.path
		}
		return s.problem(syscall.ENOTBLK, hint, "is a %s, not a block device", st.Kind())
	case !s.block && !st.Regular():
		hint := "give the path of a raw image file"
		if st.Block() {
			hint = "write block:" + s.path
		}
		return s.problem(syscall.EINVAL, hint, "is a %s, not a regular file", st.Kind())
	}
	return nil
}

// openFlags of the description that does the I/O.
func (s *fileStore) openFlags() int {
	f := sys.O_RDWR
	if s.readOnly {
		f = sys.O_RDONLY
	}
	if s.direct {
		f |= sys.O_DIRECT
	}
	if s.block && !s.readOnly && !s.migratable {
		f |= sys.O_EXCL // nobody mounts it or makes it a part of something
	}
	return f
}

// openPath opens the path once, without locks.
func (s *fileStore) openPath() (*desc, error) {
	fd, err := sys.OpenFile(s.path, s.openFlags(), 0)
	if err != nil {
		return nil, s.openProblem(err)
	}
	d := &desc{fd: fd, witness: -1}
	d.refs.Store(1)
	if err := sys.Fstat(fd, &d.st); err != nil {
		d.release(false)
		return nil, s.problem(err, "", "fstat: %v", err)
	}
	if err := s.checkKind(&d.st); err != nil { // swapped since
		d.release(false)
		return nil, err
	}
	s.addWitness(d)
	return d, nil
}

// addWitness opens the second description; without it a write that finds no
// space latches when it should not, which is safe.
func (s *fileStore) addWitness(d *desc) {
	if s.readOnly {
		return
	}
	if fd, err := sys.OpenFile("/proc/self/fd/"+strconv.Itoa(d.fd), sys.O_RDONLY, 0); err == nil {
		d.witness = fd
	}
}

func (s *fileStore) openProblem(err error) error {
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		how := "read and write it"
		if s.readOnly {
			how = "read it"
		}
		return s.problem(err, "let the user that runs vtgt "+how+", or set readOnly: true", "permission denied")
	case errors.Is(err, syscall.EROFS):
		return s.problem(err, "set readOnly: true, or make it writable", "is read-only")
	case errors.Is(err, syscall.EINVAL) && s.direct:
		return s.problem(err, "use cache: writeback or writethrough", "its file system has no direct I/O")
	case errors.Is(err, syscall.EBUSY):
		return s.problem(inUse(err), "unmount it or stop what uses it (lsblk shows mounts and holders)",
			"the device is in use: it is mounted, part of a volume or RAID, swap, or opened exclusively")
	case errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENOMEDIUM):
		return s.problem(err, "attach the device or insert a medium", "there is no device or no medium behind the path")
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return s.problem(err, "raise the limit of open files (ulimit -n, LimitNOFILE=)", "too many open files")
	}
	return s.problem(err, "", "open: %v", err)
}

// inUse makes an error that is both.
func inUse(err error) error { return fmt.Errorf("%w (%w)", ErrInUse, err) }

// lock takes the locks, waiting up to wait for somebody to let go.
func (s *fileStore) lock(d *desc, wait time.Duration) error {
	set := locksFor(s.readOnly)
	end := time.Now().Add(wait)
	for told := false; ; told = true {
		why, err := set.take(d.fd)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errNoLocks):
			s.log.Warn("cannot lock: nothing keeps others from writing this store", "store", s.spec, "error", err)
			return nil
		case !errors.Is(err, ErrInUse):
			return s.problem(err, "", "lock: %v", err)
		}
		if time.Until(end) <= 0 {
			who := holders(&d.st)
			if who == "" {
				who = "another process, or another disk of this one"
			}
			return s.problem(err, "stop it, or detach the disk there", "is in use by %s: %s", who, why)
		}
		if !told {
			s.log.Info("waiting for the store's lock", "store", s.spec, "reason", why, "holder", holders(&d.st), "limit", wait)
		}
		time.Sleep(min(100*time.Millisecond, time.Until(end)))
	}
}

// create makes a sparse file of o.Size bytes. It gets its name only when it has
// its size and its locks, and never takes the place of another (EEXIST).
func (s *fileStore) create(o Options) (*desc, error) {
	switch {
	case s.readOnly:
		return nil, s.problem(syscall.ENOENT, "make the file first, or set readOnly: false", "no such file, and a read-only disk is not created")
	case o.Size == 0:
		return nil, s.problem(syscall.ENOENT, "set size: beside create: true", "no such file, and no size to create it with")
	case o.Size%512 != 0:
		return nil, sizeError(s.spec, o.Size, "set a size: that is a multiple of 512")
	}
	named := false
	flags := s.openFlags() &^ sys.O_RDWR
	fd, err := sys.OpenUnnamed(filepath.Dir(s.path), flags, 0o600)
	if sys.IsNotSupported(err) || errors.Is(err, syscall.EISDIR) {
		named = true
		fd, err = sys.OpenFile(s.path, s.openFlags()|sys.O_CREAT|sys.O_EXCL, 0o600)
	}
	if err != nil {
		if errors.Is(err, syscall.EEXIST) {
			return nil, err
		}
		if errors.Is(err, syscall.ENOENT) {
			return nil, s.problem(err, "make the folder "+filepath.Dir(s.path), "its folder does not exist")
		}
		if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EROFS) {
			return nil, s.problem(err, "let the user that runs vtgt write the folder "+filepath.Dir(s.path), "cannot create it: %v", err)
		}
		return nil, s.openProblem(err)
	}
	d := &desc{fd: fd, witness: -1}
	d.refs.Store(1)
	fail := func(err error) (*desc, error) {
		d.release(false)
		if named {
			_ = syscall.Unlink(s.path)
		}
		return nil, err
	}
	if err := sys.Ftruncate(fd, o.Size); err != nil {
		hint := "choose a smaller size: or another file system"
		return fail(s.problem(err, hint, "cannot make it %d bytes long: %v", o.Size, err))
	}
	if !s.migratable {
		if err := s.lock(d, 0); err != nil {
			return fail(err)
		}
	}
	// The name must not survive a crash that the size does not.
	if err := sys.Fsync(fd); err != nil {
		return fail(s.problem(err, "", "sync: %v", err))
	}
	if !named {
		if err := sys.LinkFile(fd, s.path); err != nil {
			if errors.Is(err, syscall.EEXIST) {
				return fail(err)
			}
			return fail(s.problem(err, "", "cannot give it its name: %v", err))
		}
	}
	if dir, err := sys.OpenFile(filepath.Dir(s.path), sys.O_RDONLY, 0); err == nil {
		_ = sys.Fsync(dir)
		_ = sys.CloseFile(dir)
	}
	if err := sys.Fstat(fd, &d.st); err != nil {
		return fail(s.problem(err, "", "fstat: %v", err))
	}
	s.addWitness(d)
	s.log.Info("created", "store", s.spec, "size", o.Size)
	return d, nil
}

// learn finds out what the file can do and makes the Info.
func (s *fileStore) learn(d *desc, o Options) error {
	info := &Info{
		BlockAlign: 1, PhysicalBlock: 4096, ReadOnly: s.readOnly, Volatile: s.cache != Writethrough, Stable: true,
		Cached: s.cache != Direct, Pins: s.direct,
	}
	size := d.st.Size
	if s.block {
		b, err := sys.BlockDevice(d.fd)
		if err != nil {
			return s.problem(err, "", "%v", err)
		}
		if b.ReadOnly && !s.readOnly {
			return s.problem(syscall.EROFS, "set readOnly: true", "the device is read-only")
		}
		size = b.Size
		s.lbs = b.LogicalBlock
		info.PhysicalBlock, info.OptimalIO, info.Rotational = b.PhysicalBlock, b.OptimalIO, b.Rotational
		info.DiscardZeroes = b.WriteZeroesMax > 0
		if b.DiscardMax > 0 || b.WriteZeroesMax > 0 {
			info.DiscardGranularity = int(max(b.DiscardGranularity, int64(b.LogicalBlock)))
		}
		if s.direct && s.cache == Direct && !b.WriteCache {
			info.Volatile = false // neither we nor the device have a cache
		}
	}
	if err := s.learnDirect(d, info); err != nil {
		return err
	}
	if err := s.checkSize(size, o.Size); err != nil {
		return err
	}
	info.Size = size
	nowait := s.probeNowait(d.fd)
	tmpfs := !s.block && sys.FileSystemMagic(d.fd) == sys.TmpfsMagic
	s.local = s.block || nowait || tmpfs
	switch {
	case nowait:
		s.readInline, s.writeInline = inlineNowait, inlinePlain
	case tmpfs:
		s.readInline, s.writeInline = inlinePlain, inlinePlain
	}
	if !s.block {
		_, err := sys.SeekData(d.fd, 0)
		info.Extents = err == nil || errors.Is(err, syscall.ENXIO)
		if !s.readOnly {
			// A hole beyond the end changes nothing and tells.
			err := sys.Fallocate(d.fd, sys.FALLOC_FL_PUNCH_HOLE|sys.FALLOC_FL_KEEP_SIZE, roundUp(size, 1<<20), 1<<20)
			if err == nil {
				info.DiscardGranularity, info.DiscardZeroes = max(d.st.BlockSize, 512), true
			} else {
				s.noPunch.Store(true)
			}
		}
	}
	s.p.Store(info)
	return nil
}

func (s *fileStore) checkSize(size, want int64) error {
	unit := s.sizeUnit()
	switch {
	case size == 0 && s.block:
		return s.problem(syscall.EINVAL, "insert a medium or set the device up first", "the device is empty (size 0)")
	case size == 0:
		n := "10G"
		if want > 0 {
			n = strconv.FormatInt(want, 10)
		}
		return s.problem(syscall.EINVAL, fmt.Sprintf("give it a size with `truncate -s %s %s`, or remove it and set create: true", n, s.path), "the file is empty")
	case size%512 != 0:
		return sizeError(s.spec, size, fmt.Sprintf("round it up with `truncate -s %%512 %s`", s.path))
	case size%unit != 0:
		return s.problem(syscall.EINVAL, fmt.Sprintf("round it up with `truncate -s %%%d %s`, or use cache: writeback", unit, s.path),
			"size %d is not a multiple of %d bytes, which direct I/O needs here", size, unit)
	case size < want && s.block:
		return s.problem(syscall.EINVAL, "correct or remove size:", "the device has %d bytes, less than the configured %d", size, want)
	case size < want:
		return s.problem(syscall.EINVAL, fmt.Sprintf("grow it with `truncate -s %d %s`, or correct size:", want, s.path),
			"the file has %d bytes, less than the configured %d", size, want)
	case want > 0 && size > want:
		s.log.Warn("longer than configured: all of it is served", "store", s.spec, "size", size, "configured", want)
	}
	return nil
}

// learnDirect finds the alignment that direct I/O needs.
func (s *fileStore) learnDirect(d *desc, info *Info) error {
	if !s.direct {
		return nil
	}
	mem, off, ok := sys.DirectAlign(d.fd)
	if ok && off == 0 {
		return s.problem(ErrNotSupported, "use cache: writeback or writethrough", "its file system has no direct I/O for this file")
	}
	if !ok && s.block {
		mem, off, ok = s.lbs, s.lbs, true
	}
	if !ok {
		var err error
		if off, err = probeDirect(d.fd); err != nil {
			return s.problem(err, "use cache: writeback or writethrough", "direct I/O fails: %v", err)
		}
		mem = off
	}
	if mem <= 0 || mem&(mem-1) != 0 || off&(off-1) != 0 || mem > 4096 || off > 64<<10 {
		return s.problem(ErrNotSupported, "use cache: writeback or writethrough", "direct I/O needs an alignment of %d and %d bytes, which vtgt does not give", mem, off)
	}
	s.memAlign, s.offAlign = mem, off
	info.PhysicalBlock = max(info.PhysicalBlock, off)
	return nil
}

// probeDirect finds the smallest block that can be read directly, for kernels
// that do not say.
func probeDirect(fd int) (int, error) {
	buf, err := sys.MapAnonymous(8192)
	if err != nil {
		return 0, err
	}
	defer sys.Unmap(buf)
	for a := 512; a <= 4096; a *= 2 {
		iov := make([]sys.Iovec, 1)
		sys.SetIovec(&iov[0], buf[a:2*a])
		if _, err = retry(sys.Preadv2, fd, iov, int64(a), 0); err == nil {
			return a, nil
		}
	}
	return 0, err
}

// probeNowait reports whether reads know RWF_NOWAIT. What is not cached answers
// EAGAIN, which is a yes.
func (s *fileStore) probeNowait(fd int) bool {
	if s.direct {
		return false
	}
	iov := make([]sys.Iovec, 1)
	sys.SetIovec(&iov[0], make([]byte, 512))
	for {
		_, e := sys.Preadv2(fd, iov, 0, sys.RWF_NOWAIT)
		if e == sys.EINTR {
			continue
		}
		return e == 0 || e == sys.EAGAIN
	}
}

// openAgain opens the path for Reopen. It gives old, with a reference more, where
// a device is still the same.
func (s *fileStore) openAgain(old *desc) (*desc, error) {
	d, err := s.openPath()
	if err != nil {
		if s.block && errors.Is(err, ErrInUse) {
			// Our own exclusive claim: the device is still the one we have.
			old.refs.Add(1)
			return old, nil
		}
		return nil, err
	}
	set := locksFor(s.readOnly)
	if s.away {
		// Nobody's, for now.
	} else if d.st.Dev == old.st.Dev && d.st.Ino == old.st.Ino {
		// Our own old locks are on the file, so nobody else's can be.
		err = set.place(d.fd)
	} else {
		err = s.lock(d, 0)
	}
	if err != nil && !errors.Is(err, errNoLocks) {
		d.release(false)
		return nil, err
	}
	if err := s.sameAlign(d); err != nil {
		d.release(false)
		return nil, err
	}
	return d, nil
}

// sameAlign refuses a file that needs coarser direct I/O than the one before:
// queues are at work with the old numbers.
func (s *fileStore) sameAlign(d *desc) error {
	if !s.direct {
		return nil
	}
	if mem, off, ok := sys.DirectAlign(d.fd); ok && (mem > s.memAlign || off > s.offAlign) {
		return s.problem(ErrNotSupported, "remove the disk and add it again", "the file now needs direct I/O in blocks of %d bytes, %d before", off, s.offAlign)
	}
	return nil
}
