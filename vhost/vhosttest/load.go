package vhosttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// LoadBytes is the size of each of a Load's transfers.
const LoadBytes = 4096

// A Load is a closed loop of random 4 KiB READ(10) and WRITE(10): each request queue
// keeps Depth of them going, on a locked thread of its own and in a part of the disk of
// its own.
type Load struct {
	LUN       [8]byte
	Block     int // logical block length in bytes (512)
	Blocks    int // 4 KiB blocks from the start of the disk on that it uses
	Depth     int // requests of each queue in flight (32)
	Writes    int // per cent of writes
	Verify    bool
	Retry     bool // send what a unit attention answered again
	Spin      bool // wait by looking instead of for the eventfd
	Indirect  bool
	Count     uint64        // requests of each queue; 0: until Stop or Time
	Time      time.Duration // 0: until Stop or Count
	Seed      uint64
	FirstQ    int // request queues to use: from this one on,
	NQ        int // so many (0: all)
	Batch     int // answers to wait for before the next kick, at most Depth (1)
	BytesEach int // of a transfer; LoadBytes unless set, a multiple of Block
	// Pause is slept by each queue after each kick: a load that is there, and
	// leaves the processor to others.
	Pause time.Duration
	// Region, when set, is where the data buffers lie.
	Region *Region

	stop  atomic.Bool
	bufs  []uint64 // of the data: a second run on the same client takes them again
	parts []*loadQueue
	wg    sync.WaitGroup
	begin time.Time
}

// LoadResult is what a Load has done.
type LoadResult struct {
	Requests, Reads, Writes uint64
	Elapsed                 time.Duration
	Kicks, Calls            uint64
}

// PerRequest is the time that one request took, on average, over all queues.
func (r LoadResult) PerRequest() time.Duration {
	if r.Requests == 0 {
		return 0
	}
	return r.Elapsed / time.Duration(r.Requests)
}

// loadQueue is one queue's part.
type loadQueue struct {
	l        *Load
	q        *Queue
	first    int // 4 KiB block
	blocks   int
	version  []uint32
	busy     []bool
	reqs     []loadRequest
	rng      uint64
	n        atomic.Uint64
	_        [56]byte
	rd, wr   uint64
	k0, c0   uint64
	err      error
	finished time.Time
}

type loadRequest struct {
	Request
	mem   []byte
	block int
	write bool
	data  [1]Buf
}

// Start begins the load on c's request queues, which are its own until Wait has
// returned. A Load may be started again, on the same client and in the same shape.
func (l *Load) Start(c *Client) error {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&l.Block, 512)
	def(&l.Depth, 32)
	def(&l.NQ, c.Requests()-l.FirstQ)
	def(&l.Batch, 1)
	def(&l.BytesEach, LoadBytes)
	each := l.Blocks / l.NQ
	if each < 2*l.Depth {
		return fmt.Errorf("a load of %d queues, %d deep, needs %d blocks of 4 KiB, the disk has %d", l.NQ, l.Depth, 2*l.Depth*l.NQ, l.Blocks)
	}
	l.stop.Store(false)
	l.parts = nil
	for i := range l.NQ {
		p := &loadQueue{l: l, q: c.Request(l.FirstQ + i), first: i * each, blocks: each, rng: l.Seed + uint64(i)*0x9e3779b97f4a7c15 + 1}
		p.version, p.busy = make([]uint32, each), make([]bool, each)
		p.reqs = make([]loadRequest, l.Depth)
		for k := range p.reqs {
			a, err := l.buf(c, i*l.Depth+k)
			if err != nil {
				return err
			}
			r := &p.reqs[k]
			r.mem = c.Mem.At(a, l.BytesEach)
			r.data[0] = Buf{Addr: a, Len: uint32(l.BytesEach)}
			r.LUN, r.Indirect = l.LUN, l.Indirect
			r.Tag = uint64(l.FirstQ+i)<<32 | uint64(k)
		}
		p.q.Spin = l.Spin
		p.k0, p.c0 = p.q.Kicks, p.q.Calls
		l.parts = append(l.parts, p)
	}
	l.begin = time.Now()
	for _, p := range l.parts {
		l.wg.Add(1)
		go p.run()
	}
	return nil
}

// buf is data buffer number i.
func (l *Load) buf(c *Client, i int) (a uint64, err error) {
	if i < len(l.bufs) {
		return l.bufs[i], nil
	}
	if l.Region != nil {
		a, err = l.Region.Alloc(l.BytesEach, LoadBytes)
	} else {
		a, err = c.Mem.Alloc(l.BytesEach, LoadBytes)
	}
	if err == nil {
		l.bufs = append(l.bufs, a)
	}
	return a, err
}

// Done is the number of requests answered so far. Any goroutine.
func (l *Load) Done() uint64 {
	var n uint64
	for _, p := range l.parts {
		n += p.n.Load()
	}
	return n
}

// Stop has every queue take what is under way and end.
func (l *Load) Stop() { l.stop.Store(true) }

// Wait waits for the end.
func (l *Load) Wait() (LoadResult, error) {
	l.wg.Wait()
	var r LoadResult
	var err error
	last := l.begin
	for _, p := range l.parts {
		r.Requests += p.n.Load()
		r.Reads += p.rd
		r.Writes += p.wr
		r.Kicks += p.q.Kicks - p.k0
		r.Calls += p.q.Calls - p.c0
		if p.err != nil {
			err = errors.Join(err, fmt.Errorf("queue %d: %w", p.q.index, p.err))
		}
		if p.finished.After(last) {
			last = p.finished
		}
	}
	r.Elapsed = last.Sub(l.begin)
	return r, err
}

// Run is Start and Wait.
func (l *Load) Run(c *Client) (LoadResult, error) {
	if err := l.Start(c); err != nil {
		return LoadResult{}, err
	}
	return l.Wait()
}

func (p *loadQueue) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer p.l.wg.Done()
	p.err = p.drive()
	if p.err != nil {
		p.l.Stop()
	}
	p.finished = time.Now()
}

func (p *loadQueue) drive() error {
	l := p.l
	out, sent := 0, uint64(0)
	more := func() bool {
		return !l.stop.Load() && (l.Count == 0 || sent < l.Count) && (l.Time == 0 || sent&63 != 0 || time.Since(l.begin) < l.Time)
	}
	for i := range p.reqs {
		if !more() {
			break
		}
		if err := p.submit(&p.reqs[i]); err != nil {
			return err
		}
		out++
		sent++
	}
	p.q.Kick()
	for out > 0 {
		if l.Pause > 0 && !l.stop.Load() {
			time.Sleep(l.Pause)
		}
		r, err := p.q.Wait(0)
		if err != nil {
			return err
		}
		for n := 1; ; n++ {
			out--
			x := &p.reqs[uint32(r.Tag)]
			again, err := p.check(x)
			if err != nil {
				return err
			}
			if again {
				if err := p.q.Submit(&x.Request); err != nil {
					return err
				}
				out++
			} else if more() {
				if err := p.submit(x); err != nil {
					return err
				}
				out++
				sent++
			}
			if n >= l.Batch {
				r, err = p.q.Next()
			} else if out > 0 {
				r, err = p.q.Wait(0)
			} else {
				break
			}
			if err != nil {
				return err
			}
			if r == nil {
				break
			}
		}
		p.q.Kick()
	}
	return nil
}

func (p *loadQueue) random() uint64 {
	p.rng ^= p.rng << 13
	p.rng ^= p.rng >> 7
	p.rng ^= p.rng << 17
	return p.rng
}

func (p *loadQueue) submit(x *loadRequest) error {
	v := p.random()
	b := int(v>>16) % p.blocks
	for p.busy[b] {
		b = (b + 1) % p.blocks
	}
	p.busy[b] = true
	x.block = b
	x.write = int(v&0xffff)%100 < p.l.Writes
	op := byte(0x28)
	x.Out, x.In = nil, nil
	if x.write {
		op = 0x2a
		if p.l.Verify {
			p.fill(x.mem, b, p.version[b]+1)
		}
		x.Out = x.data[:]
	} else {
		x.In = x.data[:]
	}
	lba := uint32((p.first + b) * (LoadBytes / p.l.Block))
	n := uint16(p.l.BytesEach / p.l.Block)
	clear(x.CDB[:])
	x.CDB[0] = op
	binary.BigEndian.PutUint32(x.CDB[2:], lba)
	binary.BigEndian.PutUint16(x.CDB[7:], n)
	return p.q.Submit(&x.Request)
}

// fill makes the contents of version v of block b: zero for version 0.
func (p *loadQueue) fill(mem []byte, b int, v uint32) {
	for i := 0; i < len(mem); i += 16 {
		binary.LittleEndian.PutUint64(mem[i:], uint64(v)<<32|uint64(p.first+b))
		binary.LittleEndian.PutUint64(mem[i+8:], uint64(i)^p.l.Seed)
	}
}

// check looks at an answer; again: the request is to be sent again.
func (p *loadQueue) check(x *loadRequest) (again bool, err error) {
	b := x.block
	if x.Response == RespOK && x.Status == 2 && p.l.Retry {
		if key, _ := x.SenseCode(); key == 6 {
			return true, nil
		}
	}
	p.n.Add(1)
	p.busy[b] = false
	if x.Response != RespOK || x.Status != 0 {
		key, asc := x.SenseCode()
		return false, fmt.Errorf("block %d, write %v: response %d, status %#x, sense %x %04x", p.first+b, x.write, x.Response, x.Status, key, asc)
	}
	if x.write {
		p.wr++
		p.version[b]++
		return false, nil
	}
	p.rd++
	v := p.version[b]
	if !p.l.Verify || v == 0 {
		return false, nil
	}
	for i := 0; i < len(x.mem); i += 16 {
		w, k := binary.LittleEndian.Uint64(x.mem[i:]), binary.LittleEndian.Uint64(x.mem[i+8:])
		if w != uint64(v)<<32|uint64(p.first+b) || k != uint64(i)^p.l.Seed {
			return false, fmt.Errorf("block %d at byte %d: %016x %016x is not version %d", p.first+b, i, w, k, v)
		}
	}
	return false, nil
}
