package backing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
)

// QEMU's raw-file locking. Each permission has a number; a process that holds
// permission p has a shared OFD lock on byte lockPermBase+p, one that does not
// let others have p a shared lock on byte lockSharedBase+p. All locks are shared;
// a conflict is found by asking for the locks of others after one's own are in
// place. Byte 0 belongs to libvirt's lock daemon.
const (
	lockPermBase   = 100
	lockSharedBase = 200
)

// QEMU's permissions (BLK_PERM_*), as bit numbers.
const (
	permRead = iota // consistent read
	permWrite
	permWriteUnchanged
	permResize
	permEnd
)

// lockSet is what a store holds and what it denies to others, as bit sets.
type lockSet struct {
	held, denied uint
}

// locksFor gives the set of a writer, which nobody else may write beside and who
// may resize, or of a reader, which shares with readers only.
func locksFor(readOnly bool) lockSet {
	l := lockSet{held: 1 << permRead, denied: 1<<permWrite | 1<<permResize}
	if !readOnly {
		l.held |= 1<<permWrite | 1<<permResize
	}
	return l
}

// errNoLocks: the file system has no locks.
var errNoLocks = errors.New("the file system has no locks")

// place puts the locks on fd's open file description. They coexist with those
// of an earlier description of our own, so a re-open leaves no gap.
func (l lockSet) place(fd int) error {
	for p := int64(0); p < permEnd; p++ {
		if l.held&(1<<p) != 0 {
			if err := lockByte(fd, lockPermBase+p); err != nil {
				return err
			}
		}
		if l.denied&(1<<p) != 0 {
			if err := lockByte(fd, lockSharedBase+p); err != nil {
				return err
			}
		}
	}
	return nil
}

func lockByte(fd int, off int64) error {
	err := sys.LockShared(fd, off, 1)
	switch err {
	case nil:
		return nil
	case syscall.EAGAIN, syscall.EACCES:
		return ErrInUse
	case syscall.ENOLCK, syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.EINVAL:
		return fmt.Errorf("%w (%v)", errNoLocks, err)
	}
	return err
}

// conflict says what another description forbids; empty when nothing.
func (l lockSet) conflict(fd int) (string, error) {
	for p := int64(0); p < permEnd; p++ {
		if l.held&(1<<p) != 0 {
			if taken, err := sys.Locked(fd, lockSharedBase+p); err != nil {
				return "", err
			} else if taken {
				return "it does not share " + permName(p), nil
			}
		}
		if l.denied&(1<<p) != 0 {
			if taken, err := sys.Locked(fd, lockPermBase+p); err != nil {
				return "", err
			} else if taken {
				return "it holds " + permName(p), nil
			}
		}
	}
	return "", nil
}

// drop takes the locks away, for a description that is not to be used.
func (l lockSet) drop(fd int) {
	_ = sys.Unlock(fd, lockPermBase, permEnd)
	_ = sys.Unlock(fd, lockSharedBase, permEnd)
}

// take places the locks and looks for a conflict. On ErrInUse nothing is held.
func (l lockSet) take(fd int) (string, error) {
	err := l.place(fd)
	why := "it has locked the file"
	if err == nil {
		if why, err = l.conflict(fd); err == nil {
			if why == "" {
				return "", nil
			}
			err = ErrInUse
		}
	}
	l.drop(fd)
	return why, err
}

func permName(p int64) string {
	switch p {
	case permRead:
		return `QEMU's "consistent read" lock`
	case permWrite:
		return `QEMU's "write" lock`
	case permWriteUnchanged:
		return `QEMU's "write unchanged" lock`
	case permResize:
		return `QEMU's "resize" lock`
	}
	return "lock " + strconv.FormatInt(p, 10)
}

// holders names, as far as /proc shows it, the processes that have the file of
// st open: "qemu-img (pid 123)". For messages only. It looks for a second at
// most: some process may have a file open whose server does not answer.
func holders(st *sys.FileStat) string {
	found := make(chan string, 1)
	look := *st
	go func() { found <- findHolders(&look) }()
	select {
	case s := <-found:
		return s
	case <-time.After(time.Second):
		return ""
	}
}

func findHolders(st *sys.FileStat) string {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	var names []string
	last := ""
	for _, fd := range fds {
		pid := strings.Split(fd, "/")[2]
		if pid == last || pid == strconv.Itoa(os.Getpid()) {
			continue
		}
		var s sys.FileStat
		if sys.Stat(fd, &s) != nil || s.Dev != st.Dev || s.Ino != st.Ino {
			continue
		}
		last = pid
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		names = append(names, strings.TrimSpace(string(comm))+" (pid "+pid+")")
		if len(names) == 4 {
			break
		}
	}
	return strings.Join(names, ", ")
}
