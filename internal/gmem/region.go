package gmem

import (
	"fmt"
	"math"
	"sync/atomic"

	"github.com/vtgt/vtgt/internal/sys"
)

// MaxRegions is the most regions of one generation: QEMU's own limit of memory
// slots for vhost-user (VHOST_USER_MAX_RAM_SLOTS).
const MaxRegions = 512

// A Region says where guest memory is to be found, in the words of a vhost-user
// memory region description.
type Region struct {
	Guest uint64 // guest physical address of the first byte
	Size  uint64 // in bytes, not 0
	User  uint64 // address of the first byte in the front end's process: ring addresses are given in these
	FD    int    // a regular file (memfd, hugetlbfs, file); the caller closes it, any time after Map, Add or Remove has returned
	Off   uint64 // of the first byte in FD
}

func (r *Region) String() string {
	return fmt.Sprintf("guest %#x to %#x (%d bytes from offset %#x of its file)", r.Guest, r.Guest+(r.Size-1), r.Size, r.Off)
}

// mapping is a mapped region. Generations that differ by one region share the
// others.
type mapping struct {
	Region
	mem   []byte      // the region's bytes
	whole []byte      // the pages that hold them: what was mapped
	users int         // generations that hold it; under Space.mu
	live  int         // of these the ones neither retired nor cut; under Space.mu
	gone  atomic.Bool // cut off
}

// checkRange tells whether n bytes from addr on wrap around.
func checkRange(addr, n uint64) bool { return n <= math.MaxUint64-addr }

// open checks r against its file and maps it. Errors do not name the region: the
// caller does.
func (s *Space) open(r Region) (*mapping, error) {
	switch {
	case r.Size == 0:
		return nil, fmt.Errorf("it is empty")
	case !checkRange(r.Guest, r.Size):
		return nil, fmt.Errorf("its guest addresses wrap around")
	case !checkRange(r.User, r.Size):
		return nil, fmt.Errorf("its user addresses wrap around")
	case !checkRange(r.Off, r.Size) || r.Off+r.Size > math.MaxInt64:
		return nil, fmt.Errorf("its offsets wrap around")
	}
	var st sys.FileStat
	if err := sys.Fstat(r.FD, &st); err != nil {
		return nil, fmt.Errorf("fstat: %w", err)
	}
	if !st.Regular() {
		return nil, fmt.Errorf("its descriptor is a %s: guest memory must be a memfd or a file (QEMU: share=on)", st.Kind())
	}
	if uint64(st.Size) < r.Off+r.Size {
		return nil, fmt.Errorf("its file has %d bytes only", st.Size)
	}
	pg, err := sys.MapPage(r.FD)
	if err != nil {
		return nil, fmt.Errorf("fstatfs: %w", err)
	}
	page := uint64(pg)
	if page == 0 || page&(page-1) != 0 {
		return nil, fmt.Errorf("its file has pages of %d bytes", pg)
	}
	// The peer's offset need not sit at a page: QEMU cuts regions where the
	// machine has holes, also below the size of a huge page.
	first := r.Off &^ (page - 1)
	n := (r.Off - first + r.Size + page - 1) &^ (page - 1)
	if n < r.Size || n > math.MaxInt {
		return nil, fmt.Errorf("it is larger than this process's address space")
	}
	b, err := s.reserve(int(n), pg)
	if err != nil {
		return nil, fmt.Errorf("no addresses for it: %w", err)
	}
	if err := sys.MapOver(b, r.FD, int64(first)); err != nil {
		s.release(b)
		return nil, fmt.Errorf("mmap: %w", err)
	}
	lead := r.Off - first
	return &mapping{Region: r, whole: b, mem: b[lead : lead+r.Size : lead+r.Size]}, nil
}
