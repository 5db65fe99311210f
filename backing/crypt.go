package backing

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/xts"

	"github.com/vtgt/vtgt/internal/loop"
)

// cryptStore encrypts what another store holds, from cryptDataOff on. A sector that is
// zero there reads zero: so a hole is one, and what is discarded reads zero. (No data
// give such a sector but by a chance of 1 in 2^4096.)
//
// The header stands there twice. A change writes the copy that is not the newest, then
// the other one, each stable before the next step: killed at any moment one of them is
// whole, and the newest one counts. Opening the store completes a change, so that no
// old key stays.
type cryptStore struct {
	infoBox
	spec  string
	lower Store
	jobs  *loop.JobQueue
	log   *slog.Logger
	keys  []cryptUserKey
	stop  func()

	cipher atomic.Pointer[xts.Cipher]

	mu   sync.Mutex
	head cryptHeader
}

// openEncrypted opens spec, encrypted:path.
func openEncrypted(spec, path string, o Options) (Store, error) {
	problem := func(err error, hint, format string, a ...any) error {
		return &OpenError{Spec: spec, Problem: fmt.Sprintf(format, a...), Hint: hint, Err: err}
	}
	if o.KeyFile == "" {
		return nil, problem(os.ErrNotExist, "name it by keyFile:", "no key file")
	}
	keys, err := readKeyFile(o.KeyFile)
	if err != nil {
		hint := "correct it"
		if errors.Is(err, os.ErrNotExist) {
			hint = "make one with `(umask 077; od -An -vtx1 -N32 /dev/urandom | tr -d ' \\n' > " + o.KeyFile + ")`, and keep a copy: without it the data are lost"
		}
		return nil, problem(err, hint, "key file %s: %v", o.KeyFile, err)
	}
	lo := o
	if lo.Size > 0 {
		lo.Size += cryptDataOff
	}
	lower, err := Open("file:"+path, lo)
	if err != nil {
		var oe *OpenError
		if errors.As(err, &oe) {
			e := *oe
			e.Spec = spec
			return nil, &e
		}
		return nil, err
	}
	s, err := newCrypt(spec, lower, keys, o.Group, o.Log, o.Create && o.Size > 0)
	if err != nil {
		_ = lower.Close()
		hint := ""
		switch {
		case errors.Is(err, errCryptBlank):
			hint = "write file:" + path + ", or name an encrypted store; to make one: create: true, where no file is"
		case errors.Is(err, errCryptKey):
			hint = "name the key file that it was made with"
		}
		return nil, problem(err, hint, "%v", err)
	}
	return s, nil
}

// errCryptKey: the keys are not those of the store.
var errCryptKey = errors.New("the data key cannot be opened")

// newCrypt makes a store of lower. create: one that is all hole is new. It sleeps.
func newCrypt(spec string, lower Store, keys []cryptUserKey, g *loop.Group, log *slog.Logger, create bool) (Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &cryptStore{spec: spec, lower: lower, keys: keys, log: log}
	if lower.Info().Size <= cryptDataOff {
		return nil, fmt.Errorf("%w: it has %d bytes", errCryptBlank, lower.Info().Size)
	}
	q, err := newSyncQueue(lower, g.Pick())
	if err != nil {
		return nil, err
	}
	data, err := s.load(q, create)
	if err = errors.Join(err, q.close()); err != nil {
		return nil, err
	}
	s.cipher.Store(newCryptCipher(data))
	clear(data)
	s.jobs = g.Workers().NewJobQueue(len(g.Loops()))
	i := s.derive()
	s.p.Store(&i)
	s.stop = lower.Watch(func(*Info) {
		s.change(func(i *Info) bool { *i = s.derive(); return true })
	})
	return s, nil
}

// load reads the header, makes it where the store is new, completes a change that was
// cut off, and gives keys that have no slot one. It gives the data key.
func (s *cryptStore) load(q *syncQueue, create bool) ([]byte, error) {
	b := make([]byte, 2*cryptHeadLen)
	if err := q.move(Read, 0, 0, b); err != nil {
		return nil, err
	}
	readOnly := s.lower.Info().ReadOnly
	h0, err0 := decodeCryptHeader(b)
	h1, err1 := decodeCryptHeader(b[cryptHeadLen:])
	if err0 != nil && err1 != nil {
		if errors.Is(err1, errCryptBlank) && !errors.Is(err0, errCryptBlank) {
			return nil, err0
		}
		if !create || readOnly || !cryptUnmade(b[:cryptHeadLen]) || !cryptUnmade(b[cryptHeadLen:]) {
			return nil, err1
		}
		if err := hole(q, s.lower.Info()); err != nil {
			return nil, err
		}
		h, data := newCryptHeader(s.keys)
		s.head = h
		return data, s.writeHeads(q)
	}
	newest := 0
	if err0 != nil || err1 == nil && h1.seq > h0.seq {
		newest = 1
	}
	h := h0
	if newest == 1 {
		h = h1
	}
	data, err := h.open(s.keys)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCryptKey, err)
	}
	s.head = h
	if readOnly {
		return data, nil
	}
	if s.addKeys(data) {
		s.head.seq++
		return data, s.writeHeads(q)
	}
	if string(b[:cryptHeadLen]) != string(b[cryptHeadLen:]) {
		return data, q.move(Write, FUA, s.copyAt(newest^1), b[newest*cryptHeadLen:][:cryptHeadLen])
	}
	return data, nil
}

// copyAt is where a copy of the header is.
func (s *cryptStore) copyAt(i int) int64 { return int64(i) * cryptHeadLen }

// writeHeads writes s.head to both copies, first over the older.
func (s *cryptStore) writeHeads(q *syncQueue) error {
	b := make([]byte, cryptHeadLen)
	s.head.encode(b)
	first := s.olderCopy(s.head.seq)
	for _, i := range []int{first, first ^ 1} {
		if err := q.move(Write, FUA, s.copyAt(i), b); err != nil {
			return err
		}
	}
	return nil
}

// olderCopy is the copy that a header of sequence number seq is written to first. Both
// are the same but in the middle of a change, and the first one of a change is what
// opening the store copies to the other: any fixed choice will do.
func (s *cryptStore) olderCopy(seq uint64) int { return int(seq & 1) }

// addKeys gives each key of the key file a slot; true: there was one without.
func (s *cryptStore) addKeys(data []byte) (added bool) {
	for i := range s.keys {
		id, free, have := s.keys[i].id(), -1, false
		for j := range s.head.slots {
			switch t := &s.head.slots[j]; {
			case t.used && t.id == id:
				have = true
			case !t.used && free < 0:
				free = j
			}
		}
		if have {
			continue
		}
		if free < 0 {
			s.log.Warn("a key of the key file has no key slot: all are taken", "store", s.spec)
			continue
		}
		s.head.add(free, &s.keys[i], data)
		added = true
	}
	return added
}

// cryptUnmade reports whether a copy of the header is what a crash leaves while a store
// is made: nothing, or a part of it.
func cryptUnmade(b []byte) bool { return isZero(b) || string(b[:8]) == cryptMagic }

// hole is nil where everything behind the header is one.
func hole(q *syncQueue, i *Info) error {
	if !i.Extents {
		return nil // nobody knows
	}
	const off = 2 * cryptHeadLen
	op := &Op{Kind: Extents, Off: off, Len: i.Size - off, Ext: make([]Extent, 1)}
	if err := q.do(op); err != nil {
		return err
	}
	if op.N > 0 && (op.Ext[0].Allocated || op.Ext[0].Len < i.Size-off) {
		return fmt.Errorf("%w, and it is not empty", errCryptBlank)
	}
	return nil
}

// derive is the lower store's Info as it is seen from here.
func (s *cryptStore) derive() Info {
	i := *s.lower.Info()
	i.Size = (i.Size - cryptDataOff) &^ (cryptSector - 1)
	i.BlockAlign = max(i.BlockAlign, cryptSector)
	i.Rekeys = !i.ReadOnly
	i.Pins = false // only our own buffers
	return i
}

func (s *cryptStore) Resize(size int64) error {
	if size <= 0 || size%cryptSector != 0 {
		return fmt.Errorf("%w: %s: size %d is not a positive multiple of %d", ErrRange, s.spec, size, cryptSector)
	}
	return s.lower.Resize(size + cryptDataOff)
}

func (s *cryptStore) Reopen() error { return s.lower.Reopen() }
func (s *cryptStore) Stats() Stats  { return StatsOf(s.lower) }

func (s *cryptStore) Space() (Space, error) { return SpaceOf(s.lower) }

func (s *cryptStore) Close() error {
	if err := s.lower.Close(); err != nil {
		return err
	}
	s.stop()
	return nil
}

// encrypt and decrypt work in place on whole sectors from sector number n on.
func encryptSectors(c *xts.Cipher, b []byte, n uint64) {
	for ; len(b) > 0; n++ {
		c.Encrypt(b[:cryptSector], b[:cryptSector], n)
		b = b[cryptSector:]
	}
}

func decryptSectors(c *xts.Cipher, b []byte, n uint64) {
	for ; len(b) > 0; n++ {
		if s := b[:cryptSector]; !isZero(s) {
			c.Decrypt(s, s, n)
		}
		b = b[cryptSector:]
	}
}
