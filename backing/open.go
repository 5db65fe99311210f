package backing

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
)

// Cache is a store's write policy.
type Cache uint8

const (
	// Writeback: a write ends when the host's page cache has it; Sync and FUA
	// make it stable (Info.Volatile).
	Writeback Cache = iota
	// Writethrough: every write is stable before it ends.
	Writethrough
	// Direct bypasses the host's page cache (O_DIRECT). The device's own cache
	// remains, so writes are stable only after a Sync or with FUA.
	Direct
)

// String gives the word of the configuration file.
func (c Cache) String() string {
	switch c {
	case Writeback:
		return "writeback"
	case Writethrough:
		return "writethrough"
	case Direct:
		return "direct"
	}
	return fmt.Sprintf("Cache(%#x)", uint8(c))
}

// ParseCache reads the word of the configuration file; empty is writeback.
func ParseCache(s string) (Cache, error) {
	switch s {
	case "", "writeback":
		return Writeback, nil
	case "writethrough":
		return Writethrough, nil
	case "direct":
		return Direct, nil
	}
	return 0, fmt.Errorf("unknown cache mode %q: use writeback, writethrough or direct", s)
}

// Options say how Open opens a store.
type Options struct {
	// Size in bytes: that of mem: and null: stores and of a file to create; 0
	// takes the size of what is there. An existing file or device that is
	// shorter is an error, a longer one is served whole.
	Size int64
	// Create makes a missing file, sparse, Size bytes long.
	Create bool
	// ReadOnly opens for reading and shares with other readers.
	ReadOnly bool
	// Cache is the write policy.
	Cache Cache
	// Claimed serves a block device although the signature of a volume manager
	// is on it: what is on it is its initiators'. A device that the host uses at
	// present is refused all the same.
	Claimed bool
	// LockWait bounds the wait for a lock that somebody else holds; 0 does not
	// wait. A daemon that restarts waits for its predecessor's last I/O.
	LockWait time.Duration
	// Group runs the store's timers and blocking work. Needed by file: and
	// block:.
	Group *loop.Group
	// Log hears of what an operator should know; nil is silent.
	Log *slog.Logger
	// AtomicLog is the path of the intent log that makes Writes with Atomic out of a
	// file: or block: store; empty: there are none. It is made when the first comes,
	// AtomicLogSize bytes long or as many as one slot needs. Open replays it.
	AtomicLog     string
	AtomicLogSize int64
	// AtomicMax is the longest such Write, bytes, at most 1 MiB.
	AtomicMax int
	// KeyFile is the path of an encrypted: store's key file.
	KeyFile string
	// Migratable has a file: or block: store opened without its locks: see Holder.
	Migratable bool
	// Given, when set, are the descriptors of a process that has served the store
	// until now (see HandOver), with its locks: the path is not opened. They are the
	// store's if Open succeeds.
	Given *Given
	// Fdatasync is called in the place of fdatasync(2), by tests of what happens
	// when it fails; nil: that itself. It may sleep.
	Fdatasync func(fd int) error
}

// OpenError tells a user why a store was not opened and what to do about it.
// It unwraps to ErrInUse, ErrNotSupported or the errno.
type OpenError struct {
	Spec    string // scheme:rest as configured
	Problem string
	Hint    string // what to do, may be empty
	Err     error
}

func (e *OpenError) Error() string {
	s := e.Spec + ": " + e.Problem
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

func (e *OpenError) Unwrap() error { return e.Err }

// Open opens the store that spec names: file:/path, encrypted:/path, block:/dev/x,
// mem: or null:. It may sleep; call it on an ordinary goroutine. Its errors are
// *OpenError.
func Open(spec string, o Options) (Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	scheme, rest, ok := strings.Cut(spec, ":")
	if !ok {
		return nil, &OpenError{Spec: spec, Problem: "no scheme", Hint: "write file:/path, encrypted:/path, block:/dev/..., mem: or null:"}
	}
	if o.Size < 0 {
		return nil, &OpenError{Spec: spec, Problem: fmt.Sprintf("size %d is negative", o.Size), Hint: "give a size in bytes"}
	}
	if o.Cache > Direct {
		return nil, &OpenError{Spec: spec, Problem: "unknown cache mode " + o.Cache.String(), Hint: "use writeback, writethrough or direct"}
	}
	switch scheme {
	case "file", "block":
		if rest == "" {
			return nil, &OpenError{Spec: spec, Problem: "no path", Hint: "write " + scheme + ":/path"}
		}
		if o.Group == nil {
			return nil, &OpenError{Spec: spec, Problem: "Options.Group is nil", Hint: "give the loop group that runs the store's work"}
		}
		st, err := openFile(spec, rest, scheme == "block", o)
		if err != nil {
			return nil, err
		}
		if o.AtomicLog == "" {
			return st, nil
		}
		s, err := fileIntentLog(spec, st, o)
		if err != nil {
			_ = st.Close()
			return nil, err
		}
		return s, nil
	case "encrypted":
		if rest == "" {
			return nil, &OpenError{Spec: spec, Problem: "no path", Hint: "write encrypted:/path"}
		}
		if o.Group == nil {
			return nil, &OpenError{Spec: spec, Problem: "Options.Group is nil", Hint: "give the loop group that runs the store's work"}
		}
		return openEncrypted(spec, rest, o)
	case "mem":
		return openMem(spec, rest, o)
	case "null":
		return openNull(spec, rest, o)
	}
	return nil, &OpenError{Spec: spec, Problem: fmt.Sprintf("unknown scheme %q", scheme), Hint: "use file:, encrypted:, block:, mem: or null:"}
}

// needSize checks the size of a store that has none of its own.
func needSize(spec, rest string, o Options) error {
	switch {
	case rest != "":
		return &OpenError{Spec: spec, Problem: fmt.Sprintf("nothing may follow the colon, not %q", rest), Hint: "give the size by size:"}
	case o.Size == 0:
		return &OpenError{Spec: spec, Problem: "no size", Hint: "set size:, for example 1GiB"}
	case o.Size%512 != 0:
		return sizeError(spec, o.Size, "set a size: that is a multiple of 512")
	}
	return nil
}

func sizeError(spec string, size int64, hint string) error {
	return &OpenError{Spec: spec, Hint: hint, Problem: fmt.Sprintf(
		"size %d is not a multiple of 512 bytes, so its last %d bytes would belong to no block", size, size%512)}
}
