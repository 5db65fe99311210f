package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
)

// What has to outlive a process that is killed is parked with its parent: systemd's
// file descriptor store (sd_notify(3), FDSTORE=1), which gives everything back to the
// next process by LISTEN_FDS. A store knows names and descriptors, and drops a second
// copy of what it has. So a block and its Set go into it as parcels, sockets in which
// they wait as messages: all of one state comes and goes under one name.

const (
	parkPrefix = "vtgt-park-"
	parkHeader = 32
	// storeTime bounds the wait for a parent that does not read.
	storeTime = 5 * time.Second
)

var parkMagic = [8]byte{'v', 't', 'g', 't', 'P', 'A', 'R', 'K'}

// IsParked tells whether a descriptor with that name (LISTEN_FDNAMES) is a parcel.
func IsParked(name string) bool { return strings.HasPrefix(name, parkPrefix) }

// Store is the parent's store. Methods may be called on any goroutine.
type Store struct {
	c  *net.UnixConn
	to *net.UnixAddr
}

// OpenStore connects to the one behind NOTIFY_SOCKET.
func OpenStore(addr string) (*Store, error) {
	// Not connected: package net sends descriptors over a connected one to nobody.
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return &Store{c, &net.UnixAddr{Name: addr, Net: "unixgram"}}, nil
}

// Close leaves what is in the store alone.
func (s *Store) Close() error { return s.c.Close() }

// Remove has the store forget all that has that name.
func (s *Store) Remove(name string) error {
	return s.send("FDSTOREREMOVE=1\nFDNAME="+name, -1)
}

// put: the store is not to watch the descriptor, since nobody has a parcel's other end.
func (s *Store) put(name string, fd int) error {
	return s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fd)
}

func (s *Store) send(text string, fd int) error {
	var oob []byte
	if fd >= 0 {
		oob = sys.Rights(fd)
	}
	if err := s.c.SetWriteDeadline(time.Now().Add(storeTime)); err != nil {
		return err
	}
	_, _, err := s.c.WriteMsgUnix([]byte(text), oob, s.to)
	return err
}

// Place is where one thing's state is parked. One goroutine at a time uses it.
type Place struct {
	store *Store
	key   string
	turn  int  // of the present state's name
	known bool // nothing else is under the two names
	full  bool
}

// Place names a thing; key is of letters and digits. turn is Found.Turn where there is
// one, else negative.
func (s *Store) Place(key string, turn int) *Place {
	return &Place{store: s, key: key, turn: max(turn, 0), known: turn >= 0, full: turn >= 0}
}

func (p *Place) name(turn int) string { return fmt.Sprintf("%s%s-%d", parkPrefix, p.key, turn) }

// Park puts block and copies of set's descriptors into the store, and then has it forget
// what was there: whoever comes after a crash between the two finds the newer one.
func (p *Place) Park(block []byte, set *Set) error {
	parcels, err := pack(block, set)
	defer func() {
		for _, fd := range parcels {
			_ = sys.Close(fd)
		}
	}()
	if err != nil {
		return err
	}
	if !p.known {
		// Of a process that was taken over: under which name is not known.
		if err := errors.Join(p.store.Remove(p.name(0)), p.store.Remove(p.name(1))); err != nil {
			return err
		}
		p.known, p.full = true, false
	}
	next := 1 - p.turn
	for _, fd := range parcels {
		if err := p.store.put(p.name(next), fd); err != nil {
			return err
		}
	}
	was := p.turn
	p.turn = next
	if p.full {
		return p.store.Remove(p.name(was))
	}
	p.full = true
	return nil
}

// Clear has the store forget what is parked here.
func (p *Place) Clear() error {
	p.known, p.full = true, false
	return errors.Join(p.store.Remove(p.name(0)), p.store.Remove(p.name(1)))
}

// pack makes the parcels. The first descriptor of the first one is the block.
func pack(block []byte, set *Set) (parcels []int, err error) {
	fd, err := sys.NewMemfd("vtgt-park", int64(len(block)))
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "vtgt-park")
	defer f.Close()
	if _, err := f.WriteAt(block, 0); err != nil {
		return nil, err
	}
	set.mu.Lock()
	defer set.mu.Unlock()
	fds := append([]int{fd}, set.fds...)
	var h [parkHeader]byte
	copy(h[:], parkMagic[:])
	binary.LittleEndian.PutUint64(h[8:], sys.MonotonicMicroseconds())
	binary.LittleEndian.PutUint32(h[16:], uint32(len(fds)))
	binary.LittleEndian.PutUint64(h[24:], uint64(len(block)))
	for at := 0; at < len(fds); at += sys.MaxParcel {
		binary.LittleEndian.PutUint32(h[20:], uint32(at))
		p, err := sys.NewParcel(h[:], fds[at:min(at+sys.MaxParcel, len(fds))])
		if err != nil {
			return parcels, err
		}
		parcels = append(parcels, p)
	}
	return parcels, nil
}

// Found is a state that was parked.
type Found struct {
	Key   string
	Turn  int
	Block []byte
	Set   *Set
	since uint64
}

// Parked reads what came back from the store, which keeps it: of each thing the newest
// state that is whole. The files are closed. rest are names of everything else.
func Parked(files []*os.File) (found []*Found, rest []string) {
	by := map[string][]*os.File{}
	for _, f := range files {
		by[f.Name()] = append(by[f.Name()], f)
	}
	newest := map[string]*Found{}
	for name, fs := range by {
		f, err := unpack(fs)
		for _, x := range fs {
			_ = x.Close()
		}
		rest = append(rest, name)
		if err != nil {
			continue
		}
		key, turn, _ := strings.Cut(strings.TrimPrefix(name, parkPrefix), "-")
		if f.Key = key; turn == "1" {
			f.Turn = 1
		}
		if o := newest[key]; o != nil {
			if o.since > f.since {
				f, o = o, f
			}
			o.Set.Close()
		}
		newest[key] = f
	}
	for _, f := range newest {
		found = append(found, f)
		name := (&Place{key: f.Key}).name(f.Turn)
		rest = slices.DeleteFunc(rest, func(s string) bool { return s == name })
	}
	return found, rest
}

func unpack(fs []*os.File) (f *Found, err error) {
	f = &Found{Set: &Set{}}
	var all []int
	defer func() {
		if err != nil {
			for _, fd := range all {
				if fd >= 0 {
					_ = sys.Close(fd)
				}
			}
		}
	}()
	size, have := uint64(0), 0
	for _, x := range fs {
		var h [parkHeader]byte
		n, fds, err := sys.PeekParcel(int(x.Fd()), h[:])
		at := len(all)
		all = append(all, fds...)
		if err != nil {
			return nil, err
		}
		num, first := int(binary.LittleEndian.Uint32(h[16:])), int(binary.LittleEndian.Uint32(h[20:]))
		if n != parkHeader || [8]byte(h[:8]) != parkMagic || num < 1 || num > maxFDs || first+len(fds) > num {
			return nil, errors.New("it is no parcel")
		}
		if f.Set.fds == nil {
			f.since, size = binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint64(h[24:])
			f.Set.fds = slices.Repeat([]int{-1}, num)
		}
		if f.since != binary.LittleEndian.Uint64(h[8:]) || len(f.Set.fds) != num {
			return nil, errors.New("parcels of two states")
		}
		copy(f.Set.fds[first:], all[at:])
		have += len(fds)
	}
	if have != len(f.Set.fds) || size > maxBlock || slices.Contains(f.Set.fds, -1) {
		return nil, errors.New("parcels are missing")
	}
	f.Block = make([]byte, size)
	m := os.NewFile(uintptr(f.Set.fds[0]), "vtgt-park")
	f.Set.fds = f.Set.fds[1:]
	all = slices.Clone(f.Set.fds)
	defer m.Close()
	_, err = m.ReadAt(f.Block, 0)
	return f, err
}
