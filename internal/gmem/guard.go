package gmem

import (
	"fmt"
	"runtime/debug"
	"syscall"
)

// A FaultError is an access to guest memory that was not there: its file was
// truncated, the machine could not provide the page, or it was cut off.
type FaultError struct {
	Generation int     // 0: no region lies there any more
	Region     *Region // nil: as above
	Addr       uint64  // guest physical address; without a region the offset in the reservation
	Cut        bool    // we took it away ourselves
}

func (e *FaultError) Error() string {
	switch {
	case e.Region == nil:
		return fmt.Sprintf("guest memory of an earlier generation was touched (%#x bytes into the reservation)", e.Addr)
	case e.Cut:
		return fmt.Sprintf("guest memory at %#x was cut off while in use: region %v of generation %d", e.Addr, e.Region, e.Generation)
	}
	return fmt.Sprintf("guest memory at %#x is gone: region %v of generation %d was truncated by its owner, or the machine is out of (huge) pages",
		e.Addr, e.Region, e.Generation)
}

// Guard calls step(arg), which may touch guest memory of s, and returns a
// *FaultError if it touched what is not there: step ended at that point. It is
// meant for all that one ring does in one round of its loop; step should be a
// function of a package, so that nothing is allocated. step must not hold a lock
// while it touches guest memory.
//
// Any other panic goes on.
func Guard[T any](s *Space, step func(T), arg T) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if p := recover(); p != nil {
			if err = s.fault(p); err == nil {
				panic(p)
			}
		}
	}()
	step(arg)
	return nil
}

// Try calls step(arg), which may touch memory that its owner can take away, of
// whatever Space, and returns EFAULT if it touched what is not there: step ended at
// that point. It is for copies of payload, by code that knows of buffers only, and
// says what the system calls that copy say. step holds no lock and leaves nothing
// half done; whether it is in a Guard or not makes no difference.
func Try[T any](step func(T), arg T) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		if !old {
			debug.SetPanicOnFault(false)
		}
		if p := recover(); p != nil {
			if _, ok := p.(interface{ Addr() uintptr }); !ok {
				panic(p)
			}
			err = syscall.EFAULT
		}
	}()
	step(arg)
	return nil
}

// fault makes an error of a recovered panic, nil if it is none of ours.
func (s *Space) fault(p any) error {
	f, ok := p.(interface{ Addr() uintptr })
	if !ok {
		return nil
	}
	at := f.Addr()
	s.mu.Lock()
	defer s.mu.Unlock()
	for m := range s.maps {
		for _, r := range m.regions {
			if within(r.whole, at) {
				reg := r.Region
				return &FaultError{m.gen, &reg, r.Guest + uint64(at) - uint64(addr(r.mem)), r.gone.Load()}
			}
		}
	}
	for _, c := range s.chunks {
		if within(c, at) {
			return &FaultError{Addr: uint64(at - addr(c))}
		}
	}
	return nil
}
